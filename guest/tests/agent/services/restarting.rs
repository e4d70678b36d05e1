//! What happens to services that end by themselves.

use super::{LONG, code, is_running, name, ready, service};
use crate::host::Host;
use pyro_protocol::AgentErrorKind;
use pyro_protocol::process::Outcome;
use pyro_protocol::service::{
    Probe, Restart, RestartService, Service, ServiceFailure, ServiceState, StopHow,
};

/// Restarts by order.
impl Host {
    async fn restart(&self, of: &str) -> Service {
        let call = RestartService { name: name(of), grace_ms: LONG };
        self.call(call).await.expect("it is there")
    }
}

#[tokio::test]
async fn a_crash_loop_ends_at_its_limit() {
    let host = Host::new();
    let mut call = service("web", "echo again; exit 7");
    call.restart = Restart::OnFailure { limit: 3 };
    host.serve(call).await;
    // A follower stays through all of it.
    let (written, ended) = host.written("web").await;
    assert_eq!(written.stdout(), "again\n".repeat(4));
    let ServiceState::Failed { reason, exit, .. } = ended.state else { panic!("{ended:?}") };
    assert_eq!((reason, exit.map(code)), (ServiceFailure::RestartLimit, Some(7)));
    assert_eq!(ended.restarts, 3);
}

#[tokio::test]
async fn policies_differ_in_what_they_start_again() {
    let host = Host::new();
    for (restart, script, restarts) in [
        (Restart::Never, "exit 1", 0),
        (Restart::OnFailure { limit: 2 }, "exit 0", 0),
        (Restart::OnFailure { limit: 2 }, "kill -9 $$", 2),
        (Restart::Always { limit: 2 }, "exit 0", 2),
    ] {
        let mut call = service("web", script);
        call.restart = restart;
        host.serve(call).await;
        let ended = host.until("web", |service| service.state.is_over()).await;
        assert_eq!(ended.restarts, restarts, "{restart:?}, {script}");
    }
}

#[tokio::test]
async fn one_that_comes_up_again_is_running() {
    let host = Host::new();
    let mut call = service("web", "[ -e once ] && exec sleep 1000; touch once; exit 1");
    call.restart = Restart::OnFailure { limit: 1 };
    host.serve(call).await;
    let up = host.until("web", |service| service.restarts == 1 && is_running(service)).await;
    assert_eq!(up.restarts, 1);
    host.stop("web", LONG).await;
}

#[tokio::test]
async fn one_that_waits_to_be_started_again_can_be_stopped_and_restarted() {
    let host = Host::new();
    let mut call = service("web", "[ -e go ] && exec sleep 1000; exit 1");
    // The pause is soon longer than this test.
    call.restart = Restart::Always { limit: 1000 };
    host.serve(call).await;
    let waits = |service: &Service| matches!(service.state, ServiceState::Backoff { .. });
    let waiting = host.until("web", waits).await;
    let ServiceState::Backoff { exit, next_ns } = waiting.state else { panic!("{waiting:?}") };
    assert_eq!(code(exit), 1);
    assert!(next_ns > waiting.started_at_ns);
    let stopped = host.stop("web", LONG).await;
    let ServiceState::Stopped { how, .. } = stopped.state else { panic!("{stopped:?}") };
    // It may just have been started.
    assert!(matches!(how, StopHow::Idle | StopHow::Terminated), "{how:?}");
    host.write("go", "", 0o644);
    let restarted = host.restart("web").await;
    assert!(is_running(&restarted), "{restarted:?}");
    assert_eq!(restarted.restarts, 0);
    host.stop("web", LONG).await;
}

#[tokio::test]
async fn a_restart_keeps_what_it_was_given_and_its_log() {
    let host = Host::new();
    let mut call = service("web", "echo $GIVEN; exec sleep 1000");
    call.program.env = vec![("GIVEN".into(), "once".into())];
    host.serve(call).await;
    let (_, mut log) = host.log("web", None, true).await;
    let mut written = super::Written::default();
    while written.stdout() != "once\n" {
        assert!(log.log_step(&mut written).await.is_none());
    }
    let restarted = host.restart("web").await;
    assert!(is_running(&restarted), "{restarted:?}");
    while written.stdout() != "once\nonce\n" {
        assert!(log.log_step(&mut written).await.is_none(), "the follower stays");
    }
    host.stop("web", LONG).await;
    assert!(log.log_to_end().await.1.state.is_over());
    // One that is over too.
    assert!(is_running(&host.restart("web").await));
    let (_, mut log) = host.log("web", None, true).await;
    let mut written = super::Written::default();
    while written.stdout() != "once\nonce\nonce\n" {
        assert!(log.log_step(&mut written).await.is_none());
    }
    host.stop("web", LONG).await;
}

#[tokio::test]
async fn what_is_gone_cannot_be_started_again() {
    let host = Host::new();
    host.write("program", "#!/bin/sh\nexec sleep 1000\n", 0o755);
    let mut call = service("web", "");
    call.program.argv = vec![host.at("program").to_str().expect("text").into()];
    host.serve(call).await;
    std::fs::remove_file(host.at("program")).expect("it is there");
    let refused = RestartService { name: name("web"), grace_ms: LONG };
    let refused = host.call(refused).await.expect_err("it is gone");
    assert_eq!(refused.kind, AgentErrorKind::ProgramNotFound);
    let failed = host.service("web").await;
    let ServiceState::Failed { reason, exit, .. } = failed.state else { panic!("{failed:?}") };
    assert_eq!(reason, ServiceFailure::NotStarted);
    assert_eq!(exit.map(|exit| exit.outcome), Some(Outcome::Signaled { signal: 15 }));
}

#[tokio::test]
async fn one_that_was_ready_is_restarted_although_it_then_is_not() {
    let host = Host::new();
    host.fifo("go");
    let script = "[ -e once ] && exit 5; touch once ready; read x < go; exit 4";
    let mut call = service("web", script);
    call.readiness = ready(Probe::File(crate::host::guest_path("ready")));
    call.restart = Restart::OnFailure { limit: 2 };
    host.serve(call).await;
    host.script("echo > go").await;
    let ended = host.until("web", |service| service.state.is_over()).await;
    let ServiceState::Failed { reason, exit, .. } = ended.state else { panic!("{ended:?}") };
    assert_eq!((reason, exit.map(code)), (ServiceFailure::RestartLimit, Some(5)));
}
