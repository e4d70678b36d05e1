//! Programs that are kept going under a name.

mod ending;
mod logs;
mod readiness;
mod restarting;

use crate::host::{Connection, Host, guest_path, sh, soon};
use pyro_protocol::kept::{OutputStream, Skipped};
use pyro_protocol::process::{Exit, Outcome};
use pyro_protocol::service::{
    CountServices, ListServices, LogChunk, PROGRAM_MAX, Probe, Readiness, RemoveService, Restart,
    RestartService, SERVICES_MAX, Service, ServiceLogging, ServiceLogs, ServiceName, ServiceState,
    ServiceStatus, StartService, StopHow, StopService,
};
use pyro_protocol::{AgentErrorKind, FrameKind, Request};

/// Nothing here takes that long.
const LONG: u32 = 10 * 60 * 1000;

/// A name that surely is one.
fn name(text: &str) -> ServiceName {
    text.parse().expect("a name")
}

/// A service that runs a script, ready as soon as it runs.
fn service(text: &str, script: &str) -> StartService {
    StartService { name: name(text), program: sh(script), readiness: None, restart: Restart::Never }
}

/// One that is ready when a probe says so.
fn ready(probe: Probe) -> Option<Readiness> {
    Some(Readiness { probe, interval_ms: 10, timeout_ms: LONG })
}

/// What it wrote.
#[derive(Debug, Default, PartialEq, Eq)]
struct Written {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    gone: u64,
}

impl Written {
    fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text")
    }
}

impl Host {
    async fn serve(&self, call: StartService) -> Service {
        self.call(call).await.expect("it starts")
    }

    async fn service(&self, of: &str) -> Service {
        self.call(ServiceStatus { name: name(of) }).await.expect("it is there")
    }

    async fn stop(&self, of: &str, grace_ms: u32) -> Service {
        self.call(StopService { name: name(of), grace_ms }).await.expect("it is there")
    }

    /// All that a service wrote, up to its end.
    async fn written(&self, of: &str) -> (Written, Service) {
        let (_, mut connection) = self.log(of, None, true).await;
        connection.log_to_end().await
    }

    async fn log(
        &self,
        of: &str,
        tail_lines: Option<u32>,
        follow: bool,
    ) -> (ServiceLogging, Connection) {
        let mut connection = self.connect().await;
        let logging = connection.call(ServiceLogs { name: name(of), tail_lines, follow }).await;
        (logging.expect("it is there"), connection)
    }

    async fn declined<R: Request>(&self, request: R) -> AgentErrorKind {
        match self.call(request).await {
            Ok(reply) => panic!("answered by {reply:?}"),
            Err(error) => error.kind,
        }
    }

