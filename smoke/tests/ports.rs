//! Servers in a guest, reached from the host.

use pyro_smoke::{Home, scaled, stdout};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

const MIB: usize = 1 << 20;

/// Answers a line with as many bytes as it asks for, once the client has said
/// that it will say no more; and says before that it is there.
const SERVER: &str = r#"
import os, socket
server = socket.create_server(("127.0.0.1", 8000), backlog=64)
open("listening", "w").close()
while True:
    client, _ = server.accept()
    if os.fork():
        client.close()
        continue
    asked = b""
    while (more := client.recv(65536)):
        asked += more
    left = int(asked)
    while left:
        left -= client.send(b"pyro" * 4096 if left >= 16384 else b"y" * left)
    os._exit(0)
"#;

fn succeed(home: &Home, words: &[&str]) -> String {
    stdout(&home.pyro(words).output().expect("pyro starts"))
}

/// A workspace with the server, published: where it is.
fn serve(home: &Home) -> u16 {
    succeed(home, &["workspace", "create", "debian:12", "--name", "w"]);
    let exec = ["workspace", "exec", "w"];
    succeed(home, &["workspace", "file", "write", "w", "server.py", "--text", SERVER]);
    succeed(home, &[&exec[..], &["--detach", "--", "python3", "server.py"]].concat());
    let listening = "while ! [ -e listening ]; do sleep 0.1; done";
    succeed(home, &[&exec[..], &["--shell", listening]].concat());
    let published = succeed(home, &["workspace", "port", "publish", "w", "8000", "--json"]);
    let published: Value = serde_json::from_str(&published).expect("JSON");
    let port = published["published_ports"][0]["host_port"].as_u64().expect("a port");
    port.try_into().expect("a port")
}

/// Asks the server for so many bytes.
fn ask(port: u16, length: usize) -> TcpStream {
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("it is published");
    write!(client, "{length}").expect("it listens");
    client.shutdown(Shutdown::Write).expect("connected");
    client
}

#[test]
fn r11_half_closed_and_read_slowly_all_of_it_comes() {
    let home = Home::new();
    let port = serve(&home);
    let length = scaled(50, 4) as usize * MIB;
    let mut slow = ask(port, length);
    let mut first = [0; 4];
    slow.read_exact(&mut first).expect("the server sends");
    assert_eq!(&first, b"pyro");
    // While it is stuck others are served, and other calls change nothing.
    for _ in 0..scaled(20, 4) {
        let mut heard = Vec::new();
        ask(port, 10).read_to_end(&mut heard).expect("the server ends");
        assert_eq!(heard, b"yyyyyyyyyy");
    }
    succeed(&home, &["workspace", "exec", "w", "--", "true"]);
    let list = succeed(&home, &["workspace", "port", "list", "w"]);
    assert!(list.contains(&format!("127.0.0.1:{port}")) && list.contains("8000/tcp"), "{list}");
    let mut heard = Vec::new();
    slow.read_to_end(&mut heard).expect("the server ends");
    assert_eq!(heard.len() + first.len(), length);
    assert!(heard.chunks(4).all(|four| four == b"pyro"), "others came");

    succeed(&home, &["workspace", "stop", "w"]);
    TcpStream::connect(("127.0.0.1", port)).expect_err("nobody listens any more");
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}
