//! Servers in a guest, reached from the host.

use pyro_smoke::{Home, scaled, stderr, stdout};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Stdio;
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

/// What the web server on a port of the host's says first; nothing if it is reset.
fn get(port: u16) -> Option<String> {
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("it is published");
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut status = [0; 15];
    client.read_exact(&mut status).ok()?;
    Some(String::from_utf8_lossy(&status).into_owned())
}

fn json(home: &Home, words: &[&str]) -> Value {
    // What is behind the dashes is the program's.
    let at = words.iter().position(|word| *word == "--").unwrap_or(words.len());
    let (ours, its) = words.split_at(at);
    serde_json::from_str(&succeed(home, &[ours, &["--json"], its].concat())).expect("JSON")
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

/// A web server that is published as a service, from its start to its stop, across
/// a crash and a starter that is killed.
#[test]
fn r11_a_service_is_published_as_long_as_it_is_not_stopped() {
    let home = Home::new();
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w"]);
    let service = |words: &[&str]| json(&home, &[&["workspace", "service"], words].concat());
    let mut start = vec!["start", "w", "web", "--ready-http", "http://localhost:8000/"];
    start.extend(["--restart", "always", "--publish", "8000"]);
    let server = ["--", "python3", "-m", "http.server", "8000"];
    start.extend(server);
    let started = service(&start);
    let port = &started["published_ports"][0]["host_port"];
    let port: u16 = port.as_u64().expect("a port").try_into().expect("a port");
    assert_eq!(get(port).expect("it is ready"), "HTTP/1.0 200 OK");
    let list = succeed(&home, &["workspace", "port", "list", "w"]);
    assert!(list.contains(&port.to_string()) && list.contains("web"), "{list}");

    // A second one that wants the same does not start, and takes nothing.
    let taken = format!("{port}:8001");
    let words = ["workspace", "service", "start", "w", "second", "--publish", &taken];
    let second = home.pyro([&words[..], &["--", "sleep", "9"]].concat()).output();
    let second = stderr(&second.expect("pyro starts"));
    assert!(second.contains("is published already for service web"), "{second}");

    // It crashes, and is started again by its policy: to whoever connects, that is
    // nothing but a reset.
    let pid = started["pid"].to_string();
    succeed(&home, &["workspace", "exec", "w", "--", "kill", "-9", &pid]);
    while service(&["status", "w", "web"])["restart_count"] != 1 {}
    while get(port).is_none() {}
    assert_eq!(service(&["list", "w"])["services"][0]["published_ports"][0]["host_port"], port);

    let stopped = service(&["stop", "w", "web"]);
    assert_eq!(stopped["published_ports"], Value::Array(Vec::new()), "{stopped}");
    TcpStream::connect(("127.0.0.1", port)).expect_err("nobody listens any more");

    // A starter that is killed before the service is ready.
    let fixed = format!("{port}:8000");
    let late = ["workspace", "service", "start", "w", "web", "--publish", &fixed];
    let late = [&late[..], &["--ready-file", "never"], &server].concat();
    let mut starter = home.pyro(late).stdout(Stdio::null()).spawn().expect("pyro starts");
    while service(&["status", "w", "web"])["state"] != "starting" {}
    assert_eq!(json(&home, &["workspace", "port", "list", "w"])["count"], 1);
    starter.kill().expect("it runs");
    starter.wait().expect("it ends");
    while json(&home, &["workspace", "port", "list", "w"])["count"] != 0 {}
    TcpStream::connect(("127.0.0.1", port)).expect_err("nobody listens any more");

    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}
