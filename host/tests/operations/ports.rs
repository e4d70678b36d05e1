//! Published ports: the guest is this process, so its servers are ours.

use crate::exec;
use crate::expiring::expire;
use crate::fake_vmm::FakeVmm;
use crate::home::{DEADLINES, ENVIRONMENT, Home};
use crate::workspaces::await_state;
use pyro::event_log::{EventLog, Happening};
use pyro::operation::workspace::PublishedPort;
use pyro::operation::{
    Operation, PortList, PortPublish, PortUnpublish, ProcessList, ServiceLogs, ServiceRemove,
    ServiceRestart, ServiceStart, ServiceStop, WorkspaceCreate, WorkspaceExec, WorkspaceStart,
    WorkspaceStatus, WorkspaceStop, WorkspaceUpdate,
};
use pyro::supervisor::control::give;
use pyro::supervisor::order::ReadTtl;
use pyro::workspace::State;
use pyro::{ErrorKind, Pyro};
use serde_json::{Value, json};
use std::fs;
use std::io::ErrorKind::{ConnectionRefused, ConnectionReset};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// More than all buffers on the way hold together.
const LARGE: usize = 16 << 20;

/// At the same time, each way.
const MANY: usize = 300;

struct Bench {
    _home: Home,
    pyro: Pyro,
}

impl Bench {
    async fn new() -> Self {
        let home = Home::new();
        fs::create_dir_all(home.path("guest")).unwrap();
        let pyro = home.pyro(FakeVmm::honest(home.path("guest")));
        let wanted = json!({ "environment": ENVIRONMENT, "mem_mib": 128, "name": "w" });
        pyro.call(serde_json::from_value::<WorkspaceCreate>(wanted).unwrap()).await.unwrap();
        Self { _home: home, pyro }
    }

    async fn ask<O: Operation>(&self, more: Value) -> pyro::Result<O::Output> {
        let mut asked = json!({ "workspace_id": "w" });
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.pyro.call(serde_json::from_value::<O>(asked).unwrap()).await
    }

    async fn publish(&self, ports: &[String]) -> pyro::Result<Vec<PublishedPort>> {
        Ok(self.ask::<PortPublish>(json!({ "ports": ports })).await?.published_ports)
    }

    /// A server in the guest, and a client's way to it.
    async fn serve(&self) -> (TcpListener, u16) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let published = self.publish(&[port.to_string()]).await.unwrap();
        assert_eq!(published.len(), 1);
        assert_eq!((published[0].host.as_str(), published[0].guest_port), ("127.0.0.1", port));
        (server, published[0].host_port)
    }
}

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7 % 251) as u8).collect()
}

#[tokio::test]
async fn r11_a_half_closed_connection_goes_on() {
    let bench = Bench::new().await;
    let (server, port) = bench.serve().await;
    let mut client = connect(port).await;
    let (mut served, _) = server.accept().await.unwrap();
    client.write_all(b"all I have to say").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    served.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"all I have to say");
    served.write_all(b"heard").await.unwrap();
    drop(served);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"heard");
}

