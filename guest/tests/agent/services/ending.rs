//! How services end, and what is left of them: nothing.

use super::{LONG, code, is_running, name, service};
use crate::host::{Bystander, Host, soon};
use pyro_protocol::power::PowerOff;
use pyro_protocol::process::Outcome;
use pyro_protocol::service::{
    ListServices, RemoveService, Restart, RestartService, ServiceState, StartService, StopHow,
    StopService,
};
use pyro_protocol::{Call, FrameKind};
use std::sync::Arc;

impl Host {
    /// Starts a service that writes a line, and gives that.
    async fn serve_and_hear(&self, call: StartService) -> String {
        let of = call.name.to_string();
        self.serve(call).await;
        let (_, mut log) = self.log(&of, None, true).await;
        let mut written = super::Written::default();
        while !written.stdout.contains(&b'\n') {
            assert!(log.log_step(&mut written).await.is_none(), "it ended: {written:?}");
        }
        written.stdout().trim().to_owned()
    }
}

#[tokio::test]
async fn r10_a_crash_is_seen_at_once_with_its_exit_status() {
    let host = Host::new();
    let pid = host.serve_and_hear(service("web", "echo $$; exec sleep 1000")).await;
    let (_, mut log) = host.log("web", None, true).await;
    let killed = rustix::process::Pid::from_raw(pid.parse().expect("a number")).expect("a process");
    rustix::process::kill_process(killed, rustix::process::Signal::KILL).expect("it runs");
    // The follower hears of it without asking.
    let (_, ended) = log.log_to_end().await;
    let ServiceState::Exited { exit, .. } = ended.state else { panic!("{ended:?}") };
    assert_eq!(exit.outcome, Outcome::Signaled { signal: 9 });
    assert_eq!(host.service("web").await, ended);
}

#[tokio::test]
async fn r10_one_that_obeys_is_stopped_by_term_and_one_that_does_not_by_kill() {
    let host = Host::new();
    let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 1000 & wait; done";
    host.serve_and_hear(service("obeys", script)).await;
    // With a grace without end: were it killed, this would never answer.
    let stopped = host.stop("obeys", LONG).await;
    let ServiceState::Stopped { how, exit, .. } = stopped.state else { panic!("{stopped:?}") };
    assert_eq!((how, exit.map(code)), (StopHow::Terminated, Some(3)));
    assert_eq!(host.written("obeys").await.0.stdout(), "up\nbye\n", "its last words are kept");
    let script = "trap '' TERM; echo up; while :; do sleep 1000 & wait; done";
    host.serve_and_hear(service("ignores", script)).await;
    let stopped = host.stop("ignores", 50).await;
    let ServiceState::Stopped { how, exit, .. } = stopped.state else { panic!("{stopped:?}") };
    assert_eq!(how, StopHow::Killed);
    assert_eq!(exit.map(|exit| exit.outcome), Some(Outcome::Signaled { signal: 9 }));
}

/// Whoever has lost patience need not wait for one who had more.
#[tokio::test]
async fn r10_one_that_takes_its_time_to_stop_can_be_stopped_at_once() {
    let host = Host::new();
    let script = "trap 'echo deaf' TERM; echo up; while :; do sleep 1000 & wait; done";
    host.serve_and_hear(service("web", script)).await;
    let (_, mut log) = host.log("web", None, true).await;
    let patient = host.stop("web", LONG);
    let hurried = async {
        let mut written = super::Written::default();
        while !written.stdout().contains("deaf") {
            assert!(log.log_step(&mut written).await.is_none(), "it ended: {written:?}");
        }
        host.stop("web", 0).await
    };
    let (one, other) = tokio::join!(patient, hurried);
    let ServiceState::Stopped { how, .. } = one.state else { panic!("{one:?}") };
    assert_eq!((how, one), (StopHow::Killed, other));
}

/// So it is with one that is to come up again: the last word counts.
#[tokio::test]
async fn one_that_is_to_be_restarted_can_be_stopped_instead() {
    let host = Host::new();
    let script = "trap 'echo deaf' TERM; echo up; while :; do sleep 1000 & wait; done";
    host.serve_and_hear(service("web", script)).await;
    let (_, mut log) = host.log("web", None, true).await;
    let restarting = host.call(RestartService { name: name("web"), grace_ms: LONG });
    let stopping = async {
        let mut written = super::Written::default();
        while !written.stdout().contains("deaf") {
            assert!(log.log_step(&mut written).await.is_none(), "it ended: {written:?}");
        }
        host.stop("web", 0).await
    };
    let (restarted, stopped) = tokio::join!(restarting, stopping);
    assert!(matches!(stopped.state, ServiceState::Stopped { .. }), "{stopped:?}");
    restarted.expect("it was restarted before");
    assert!(matches!(host.service("web").await.state, ServiceState::Stopped { .. }));
}

#[tokio::test]
async fn r9_no_child_outlives_a_service_however_it_ends() {
    let host = Host::new();
    let deaf = "trap '' TERM HUP INT; sleep 1000 & echo $!";
    let child = host.serve_and_hear(service("stopped", &format!("{deaf}; wait"))).await;
    let child = Bystander::hold(&child);
    host.stop("stopped", 50).await;
    child.dies().await;
    // It ends by itself, and leaves one behind that holds its pipes.
    host.fifo("fifo");
    let call = service("crashed", &format!("{deaf}; read x < fifo; exit 4"));
    let child = Bystander::hold(&host.serve_and_hear(call).await);
    host.script("echo now > fifo").await;
    child.dies().await;
    let ended = host.until("crashed", |service| service.state.is_over()).await;
    let ServiceState::Exited { exit, .. } = ended.state else { panic!("{ended:?}") };
    assert_eq!(code(exit), 4);
}

#[tokio::test]
async fn removing_stops_it_and_takes_all_away() {
    let host = Host::new();
    let pid = host.serve_and_hear(service("web", "echo $$; exec sleep 1000")).await;
    let process = Bystander::hold(&pid);
    let removed = RemoveService { name: name("web"), grace_ms: LONG };
    let removed = host.call(removed).await.expect("it was there");
    assert!(matches!(removed.state, ServiceState::Stopped { .. }), "{removed:?}");
    process.dies().await;
    assert_eq!(host.call(ListServices).await.expect("a list").services, []);
    soon("the end of its life", async {
        while Arc::strong_count(&host.guest) > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_stop_goes_on_without_the_one_who_asked() {
    let host = Host::new();
    let pid = host.serve_and_hear(service("web", "trap '' TERM; echo $$; sleep 1000")).await;
    let process = Bystander::hold(&pid);
    let mut connection = host.connect().await;
    let call = Call::from(StopService { name: name("web"), grace_ms: 50 });
    connection.send(FrameKind::Call, &call).await;
    drop(connection);
    process.dies().await;
    host.until("web", |service| service.state.is_over()).await;
}

#[tokio::test]
async fn r12_power_off_ends_them_in_order_and_starts_none_again() {
    let host = Host::new();
    let script = "trap 'exit 0' TERM; echo $$; while :; do sleep 1000 & wait; done";
    let mut call = service("web", script);
    call.restart = Restart::Always { limit: 1000 };
    let process = Bystander::hold(&host.serve_and_hear(call).await);
    assert!(is_running(&host.service("web").await));
    host.call(PowerOff { grace_ms: LONG }).await.expect("it goes off");
    process.dies().await;
    soon("the end of its life", async {
        while Arc::strong_count(&host.guest) > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
