//! How programs end, and what the host is told of it.

use crate::host::{Bystander, Host, argv, sh};
use pyro_protocol::power::Ping;
use pyro_protocol::process::Outcome;
use std::path::Path;

const SIGTERM: u8 = 15;
const SIGKILL: u8 = 9;

#[tokio::test]
async fn exit_codes_are_the_programs_own() {
    let host = Host::new();
    for code in [0, 1, 2, 77, 124, 125, 126, 127, 128, 255] {
        assert_eq!(host.script(&format!("exit {code}")).await.code(), code);
    }
}

#[tokio::test]
async fn a_death_by_signal_is_no_exit_code() {
    let host = Host::new();
    for signal in [1, SIGKILL, SIGTERM, 13] {
        let ended = host.script(&format!("kill -{signal} $$")).await;
        assert_eq!(ended.exit.outcome, Outcome::Signaled { signal });
    }
}

#[tokio::test]
async fn a_signal_reaches_the_whole_group() {
    let host = Host::new();
    let mut running = host.start(sh("sleep 1000 & echo $!; wait")).await.expect("it starts");
    let sleeper = Bystander::hold(&running.line().await);
    running.signal(SIGTERM).await;
    sleeper.dies().await;
    assert_eq!(running.finish().await.exit.outcome, Outcome::Signaled { signal: SIGTERM });
}

#[tokio::test]
async fn a_signal_that_is_handled_ends_nothing() {
    let host = Host::new();
    let script = "trap 'kill -9 $!; echo caught; exit 5' TERM; sleep 1000 & echo ready; wait";
    let mut running = host.start(sh(script)).await.expect("it starts");
    running.until(|seen| seen.stdout == b"ready\n").await;
    running.signal(SIGTERM).await;
    let ended = running.finish().await;
    assert_eq!((ended.code(), ended.text()), (5, "ready\ncaught\n"));
}

#[tokio::test]
async fn r4_timeout_keeps_agent_and_output() {
    let host = Host::new();
    let mut call = sh("echo so far; echo and this >&2; sleep 1000 & echo $!; wait");
    call.timeout_ms = Some(500);
    let mut running = host.start(call).await.expect("it starts");
    running.until(|seen| seen.stdout.iter().filter(|byte| **byte == b'\n').count() == 2).await;
    let ended = running.finish().await;
    assert_eq!(ended.exit.outcome, Outcome::TimedOut);
    assert_eq!(ended.stderr, b"and this\n");
    let mut lines = ended.text().lines();
    assert_eq!(lines.next(), Some("so far"));
    // Descendants go with it.
    let descendant = Path::new("/proc").join(lines.next().expect("its id"));
    if descendant.exists() {
        Bystander::hold(descendant.file_name().and_then(|name| name.to_str()).expect("a number"))
            .dies()
            .await;
    }
    // The agent lives on and so does the next call.
    host.call(Ping).await.expect("the agent answers");
    assert_eq!(host.script("echo on").await.text(), "on\n");
}

#[tokio::test]
async fn a_timeout_that_is_not_reached_changes_nothing() {
    let host = Host::new();
    let mut call = sh("exit 4");
    call.timeout_ms = Some(u64::MAX);
    assert_eq!(host.run(call).await.expect("it starts").code(), 4);
}

#[tokio::test]
async fn r10_no_zombie_is_left() {
    let host = Host::new();
    for script in ["true", "kill -9 $$", "sleep 1000 & kill -9 $!; exit 3"] {
        let running = host.start(sh(script)).await.expect("it starts");
        let pid = running.pid;
        // The agent closes only after it has reaped.
        running.finish().await;
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{script}: {pid} is still there");
    }
    host.start(argv(&["/pyro/no-such-program"])).await.err().expect("it is not there");
    let children = std::fs::read_to_string("/proc/thread-self/children");
    assert_eq!(children.unwrap_or_default(), "", "a child that never ran is left");
}

#[tokio::test]
async fn what_is_left_in_the_background_lives_on_and_does_not_hold_the_call() {
    let host = Host::new();
    // It holds both pipes open.
    let ended = host.script("sleep 1000 & echo $!").await;
    assert_eq!(ended.code(), 0);
    Bystander::hold(ended.text()).was_spared();
}

#[tokio::test]
async fn output_without_end_from_the_background_does_not_hold_the_call() {
    let host = Host::new();
    let ended = host.script("echo $$ > pid; yes & echo $! > pid; exit 6").await;
    assert_eq!(ended.code(), 6);
    let pid = std::fs::read_to_string(host.workspace.path().join("pid")).expect("its id");
    // Its pipe has no reader any more, so it dies of that.
    let pid = pid.trim();
    if Path::new("/proc").join(pid).exists() {
        Bystander::hold(pid).dies().await;
    }
}