#[tokio::test]
async fn r11_who_reads_late_gets_all() {
    let bench = Bench::new().await;
    let (server, port) = bench.serve().await;
    let mut client = connect(port).await;
    let (mut served, _) = server.accept().await.unwrap();
    let all = pattern(LARGE);
    let sent = all.clone();
    let sending = tokio::spawn(async move {
        served.write_all(&sent).await.unwrap();
        served.shutdown().await.unwrap();
        served
    });
    // The sender is stuck by now or later; nothing may be lost either way.
    let mut first = [0; 1];
    client.read_exact(&mut first).await.unwrap();
    bench.ask::<PortList>(json!({})).await.unwrap();
    assert!(!sending.is_finished(), "it all fits into buffers");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(first[0], all[0]);
    assert!(rest == all[1..], "{} bytes came", rest.len() + 1);
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn an_end_that_is_none_is_a_reset() {
    let bench = Bench::new().await;
    let (server, port) = bench.serve().await;
    let mut client = connect(port).await;
    let (served, _) = server.accept().await.unwrap();
    served.set_zero_linger().unwrap();
    drop(served);
    let error = client.read(&mut [0; 1]).await.expect_err("it was reset");
    assert_eq!(error.kind(), ConnectionReset);

    let client = connect(port).await;
    let (mut served, _) = server.accept().await.unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    let error = served.read(&mut [0; 1]).await.expect_err("it was reset");
    assert_eq!(error.kind(), ConnectionReset);
}

#[tokio::test]
async fn a_server_may_come_later_and_come_again() {
    let bench = Bench::new().await;
    let (server, port) = bench.serve().await;
    let address = server.local_addr().unwrap();
    drop(server);
    // The news may be there before the connection is.
    let asking = async { TcpStream::connect(("127.0.0.1", port)).await?.read_u8().await };
    let error = asking.await.expect_err("nobody listens");
    assert_eq!(error.kind(), ConnectionReset);
    for _ in 0..2 {
        let server = TcpListener::bind(address).await.unwrap();
        let mut client = connect(port).await;
        let (mut served, _) = server.accept().await.unwrap();
        served.write_all(b"!").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'!');
    }
}

#[tokio::test]
async fn servers_of_ipv6_are_found() {
    let bench = Bench::new().await;
    let server = TcpListener::bind("[::1]:0").await.unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    let published = bench.publish(&[port]).await.unwrap();
    let mut client = connect(published[0].host_port).await;
    let (mut served, _) = server.accept().await.unwrap();
    served.write_all(b"6").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'6');
}

