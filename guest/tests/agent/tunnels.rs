//! Connections to servers in the guest, which is this process.

use crate::host::{Connection, Host, soon};
use pyro_protocol::tunnel::{ConnectPort, PortConnected};
use pyro_protocol::{AgentErrorKind, FrameKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A tunnel, and the server's end of what it leads to.
async fn tunnel(host: &Host) -> (Connection, TcpStream) {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = server.local_addr().expect("bound").port();
    let mut connection = host.connect().await;
    let connected = connection.call(ConnectPort { port }).await;
    assert_eq!(connected.expect("somebody listens"), PortConnected);
    let (served, _) = server.accept().await.expect("a client");
    (connection, served)
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let host = Host::new();
    let (mut connection, mut served) = tunnel(&host).await;
    connection.writer.send_raw(FrameKind::Data, b"question").await.expect("open");
    connection.writer.send_raw(FrameKind::DataEnd, b"").await.expect("open");
    let mut heard = Vec::new();
    soon("the end", served.read_to_end(&mut heard)).await.expect("open");
    assert_eq!(heard, b"question");
    served.write_all(b"answer").await.expect("open");
    drop(served);
    let frame = connection.next().await;
    assert_eq!((frame.kind, frame.payload.as_slice()), (FrameKind::Data, &b"answer"[..]));
    let frame = connection.next().await;
    assert_eq!((frame.kind, frame.payload.as_slice()), (FrameKind::DataEnd, &b""[..]));
    connection.closed().await;
}

#[tokio::test]
async fn a_host_that_goes_away_resets() {
    let host = Host::new();
    let (connection, mut served) = tunnel(&host).await;
    drop(connection);
    let error = soon("the reset", served.read(&mut [0; 1])).await.expect_err("no end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // After its own end too: the answer is wanted by nobody.
    let (mut connection, mut served) = tunnel(&host).await;
    connection.writer.send_raw(FrameKind::DataEnd, b"").await.expect("open");
    assert_eq!(soon("the end", served.read(&mut [0; 1])).await.expect("an end"), 0);
    drop(connection);
    let writing = async {
        while served.write_all(&[0; 1024]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon("the reset", writing).await;
}

#[tokio::test]
async fn s4_a_host_that_breaks_the_protocol_resets() {
    for (kind, payload) in [(FrameKind::DataEnd, &b"more"[..]), (FrameKind::Stdin, b"x")] {
        let host = Host::new();
        let (mut connection, mut served) = tunnel(&host).await;
        connection.writer.send_raw(kind, payload).await.expect("open");
        let error = soon("the reset", served.read(&mut [0; 1])).await.expect_err("no end");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(connection.next().await.kind, FrameKind::Error);
    }
}

#[tokio::test]
async fn where_nobody_listens_is_said() {
    let host = Host::new();
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = server.local_addr().expect("bound").port();
    drop(server);
    let error = host.call(ConnectPort { port }).await.expect_err("nobody listens");
    assert_eq!(error.kind, AgentErrorKind::NotFound);
    assert!(error.message.contains(&port.to_string()), "{}", error.message);
}
