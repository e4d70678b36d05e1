//! Agents that die, and are started again by their machine's init.

use crate::exec::Bench;
use crate::fake_vmm::{FakeVmm, WELL, serve_guest};
use crate::home::Home;
use crate::networking::{Kernel, wire};
use pyro::event_log::Happening;
use pyro::operation::workspace::ExecState;
use pyro::operation::{
    NetworkDeny, PortPublish, ServiceList, ServiceLogs, ServiceStart, ShellList, ShellOpen,
    ShellRead, WorkspaceEvents, WorkspaceExec, WorkspaceStatus,
};
use pyro::workspace::State;
use pyro::{Context, ErrorKind};
use pyro_agent::{Guest, Phase};
use pyro_protocol::channel::{Side, connect, interrupt};
use serde_json::json;
use std::fs;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Where to hear of its networks, and what kills its agent.
struct Mortal {
    vmm: FakeVmm,
    opened: Receiver<Kernel>,
    death: Arc<Notify>,
}

/// Machines whose agent dies when it is told to, and `deaths` times more before it
/// has served anybody; the next is all right.
fn mortal(home: &Home, deaths: usize) -> Mortal {
    let (guest, death) = (home.path("guest"), Arc::new(Notify::new()));
    fs::create_dir_all(&guest).unwrap();
    let (wire, opened) = wire(0);
    let told = Arc::clone(&death);
    let vmm = FakeVmm::new(move |inside| {
        let mut agent = Guest::in_process_with_wire(guest.clone(), wire.clone(), Phase::Waiting);
        let told = Arc::clone(&told);
        async move {
            let mut channel = inside.channel;
            tokio::select! {
                how = serve_guest(&mut channel, Arc::clone(&agent)) => return how,
                () = told.notified() => {}
            }
            for _ in 0..deaths {
                interrupt(&mut channel).await.unwrap();
                let Ok(_) = connect(&mut channel, Side::Guest).await else { return WELL.into() };
            }
            interrupt(&mut channel).await.unwrap();
            agent = agent.restarted().unwrap();
            serve_guest(&mut channel, agent).await
        }
    });
    Mortal { vmm, opened, death }
}

#[tokio::test]
async fn r10_an_agent_that_dies_is_another_one_and_its_machine_goes_on() {
    let home = Home::new();
    let Mortal { vmm, opened, death } = mortal(&home, 0);
    let policy = json!({ "network_policy": "egress", "allow": ["pypi.org"] });
    let bench = Bench::on(home, vmm.clone(), policy).await;
    let kernel = opened.recv().unwrap();
    bench.ask::<NetworkDeny>(json!({ "rule": "1.1.1.1" })).await.unwrap();
    let shell = bench.ask::<ShellOpen>(json!({})).await.unwrap().shell_id;
    let start = json!({ "service_name": "web", "command": "echo up; exec sleep 1000" });
    bench.ask::<ServiceStart>(start).await.unwrap();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    let published = bench.ask::<PortPublish>(json!({ "ports": [port] })).await.unwrap();
    let port = published.published_ports[0].host_port;

    // All who wait for the old one are told.
    let read = json!({ "shell_id": shell, "wait_for_idle_ms": 10_000, "wait_seconds": 60 });
    let exec = json!({ "command": "touch runs; exec sleep 1000" });
    let follow = json!({ "service_name": "web", "follow": true, "all": true });
    let streaming = Context { takes_output: true, ..Context::default() };
    let runs = bench.file("runs");
    let dies = async {
        while !runs.exists() {
            tokio::task::yield_now().await;
        }
        death.notify_one();
    };
    let (read, exec, follow, ()) = tokio::join!(
        bench.ask::<ShellRead>(read),
        bench.ask::<WorkspaceExec>(exec),
        bench.ask_with::<ServiceLogs>(follow, streaming),
        dies
    );
    for error in [read.map(drop), exec.map(drop), follow.map(drop)] {
        assert_eq!(error.expect_err("it died").kind(), ErrorKind::GuestLost);
    }

    // The next is there at once, and knows nothing of what the old one had.
    let next = bench.exec(json!({ "command": "echo on" })).await;
    assert_eq!((next.state, &*next.output.stdout), (ExecState::Exited, "on\n"));
    assert_eq!(bench.ask::<ShellList>(json!({})).await.unwrap().count, 0);
    assert_eq!(bench.ask::<ServiceList>(json!({})).await.unwrap().count, 0);
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut served, _) = server.accept().await.unwrap();
    served.write_all(b"!").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'!');
    drop(kernel);
    let kernel = opened.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(kernel.is_refused("1.1.1.1:53"), "the rules are those of now");
    let status = bench.ask::<WorkspaceStatus>(json!({})).await.unwrap();
    assert_eq!(status.workspace.state, State::Running);
    assert_eq!(vmm.started(), 1);
    let events = bench.ask::<WorkspaceEvents>(json!({})).await.unwrap().events;
    let reopened = |happening: &Happening| matches!(happening, Happening::NetworkReopened { .. });
    assert!(events.iter().any(|line| reopened(&line.happening)), "{events:#?}");
    bench.end().await;
}

/// A guest that breaks its channel again and again keeps nobody busy.
#[tokio::test]
async fn s4_a_channel_that_is_broken_again_and_again_is_given_up() {
    let home = Home::new();
    let Mortal { vmm, death, .. } = mortal(&home, 1000);
    let bench = Bench::on(home, vmm.clone(), json!({})).await;
    bench.exec(json!({ "command": "true" })).await;
    death.notify_one();
    let place = bench.place();
    crate::workspaces::await_state(&place, State::Crashed).await;
    bench.exec(json!({ "command": "true" })).await;
    assert_eq!(vmm.started(), 2);
    bench.end().await;
}
