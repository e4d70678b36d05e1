//! Services with published ports. The guest is this process, so its servers are
//! ours.

use crate::exec::Bench;
use pyro::event_log::{EventLog, Happening};
use pyro::operation::workspace::{
    PublishedPort, ServiceReport, ServiceReportState, ServiceStartAnswer, StopReason,
};
use pyro::operation::{
    Answer, AnyAnswer, Ink, PortList, PortPublish, PortUnpublish, ServiceList, ServiceRemove,
    ServiceRestart, ServiceStart, ServiceStatus, ServiceStop, WorkspaceStart, WorkspaceStatus,
    WorkspaceStop,
};
use pyro::{Context, ErrorKind};
use serde_json::{Value, json};
use std::fs;
use std::io::ErrorKind::ConnectionRefused;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const SLEEPS: &str = "exec sleep 1000";

/// Runs, and never is ready.
const WAITS: &str = "touch runs; exec sleep 1000";

impl Bench {
    async fn start(&self, name: &str, ports: &[&str]) -> pyro::Result<ServiceStartAnswer> {
        let start = json!({ "service_name": name, "command": SLEEPS, "publish": ports });
        self.ask::<ServiceStart>(start).await
    }

    async fn restart(&self, name: &str) -> pyro::Result<ServiceStartAnswer> {
        self.ask::<ServiceRestart>(json!({ "service_name": name })).await
    }

    async fn stop(&self, name: &str) -> ServiceReport {
        self.ask::<ServiceStop>(json!({ "service_name": name })).await.unwrap()
    }

    async fn published(&self) -> Vec<PublishedPort> {
        self.ask::<PortList>(json!({})).await.unwrap().published_ports
    }

    /// Starts what never is ready, and gives up the start once it runs.
    async fn give_up(&self, ports: &[&str], how: impl AsyncFnOnce(CancellationToken)) {
        let start = json!({
            "service_name": "web", "command": WAITS, "ready_file": "never", "publish": ports,
        });
        let context = Context::default();
        let cancel = context.cancel.clone();
        let runs = self.file("runs");
        let leaving = async {
            while !runs.exists() {
                tokio::task::yield_now().await;
            }
            how(cancel).await;
        };
        tokio::select! {
            started = self.ask_with::<ServiceStart>(start, context) => {
                assert_eq!(started.unwrap_err().kind(), ErrorKind::Cancelled);
            }
            () = leaving => {}
        }
        // Its log ends with the service.
        self.written("web").await;
        fs::remove_file(&runs).unwrap();
    }
}

fn hosts(ports: &[PublishedPort]) -> Vec<u16> {
    ports.iter().map(|port| port.host_port).collect()
}

/// A port of the host's that nobody has, and that nobody gets who takes any.
async fn unused() -> TcpListener {
    let first = 10_000 + std::process::id() * 8 % 20_000;
    for port in u16::try_from(first).unwrap()..32_768 {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            return listener;
        }
    }
    panic!("they are all taken");
}

async fn assert_refused(port: u16) {
    let error = TcpStream::connect(("127.0.0.1", port)).await.expect_err("nobody listens");
    assert_eq!(error.kind(), ConnectionRefused);
}

#[tokio::test]
async fn r11_what_a_service_publishes_stays_with_it() {
    let bench = Bench::new().await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let guest = server.local_addr().unwrap().port();
    let fixed = unused().await.local_addr().unwrap().port();
    let wanted = [guest.to_string(), format!("{fixed}:{guest}")];
    let started = bench.start("web", &[&wanted[0], &wanted[1]]).await.unwrap().service;
    let ports = started.published_ports.clone();
    assert_eq!(ports.len(), 2, "{started:?}");
    assert!(hosts(&ports).contains(&fixed));
    assert!(ports.iter().all(|port| port.guest_port == guest));
    assert!(ports.iter().all(|port| port.service_name.as_deref() == Some("web")));
    let text = started.to_text(Ink::Plain);
    assert!(text.contains(&format!("{guest}/tcp on 127.0.0.1:{fixed}")), "{text}");

    // One connection for all that follows.
    let mut client = TcpStream::connect(("127.0.0.1", fixed)).await.unwrap();
    let (mut served, _) = server.accept().await.unwrap();
    let other = bench.ask::<PortPublish>(json!({ "ports": ["9"] })).await.unwrap();
    assert_eq!(other.published_ports[0].service_name, None);
    bench.start("other", &[]).await.unwrap();
    let name = json!({ "service_name": "web" });
    assert_eq!(bench.ask::<ServiceStatus>(name.clone()).await.unwrap(), started);
    let listed = bench.ask::<ServiceList>(json!({})).await.unwrap();
    assert_eq!(listed.services[0].published_ports, []);
    assert_eq!(listed.services[1].published_ports, ports);
    assert!(listed.to_text(Ink::Plain).contains(&fixed.to_string()));
    assert_eq!(bench.published().await.len(), 3);
    let status = bench.ask::<WorkspaceStatus>(json!({})).await.unwrap();
    assert_eq!(status.published_ports.as_ref().unwrap().len(), 3);
    let text = status.to_text(Ink::Plain);
    assert!(text.contains(&format!("127.0.0.1:{fixed}, service web")), "{text}");
    assert_eq!(bench.restart("web").await.unwrap().service.published_ports, ports);
    served.write_all(b"!").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'!');

    // It ends with the service, and only that.
    assert_eq!(bench.stop("web").await.published_ports, []);
    let ended = client.read(&mut [0; 1]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    for port in hosts(&ports) {
        assert_refused(port).await;
    }
    assert_eq!(bench.published().await, other.published_ports);
    let again = bench.restart("web").await.unwrap().service.published_ports;
    assert_eq!(again.len(), 2);
    assert!(hosts(&again).contains(&fixed));
    bench.ask::<ServiceRemove>(name).await.unwrap();
    assert_eq!(bench.published().await, other.published_ports);
    assert_eq!(bench.start("web", &[]).await.unwrap().service.published_ports, []);
    assert_eq!(bench.restart("web").await.unwrap().service.published_ports, []);

    let lines = EventLog::within(&bench.directory()).newest(1000).unwrap();
    let for_web = |published: &pyro::published::Published| {
        published.service.as_ref().is_some_and(|name| name.as_str() == "web")
    };
    let count = |wanted: &dyn Fn(&Happening) -> bool| {
        lines.iter().filter(|line| wanted(&line.happening)).count()
    };
    assert_eq!(count(&|it| matches!(it, Happening::PortPublished(port) if for_web(port))), 4);
    assert_eq!(count(&|it| matches!(it, Happening::PortUnpublished(port) if for_web(port))), 4);
    bench.end().await;
}

