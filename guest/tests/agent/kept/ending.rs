//! How kept processes end.

use super::{LONG, outcome, text};
use crate::host::{Bystander, Host, sh, soon};
use pyro_protocol::kept::{
    ForgetProcess, KeepProcess, PollProcess, PollUntil, ProcessState, SignalProcess, WriteProcess,
};
use pyro_protocol::power::{Ping, PowerOff};
use pyro_protocol::process::Outcome;
use pyro_protocol::{AgentErrorKind, ByteString, Call, FrameKind};
use std::sync::Arc;

const SIGTERM: u8 = 15;

#[tokio::test]
async fn r4_a_timeout_keeps_output_and_agent_and_ends_the_children() {
    let host = Host::new();
    let mut call = sh("echo so far; sleep 1000 & echo $!; wait");
    call.timeout_ms = Some(300);
    let id = host.keep_program(call).await.expect("it starts");
    let mut cursor = 0;
    let seen = loop {
        let polled = host.poll(id, (cursor, 0), PollUntil::Output).await;
        cursor = polled.stdout.end;
        let all = host.poll(id, (0, 0), PollUntil::Output).await;
        if text(&all.stdout).lines().count() == 2 && text(&all.stdout).ends_with('\n') {
            break all;
        }
    };
    let child = Bystander::hold(text(&seen.stdout).lines().last().expect("its id"));
    let ended = host.wait(id).await;
    assert_eq!(outcome(ended.state), Outcome::TimedOut);
    assert!(text(&ended.stdout).starts_with("so far\n"));
    child.dies().await;
    host.call(Ping).await.expect("the agent answers");
}

#[tokio::test]
async fn r10_an_end_is_seen_at_once_by_all_who_wait() {
    let host = Host::new();
    let id = host.keep("kill -9 $$").await;
    let (one, other) = tokio::join!(host.wait(id), host.wait(id));
    assert_eq!(outcome(one.state), Outcome::Signaled { signal: 9 });
    assert_eq!(one, other);
}

#[tokio::test]
async fn a_signal_reaches_the_whole_group() {
    let host = Host::new();
    let id = host.keep("sleep 1000 & echo $!; wait").await;
    let polled = host.poll(id, (0, 0), PollUntil::Output).await;
    let sleeper = Bystander::hold(text(&polled.stdout));
    host.call(SignalProcess { id, number: SIGTERM }).await.expect("it runs");
    sleeper.dies().await;
    assert_eq!(outcome(host.wait(id).await.state), Outcome::Signaled { signal: SIGTERM });
    let again = host.refused(SignalProcess { id, number: SIGTERM }).await;
    assert_eq!(again, AgentErrorKind::Conflict);
}

#[tokio::test]
async fn signals_that_do_not_exist_are_refused() {
    let host = Host::new();
    let id = host.keep("exec sleep 1000").await;
    for number in [0, 65, 255] {
        let kind = host.refused(SignalProcess { id, number }).await;
        assert_eq!(kind, AgentErrorKind::InvalidArgument);
    }
    assert!(matches!(host.forget(id).await, ProcessState::Running { .. }));
}

#[tokio::test]
async fn what_is_forgotten_is_killed_with_all_it_started() {
    let host = Host::new();
    let id = host.keep("trap '' TERM INT HUP; sleep 1000 & echo $!; wait").await;
    let polled = host.poll(id, (0, 0), PollUntil::Output).await;
    let child = Bystander::hold(text(&polled.stdout));
    host.forget(id).await;
    child.dies().await;
    assert_eq!(host.list().await, []);
    assert_eq!(host.refused(ForgetProcess { id }).await, AgentErrorKind::NotFound);
}

#[tokio::test]
async fn what_is_left_in_the_background_lives_on_and_does_not_hold_the_end() {
    let host = Host::new();
    let id = host.keep("sleep 1000 & echo $!").await;
    let ended = host.wait(id).await;
    assert_eq!(outcome(ended.state), Outcome::Exited { code: 0 });
    Bystander::hold(text(&ended.stdout)).was_spared();
}

#[tokio::test]
async fn one_whose_id_nobody_gets_to_know_is_gone() {
    let host = Host::new();
    let mut connection = host.connect().await;
    let call = Call::from(KeepProcess { program: sh("exec sleep 1000") });
    connection.send(FrameKind::Call, &call).await;
    drop(connection);
    // Its connection and its life hold the guest; nothing else does.
    soon("the end of both", async {
        while Arc::strong_count(&host.guest) > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(host.list().await, []);
}

#[tokio::test]
async fn power_off_ends_them_and_tells_how_after_the_next_start() {
    let host = Host::new();
    let obedient = host.keep("echo served; exec sleep 1000").await;
    host.poll(obedient, (0, 0), PollUntil::Output).await;
    let before = host.keep("echo early; exit 3").await;
    let ended = host.wait(before).await;
    host.call(PowerOff { grace_ms: 10_000 }).await.expect("it goes off");
    let guest = host.guest.restarted().expect("it is in process");
    let host = Host { guest, workspace: host.workspace };
    assert_eq!(host.wait(before).await, ended);
    let served = host.wait(obedient).await;
    assert_eq!(outcome(served.state), Outcome::Signaled { signal: SIGTERM });
    assert_eq!(text(&served.stdout), "served\n");
    // It takes nothing any more, and can be forgotten.
    let write =
        WriteProcess { id: before, data: ByteString(b"x".to_vec()), end: false, wait_ms: LONG };
    assert_eq!(host.refused(write).await, AgentErrorKind::Conflict);
    host.forget(before).await;
    host.forget(obedient).await;
    assert_eq!(host.list().await, []);
}

#[tokio::test]
async fn after_a_crash_what_ran_is_lost_and_its_output_is_not() {
    let host = Host::new();
    let id = host.keep("echo first; exec sleep 1000").await;
    let first = host.poll(id, (0, 0), PollUntil::Output).await;
    // Another agent on the same disk knows nothing of its life.
    let guest = host.guest.restarted().expect("it is in process");
    let after = Host { guest, workspace: tempfile::tempdir().expect("a directory") };
    let lost = after.wait(id).await;
    assert_eq!(lost.state, ProcessState::Lost);
    assert_eq!(lost.stdout, first.stdout);
    assert_eq!(after.refused(SignalProcess { id, number: 9 }).await, AgentErrorKind::Conflict);
    let poll = PollProcess {
        id,
        stdout_cursor: 6,
        stderr_cursor: 0,
        max_bytes: 10,
        wait_ms: LONG,
        until: PollUntil::Output,
    };
    let polled = after.call(poll).await.expect("nobody waits for one that is gone");
    assert_eq!(polled.stdout.end, 6);
    host.forget(id).await;
}
