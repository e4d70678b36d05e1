//! What tells that a service is ready, and what does not.

use super::{LONG, code, is_running, name, ready, service};
use crate::host::{Bystander, Host, guest_path, soon};
use pyro_protocol::process::Outcome;
use pyro_protocol::service::{
    Probe, Readiness, Restart, Service, ServiceFailure, ServiceState, StartService,
};
use pyro_protocol::{Call, FrameKind};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

impl Host {
    /// Starts a service, and waits for it to be ready in a task of its own.
    fn starting(self: &Arc<Self>, call: StartService) -> tokio::task::JoinHandle<Service> {
        let host = self.clone();
        tokio::spawn(async move { host.serve(call).await })
    }
}

/// A server of the test's own, and the connections that it has accepted.
async fn server() -> (String, mpsc::Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let address = listener.local_addr().expect("it has one").to_string();
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if sender.send(stream).await.is_err() {
                break;
            }
        }
    });
    (address, receiver)
}

fn waits_for(probe: Probe) -> StartService {
    let readiness = ready(probe);
    StartService { readiness, ..service("web", "exec sleep 1000") }
}

fn failure(service: &Service) -> (ServiceFailure, Option<Outcome>) {
    let ServiceState::Failed { reason, exit, .. } = service.state else { panic!("{service:?}") };
    (reason, exit.map(|exit| exit.outcome))
}

#[tokio::test]
async fn a_file_tells() {
    let host = Arc::new(Host::new());
    let starting = host.starting(waits_for(Probe::File(guest_path("up"))));
    let not_yet = host.service_soon().await;
    assert!(matches!(not_yet.state, ServiceState::Starting { .. }), "{not_yet:?}");
    host.write("up", "", 0o644);
    let started = soon("readiness", starting).await.expect("no panic");
    assert!(is_running(&started), "{started:?}");
    host.stop("web", LONG).await;
}