#[tokio::test]
async fn many_connections_at_once_are_kept_apart() {
    let bench = Bench::new().await;
    let (server, port) = bench.serve().await;
    let echoing = tokio::spawn(async move {
        for _ in 0..MANY {
            let (mut served, _) = server.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = served.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
    });
    let clients = (0..MANY).map(|number| async move {
        let mut client = connect(port).await;
        let said = pattern(1000 + number);
        client.write_all(&said).await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert!(heard == said, "client {number}");
    });
    futures::future::join_all(clients).await;
    echoing.await.unwrap();
}

#[tokio::test]
async fn r11_other_calls_leave_what_is_published_and_a_stop_does_not() {
    let bench = Bench::new().await;
    let (server, port) = bench.serve().await;
    let mut client = connect(port).await;
    let (mut served, _) = server.accept().await.unwrap();
    bench.ask::<WorkspaceExec>(json!({ "command": ["true"] })).await.unwrap();
    bench.ask::<ProcessList>(json!({})).await.unwrap();
    let status = bench.ask::<WorkspaceStatus>(json!({})).await.unwrap();
    assert_eq!(status.published_ports.unwrap()[0].host_port, port);
    served.write_all(b"!").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'!');

    bench.ask::<WorkspaceStop>(json!({})).await.unwrap();
    let ended = client.read(&mut [0; 1]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let error = TcpStream::connect(("127.0.0.1", port)).await.expect_err("nobody listens");
    assert_eq!(error.kind(), ConnectionRefused);
    let refused = bench.ask::<PortList>(json!({})).await.expect_err("it is stopped");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    bench.ask::<WorkspaceStart>(json!({})).await.unwrap();
    assert_eq!(bench.ask::<PortList>(json!({})).await.unwrap().count, 0);
}

/// What becomes of services is no port's affair; what becomes of the workspace is.
#[tokio::test]
async fn r11_a_port_outlives_its_service_and_ends_with_its_workspace() {
    let bench = exec::Bench::new().await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let asked = json!({ "ports": [server.local_addr().unwrap().port().to_string()] });
    let publish = async || {
        let published = bench.ask::<PortPublish>(asked.clone()).await.unwrap();
        published.published_ports[0].host_port
    };
    let port = publish().await;
    let web = json!({ "service_name": "web" });
    let start = json!({ "service_name": "web", "command": "echo up; exec sleep 1000" });
    bench.ask::<ServiceStart>(start).await.unwrap();
    let mut early = connect(port).await;
    let (mut served_early, _) = server.accept().await.unwrap();
    bench.ask::<ServiceLogs>(web.clone()).await.unwrap();
    bench.ask::<ServiceRestart>(web.clone()).await.unwrap();
    bench.ask::<ServiceStop>(web.clone()).await.unwrap();
    bench.ask::<ServiceRemove>(web).await.unwrap();
    served_early.write_all(b"!").await.unwrap();
    assert_eq!(early.read_u8().await.unwrap(), b'!');
    let mut late = connect(port).await;
    let (mut served, _) = server.accept().await.unwrap();
    served.write_all(b"?").await.unwrap();
    assert_eq!(late.read_u8().await.unwrap(), b'?');
    // A call that is underway, as a connection is, would defer what comes now.
    drop((early, late, served_early, served));

    let place = bench.place();
    place.change(expire).await.unwrap();
    give(ReadTtl, place.path(), DEADLINES.reply).await.unwrap();
    await_state(&place, State::Stopped).await;
    let expect_closed = async |port: u16| {
        let error = TcpStream::connect(("127.0.0.1", port)).await.expect_err("nobody listens");
        assert_eq!(error.kind(), ConnectionRefused);
    };
    expect_closed(port).await;
    bench.ask::<WorkspaceUpdate>(json!({ "clear_ttl": true })).await.unwrap();
    bench.ask::<WorkspaceStart>(json!({})).await.unwrap();
    let port = publish().await;
    drop(connect(port).await);
    bench.end().await;
    expect_closed(port).await;
}

#[tokio::test]
async fn what_is_taken_back_is_gone_with_its_connections() {
    let bench = Bench::new().await;
    let (server, port) = bench.serve().await;
    let guest_port = server.local_addr().unwrap().port();
    let mut client = connect(port).await;
    let _served = server.accept().await.unwrap();
    let gone = json!({ "ports": [guest_port.to_string()] });
    let unpublished = bench.ask::<PortUnpublish>(gone.clone()).await.unwrap();
    assert_eq!(unpublished.published_ports[0].host_port, port);
    let ended = client.read(&mut [0; 1]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let error = TcpStream::connect(("127.0.0.1", port)).await.expect_err("nobody listens");
    assert_eq!(error.kind(), ConnectionRefused);
    let error = bench.ask::<PortUnpublish>(gone).await.expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.next_step().unwrap().contains("port list"), "{error:?}");

    let place = pyro::workspace::find::find(&bench.pyro.config, "w").unwrap();
    let lines = EventLog::within(place.path()).newest(100).unwrap();
    let told = |wanted: fn(&Happening) -> bool| lines.iter().any(|line| wanted(&line.happening));
    assert!(told(|happening| matches!(happening, Happening::PortPublished(_))));
    assert!(told(|happening| matches!(happening, Happening::PortUnpublished(_))));
}

#[tokio::test]
async fn all_or_none_are_published() {
    let bench = Bench::new().await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = other.local_addr().unwrap().port();
    let asked = ["80".into(), format!("{taken}:81")];
    let error = bench.publish(&asked).await.expect_err("one is taken");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    assert_eq!(bench.ask::<PortList>(json!({})).await.unwrap().count, 0);

    // Again is no error, and no second port.
    let first = bench.publish(&["80".into()]).await.unwrap();
    assert_eq!(bench.publish(&["80".into()]).await.unwrap(), first);
    // Another one of the host's is.
    drop(other);
    let asked = format!("{taken}:80");
    assert_eq!(bench.publish(&[asked]).await.unwrap()[0].host_port, taken);
    assert_eq!(bench.ask::<PortList>(json!({})).await.unwrap().count, 2);
}