#[tokio::test]
async fn a_port_that_is_not_free_keeps_its_service_from_starting() {
    let bench = Bench::new().await;
    let other = unused().await;
    let taken = other.local_addr().unwrap().port();
    let wanted = format!("{taken}:80");
    let error = bench.start("web", &["81", &wanted]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let text = error.chain();
    assert!(text.contains("service web is not started"), "{text}");
    assert!(text.contains(&taken.to_string()) && error.next_step().is_some(), "{text}");
    assert_eq!(bench.published().await, []);
    assert_eq!(bench.ask::<ServiceList>(json!({})).await.unwrap().count, 0);
    drop(other);

    // One service has it; then nobody else, for whatever port of the guest.
    let first = bench.start("web", &[&wanted]).await.unwrap().service.published_ports;
    for (name, ports) in [("second", wanted.clone()), ("third", format!("{taken}:90"))] {
        let error = bench.start(name, &["82", &ports]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let text = error.chain();
        assert!(text.contains("for service web, to TCP port 80"), "{text}");
    }
    let error = bench.ask::<PortPublish>(json!({ "ports": [wanted] })).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(bench.published().await, first);
    // Without a port of the host named, both are told where they are.
    let second = bench.start("second", &["80"]).await.unwrap().service.published_ports;
    assert!(second.len() == 1 && second[0].host_port != taken, "{second:?}");

    // What was stopped comes back where it was, or not at all.
    bench.stop("web").await;
    let mine = bench.ask::<PortPublish>(json!({ "ports": [wanted] })).await.unwrap();
    let error = bench.restart("web").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let status = json!({ "service_name": "web" });
    let status = bench.ask::<ServiceStatus>(status).await.unwrap();
    assert_eq!(status.state, ServiceReportState::Stopped);
    assert_eq!(mine.published_ports[0].service_name, None);
    bench.ask::<PortUnpublish>(json!({ "ports": [wanted] })).await.unwrap();
    assert_eq!(bench.restart("web").await.unwrap().service.published_ports, first);
    bench.end().await;
}

#[tokio::test]
async fn a_start_that_fails_leaves_nothing_published() {
    let bench = Bench::new().await;
    let absent = json!({ "service_name": "web", "command": ["/pyro/absent"], "publish": ["80"] });
    let error = bench.ask::<ServiceStart>(absent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ProgramNotFound);
    assert_eq!(bench.published().await, []);

    let picky = json!({
        "service_name": "web", "command": "[ -e fine ] && exec sleep 1000; exit 7",
        "ready_command": "[ -e fine ]", "publish": ["80"],
    });
    let failed = bench.ask::<ServiceStart>(picky).await.unwrap();
    assert_eq!(failed.service.stop_reason, Some(StopReason::ProcessExitedBeforeReady));
    assert_eq!(failed.service.published_ports, []);
    assert_eq!(bench.published().await, []);
    let failed = bench.restart("web").await.unwrap();
    assert_eq!(failed.service.published_ports, []);
    assert_eq!(bench.published().await, []);
    // It is as it was started, ports and all.
    fs::write(bench.file("fine"), "").unwrap();
    let ready = bench.restart("web").await.unwrap();
    assert_eq!((Answer::exit_code(&ready), ready.service.published_ports.len()), (0, 1));

    let late = json!({
        "service_name": "late", "command": SLEEPS, "ready_command": "false",
        "ready_timeout_seconds": 1, "ready_interval_ms": 10, "publish": ["81"],
    });
    assert_eq!(Answer::exit_code(&bench.ask::<ServiceStart>(late).await.unwrap()), 124);
    assert_eq!(bench.published().await, ready.service.published_ports);
    bench.end().await;
}

#[tokio::test]
async fn r19_a_starter_that_leaves_leaves_nothing_published() {
    let bench = Bench::new().await;
    let cancels = async |cancel: CancellationToken| {
        assert_eq!(bench.published().await.len(), 1);
        cancel.cancel();
        std::future::pending().await
    };
    bench.give_up(&["80"], cancels).await;
    assert_eq!(bench.published().await, []);

    // As when it is killed.
    bench.give_up(&["80"], async |_| assert_eq!(bench.published().await.len(), 1)).await;
    while !bench.published().await.is_empty() {
        tokio::task::yield_now().await;
    }
    let restarting = async {
        let error = bench.restart("web").await.unwrap();
        assert_eq!(error.service.stop_reason, Some(StopReason::Sigterm));
    };
    let runs = bench.file("runs");
    let stopping = async {
        while !runs.exists() {
            tokio::task::yield_now().await;
        }
        assert_eq!(bench.published().await.len(), 1, "as it was started");
        bench.stop("web").await;
    };
    tokio::join!(restarting, stopping);
    assert_eq!(bench.published().await, []);
    bench.end().await;
}

#[tokio::test]
async fn a_start_that_is_refused_takes_nothing_from_the_service_that_runs() {
    let bench = Bench::new().await;
    let ports = bench.start("web", &["80"]).await.unwrap().service.published_ports;
    let error = bench.start("web", &["80", "81"]).await.unwrap_err();
    assert!(error.next_step().unwrap().contains("service restart"), "{error:?}");
    assert_eq!(bench.published().await, ports);
    bench.start("web", &[]).await.unwrap_err();
    assert_eq!(bench.published().await, ports);
    let error = bench.restart("nobody").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let nobody = json!({ "service_name": "nobody" });
    bench.ask::<ServiceStop>(nobody).await.unwrap_err();
    assert_eq!(bench.published().await, ports);
    assert_eq!(bench.restart("web").await.unwrap().service.published_ports, ports);
    let many: Vec<_> = (1..=257).map(|port: u16| port.to_string()).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let error = bench.start("many", &many).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    bench.end().await;
}

#[tokio::test]
async fn one_that_ends_by_itself_has_its_ports_until_it_is_stopped_or_replaced() {
    let bench = Bench::new().await;
    let crashes = json!({
        "service_name": "web", "command": "echo $$ >>starts; [ -e over ] || exec sleep 1000",
        "restart": "always", "publish": ["80"], "ready_command": "[ -e starts ]",
    });
    let started = bench.ask::<ServiceStart>(crashes).await.unwrap().service;
    fs::write(bench.file("over"), "").unwrap();
    let pid = rustix::process::Pid::from_raw(started.pid.unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let starts = bench.file("starts");
    while fs::read_to_string(&starts).unwrap().lines().count() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.published().await, started.published_ports);
    bench.stop("web").await;
    assert_eq!(bench.published().await, []);

    let ends = json!({ "service_name": "web", "command": "true", "publish": ["80"] });
    let first = bench.ask::<ServiceStart>(ends).await.unwrap().service.published_ports;
    // Its log ends with it.
    bench.written("web").await;
    assert_eq!(bench.published().await, first);
    let second = bench.start("web", &["81"]).await.unwrap().service.published_ports;
    assert_eq!(second[0].guest_port, 81);
    assert_eq!(bench.published().await, second);
    bench.end().await;
}

#[tokio::test]
async fn r8_r11_they_end_with_their_workspace() {
    let bench = Bench::new().await;
    let start = async || {
        let started = bench.start("web", &["80"]).await.unwrap().service;
        started.published_ports[0].host_port
    };
    let port = start().await;
    bench.ask::<WorkspaceStop>(json!({})).await.unwrap();
    assert_refused(port).await;
    bench.ask::<WorkspaceStart>(json!({})).await.unwrap();
    assert_eq!(bench.published().await, []);

    let port = start().await;
    bench.expire().await;
    assert_refused(port).await;
    bench.ask::<WorkspaceStart>(json!({})).await.unwrap();

    let port = start().await;
    bench.end().await;
    assert_refused(port).await;
}

#[tokio::test]
async fn ports_are_asked_for_as_elsewhere() {
    for bad in ["0", "80:", "x", "80:80:80", "65536"] {
        let start: Value = json!({
            "workspace_id": "w", "service_name": "web", "command": "true", "publish": [bad],
        });
        assert!(serde_json::from_value::<ServiceStart>(start).is_err(), "{bad}");
    }
}