    /// A FIFO of the workspace's, for a script to wait at.
    fn fifo(&self, at: &str) {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, self.at(at), FileType::Fifo, mode, 0).expect("a FIFO");
    }

    /// Asks until it is so: what is waited for is told to nobody.
    async fn until(&self, of: &str, mut is_so: impl FnMut(&Service) -> bool) -> Service {
        soon("the state", async {
            loop {
                let service = self.service(of).await;
                if is_so(&service) {
                    return service;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

impl Connection {
    async fn log_to_end(&mut self) -> (Written, Service) {
        let mut written = Written::default();
        loop {
            if let Some(service) = self.log_step(&mut written).await {
                return (written, service);
            }
        }
    }

    /// Takes one frame of a log; the service at the end.
    async fn log_step(&mut self, written: &mut Written) -> Option<Service> {
        let frame = self.next().await;
        match frame.kind {
            FrameKind::Data => {
                let LogChunk { stream, at_ns, data } = frame.decode(frame.kind).expect("a chunk");
                assert!(at_ns > 0);
                match stream {
                    OutputStream::Stdout => written.stdout.extend(data.0),
                    OutputStream::Stderr => written.stderr.extend(data.0),
                }
                None
            }
            FrameKind::Skipped => {
                let Skipped { bytes, .. } = frame.decode(frame.kind).expect("a count");
                written.gone += bytes;
                None
            }
            FrameKind::DataEnd => Some(frame.decode(frame.kind).expect("a service")),
            kind @ (FrameKind::Hello
            | FrameKind::Welcome
            | FrameKind::Call
            | FrameKind::Reply
            | FrameKind::Error
            | FrameKind::Announcement
            | FrameKind::Stdin
            | FrameKind::StdinEnd
            | FrameKind::Stdout
            | FrameKind::Stderr
            | FrameKind::Exit
            | FrameKind::Signal
            | FrameKind::StdinTaken
            | FrameKind::Resize) => panic!("{kind:?} in a log"),
        }
    }
}

fn code(exit: Exit) -> u8 {
    match exit.outcome {
        Outcome::Exited { code } => code,
        outcome @ (Outcome::Signaled { .. } | Outcome::TimedOut) => panic!("{outcome:?}"),
    }
}

fn is_running(service: &Service) -> bool {
    matches!(service.state, ServiceState::Running { .. })
}

#[tokio::test]
async fn it_runs_under_its_name_until_it_is_stopped() {
    let host = Host::new();
    let mut call = service("web", "echo up; touch up; exec sleep 1000");
    call.readiness = ready(Probe::File(guest_path("up")));
    call.program.env = vec![("SECRET".into(), "canary-1".into())];
    let started = host.serve(call).await;
    assert!(is_running(&started), "{started:?}");
    assert_eq!(host.service("web").await, started);
    let listed = host.call(ListServices).await.expect("a list").services;
    assert_eq!(listed, [started]);
    assert!(!format!("{listed:?}").contains("canary"), "variables are nobody's to see");
    let counts = host.call(CountServices).await.expect("counts");
    assert_eq!((counts.services, counts.running), (1, 1));
    let stopped = host.stop("web", LONG).await;
    let ServiceState::Stopped { how, exit, .. } = stopped.state else { panic!("{stopped:?}") };
    assert_eq!(how, StopHow::Terminated);
    assert_eq!(exit.map(|exit| exit.outcome), Some(Outcome::Signaled { signal: 15 }));
    assert_eq!(host.stop("web", LONG).await, stopped, "it is over, and stays so");
    let counts = host.call(CountServices).await.expect("counts");
    assert_eq!((counts.services, counts.running), (1, 0));
    let (written, _) = host.written("web").await;
    assert_eq!(written.stdout(), "up\n");
}

#[tokio::test]
async fn what_never_ran_is_no_service() {
    let host = Host::new();
    let mut absent = service("a", "true");
    absent.program.argv = vec!["/pyro/absent".into()];
    assert_eq!(host.declined(absent.clone()).await, AgentErrorKind::ProgramNotFound);
    let mut nowhere = service("a", "true");
    nowhere.program.cwd = crate::host::path("/pyro/absent");
    assert_eq!(host.declined(nowhere).await, AgentErrorKind::DirectoryNotFound);
    let mut with_input = service("a", "true");
    with_input.program.stdin = true;
    assert_eq!(host.declined(with_input).await, AgentErrorKind::InvalidArgument);
    let mut heavy = service("a", "true");
    heavy.program.argv.push("x".repeat(PROGRAM_MAX).as_str().into());
    assert_eq!(host.declined(heavy).await, AgentErrorKind::TooLarge);
    let mut empty = service("a", "true");
    empty.readiness = ready(Probe::Command(Vec::new()));
    assert_eq!(host.declined(empty).await, AgentErrorKind::InvalidArgument);
    assert_eq!(host.call(ListServices).await.expect("a list").services, []);
    // What was there before stays when its successor never ran.
    host.serve(service("a", "exit 3")).await;
    host.until("a", |service| service.state.is_over()).await;
    host.declined(absent).await;
    assert!(matches!(host.service("a").await.state, ServiceState::Exited { .. }));
}

#[tokio::test]
async fn a_name_that_runs_is_taken_and_one_that_is_over_is_free() {
    let host = Host::new();
    host.serve(service("web", "echo first; exec sleep 1000")).await;
    let again = host.declined(service("web", "true")).await;
    assert_eq!(again, AgentErrorKind::AlreadyExists);
    host.stop("web", LONG).await;
    host.serve(service("web", "echo second")).await;
    let (written, service) = host.written("web").await;
    assert_eq!(written.stdout(), "second\n", "the old log is gone");
    let ServiceState::Exited { exit, .. } = service.state else { panic!("{service:?}") };
    assert_eq!(code(exit), 0);
}

#[tokio::test]
async fn strangers_are_not_found_by_any_call() {
    let host = Host::new();
    let (web, grace_ms) = (name("web"), 0);
    let name = web.clone();
    assert_eq!(host.declined(ServiceStatus { name }).await, AgentErrorKind::NotFound);
    let name = web.clone();
    assert_eq!(host.declined(StopService { name, grace_ms }).await, AgentErrorKind::NotFound);
    let name = web.clone();
    assert_eq!(host.declined(RestartService { name, grace_ms }).await, AgentErrorKind::NotFound);
    let name = web.clone();
    assert_eq!(host.declined(RemoveService { name, grace_ms }).await, AgentErrorKind::NotFound);
    let logs = ServiceLogs { name: web, tail_lines: None, follow: true };
    assert_eq!(host.declined(logs).await, AgentErrorKind::NotFound);
}

#[tokio::test]
async fn there_is_a_limit_to_how_many_there_are() {
    let host = Host::new();
    for number in 0..SERVICES_MAX {
        host.serve(service(&format!("s{number}"), "exec sleep 1000")).await;
    }
    let one_more = host.declined(service("more", "true")).await;
    assert_eq!(one_more, AgentErrorKind::OutOfResources);
    let counts = host.call(CountServices).await.expect("counts");
    assert_eq!((counts.services as usize, counts.running as usize), (SERVICES_MAX, SERVICES_MAX));
    assert_eq!(host.call(ListServices).await.expect("a list").services.len(), SERVICES_MAX);
    // One that is over counts until it is removed.
    host.stop("s7", LONG).await;
    assert_eq!(host.declined(service("more", "true")).await, AgentErrorKind::OutOfResources);
    host.call(RemoveService { name: name("s7"), grace_ms: LONG }).await.expect("it was there");
    host.serve(service("more", "exec sleep 1000")).await;
    for service in host.call(ListServices).await.expect("a list").services {
        let removed = RemoveService { name: service.name, grace_ms: LONG };
        host.call(removed).await.expect("it was there");
    }
    assert_eq!(host.call(ListServices).await.expect("a list").services, []);
}

#[tokio::test]
async fn two_that_start_one_name_do_not_both_get_it() {
    let host = Host::new();
    let (one, other) = tokio::join!(
        host.call(service("web", "exec sleep 1000")),
        host.call(service("web", "exec sleep 1000")),
    );
    let refused = [one, other].into_iter().filter_map(Result::err).map(|error| error.kind);
    assert_eq!(refused.collect::<Vec<_>>(), [AgentErrorKind::AlreadyExists]);
}

#[tokio::test]
async fn a_guest_that_starts_again_knows_nothing_of_them() {
    let host = Host::new();
    host.serve(service("web", "echo up; exec sleep 1000")).await;
    host.stop("web", LONG).await;
    let guest = host.guest.restarted().expect("it is in process");
    let host = Host { guest, workspace: host.workspace };
    assert_eq!(host.call(ListServices).await.expect("a list").services, []);
    host.serve(service("web", "echo again")).await;
    assert_eq!(host.written("web").await.0.stdout(), "again\n");
}