impl Host {
    /// Once it is there.
    async fn service_soon(&self) -> Service {
        soon("a service", async {
            loop {
                let status = pyro_protocol::service::ServiceStatus { name: name("web") };
                match self.call(status).await {
                    Ok(service) => return service,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        })
        .await
    }
}

#[tokio::test]
async fn a_port_tells_once_somebody_listens() {
    let host = Arc::new(Host::new());
    let (address, _) = {
        // An address that nobody listens on any more.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        (listener.local_addr().expect("it has one"), drop(listener))
    };
    let probe = Probe::Tcp(address.to_string().parse().expect("an address"));
    let starting = host.starting(waits_for(probe));
    assert!(!is_running(&host.service_soon().await));
    let _listener = TcpListener::bind(address).await.expect("it is free again");
    assert!(is_running(&soon("readiness", starting).await.expect("no panic")));
    host.stop("web", LONG).await;
}

/// A server that refuses, resets, is silent, sends garbage, floods: none of it is
/// an error, and none of it is readiness.
#[tokio::test]
async fn r19_hostile_servers_are_not_ready_yet() {
    let host = Arc::new(Host::new());
    let (address, mut accepted) = server().await;
    let probe = Probe::Http(format!("http://{address}/health?x=1").parse().expect("a URL"));
    let starting = host.starting(waits_for(probe));
    let answers: [&[u8]; 7] = [
        b"",
        b"\n",
        b"SSH-2.0-dropbear\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\n\r\n",
        b"HTTP/1.1 200",
        &[0xff; 100_000],
    ];
    for answer in answers {
        let mut stream = soon("a look", accepted.recv()).await.expect("one more");
        // It may be gone before all of it is out.
        drop(stream.write_all(answer).await);
    }
    // One that is never answered, while the look is over in time.
    let silent = soon("a look", accepted.recv()).await.expect("one more");
    let mut good = soon("a look after it", accepted.recv()).await.expect("one more");
    drop(silent);
    assert!(!is_running(&host.service("web").await));
    let mut request = vec![0; 1024];
    let length = good.read(&mut request).await.expect("a request");
    let request = String::from_utf8_lossy(&request[..length]).into_owned();
    assert!(request.starts_with("GET /health?x=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nHost: {address}\r\n")), "{request}");
    good.write_all(b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n").await.expect("it reads");
    assert!(is_running(&soon("readiness", starting).await.expect("no panic")));
    host.stop("web", LONG).await;
}

#[tokio::test]
async fn r19_a_command_tells_by_its_exit_status_and_leaves_nothing() {
    let host = Arc::new(Host::new());
    // Floods, fails, leaves a child behind; then succeeds. It has the service's
    // variables and directory.
    let script = "echo $GIVEN >> looks; head -c 3000000 /dev/zero; sleep 1000 & \
                  echo $! > child; [ $(wc -l < looks) -ge 3 ]";
    let words = ["/bin/sh", "-c", script].map(Into::into).to_vec();
    let mut call = waits_for(Probe::Command(words));
    call.program.env = vec![("GIVEN".into(), "given".into())];
    let started = host.serve(call).await;
    assert!(is_running(&started), "{started:?}");
    assert_eq!(host.script("cat looks").await.text(), "given\n".repeat(3));
    let child = host.script("cat child").await;
    soon("the child's end", async {
        while !is_dead(child.text()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    host.stop("web", LONG).await;
}

/// Gone, or dead and not reaped yet.
fn is_dead(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

#[tokio::test]
async fn r10_an_end_before_readiness_is_told_at_once() {
    let host = Host::new();
    for probe in [
        Probe::File(guest_path("never")),
        Probe::Tcp("127.0.0.1:1".parse().expect("an address")),
        Probe::Http("http://127.0.0.1:1/".parse().expect("a URL")),
        Probe::Command(vec!["sleep".into(), "1000".into()]),
    ] {
        // Readiness has ten minutes; nobody waits for them.
        let readiness = ready(probe);
        // The policy is for what has been ready.
        let restart = Restart::Always { limit: 10 };
        let call = StartService { readiness, restart, ..service("web", "echo why >&2; exit 3") };
        let failed = host.serve(call).await;
        let exited = Some(Outcome::Exited { code: 3 });
        assert_eq!(failure(&failed), (ServiceFailure::ExitedBeforeReady, exited));
        assert_eq!(host.written("web").await.0.stderr, b"why\n");
    }
}

#[tokio::test]
async fn one_that_is_not_ready_in_time_is_stopped_and_stays_listed() {
    let host = Host::new();
    let mut call = service("web", "echo $$; exec sleep 1000");
    let probe = Probe::Command(vec!["false".into()]);
    call.readiness = Some(Readiness { probe, interval_ms: 10, timeout_ms: 100 });
    let failed = host.serve(call).await;
    let terminated = Some(Outcome::Signaled { signal: 15 });
    assert_eq!(failure(&failed), (ServiceFailure::ReadinessTimeout, terminated));
    assert_eq!(host.service("web").await, failed);
}

#[tokio::test]
async fn r19_a_start_that_nobody_waits_for_leaves_no_service_running() {
    let host = Host::new();
    for probe in [
        Probe::File(guest_path("never")),
        Probe::Command(["/bin/sh", "-c", "sleep 1000 & wait"].map(Into::into).to_vec()),
    ] {
        let readiness = ready(probe);
        let call = StartService { readiness, ..service("web", "echo $$; exec sleep 1000") };
        let mut connection = host.connect().await;
        connection.send(FrameKind::Call, &Call::from(call)).await;
        host.service_soon().await;
        let (_, mut log) = host.log("web", None, true).await;
        let mut written = super::Written::default();
        while !written.stdout.contains(&b'\n') {
            assert!(log.log_step(&mut written).await.is_none());
        }
        let process = Bystander::hold(written.stdout());
        drop(connection);
        process.dies().await;
        let (_, ended) = log.log_to_end().await;
        assert_eq!(failure(&ended).0, ServiceFailure::StartCancelled);
        // Nothing looks any more.
        soon("the end of its life", async {
            while Arc::strong_count(&host.guest) > 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let remove = pyro_protocol::service::RemoveService { name: name("web"), grace_ms: 0 };
        host.call(remove).await.expect("it is listed");
    }
}

#[tokio::test]
async fn one_that_is_stopped_before_it_is_ready_answers_its_starter() {
    let host = Arc::new(Host::new());
    let starting = host.starting(waits_for(Probe::File(guest_path("never"))));
    host.service_soon().await;
    host.stop("web", LONG).await;
    let stopped = soon("an answer", starting).await.expect("no panic");
    let ServiceState::Stopped { exit, .. } = stopped.state else { panic!("{stopped:?}") };
    assert_eq!(exit.map(|exit| exit.outcome), Some(Outcome::Signaled { signal: 15 }));
}

#[tokio::test]
async fn nothing_looks_once_it_is_ready() {
    let host = Host::new();
    let (address, mut accepted) = server().await;
    let probe = Probe::Tcp(address.parse().expect("an address"));
    assert!(is_running(&host.serve(waits_for(probe)).await));
    soon("the look", accepted.recv()).await.expect("it was there");
    // Twenty intervals later there was no other.
    let ended = host.script("sleep 0.2; exit 6").await;
    assert_eq!(code(ended.exit), 6);
    assert!(accepted.try_recv().is_err());
    host.stop("web", LONG).await;
}
