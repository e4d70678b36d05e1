//! A caller who changes its mind, at every stage.

use crate::fake_vmm::{FakeVmm, frames, serve_channel};
use crate::home::{Home, run_shell};
use futures::future::pending;
use pyro::{Context, ErrorKind, Event, Events};
use pyro_agent::{Guest, Phase, serve_connection};
use pyro_protocol::{FrameKind, Hello};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Cancelled, everything ends within this.
const SOON: Duration = Duration::from_secs(3);

/// How much later than its event a stage is surely reached.
const A_WHILE: Duration = Duration::from_millis(200);

/// Cancels a while after an event, and sees to it that all is gone.
async fn cancel_after(vmm: FakeVmm, line: &str, due: impl Fn(&Event) -> bool) {
    let home = Home::new();
    let pyro = home.pyro(vmm);
    let (events, mut received) = Events::channel();
    let cancel = CancellationToken::new();
    let context = Context { events, cancel: cancel.clone(), ..Context::default() };
    let line = line.to_owned();
    let running = tokio::spawn(async move { run_shell(&pyro, &line, context).await });
    loop {
        let event = received.recv().await.expect("the stage is reached");
        if due(&event) {
            break;
        }
    }
    tokio::time::sleep(A_WHILE).await;
    let cancelled = Instant::now();
    cancel.cancel();
    let error = running.await.unwrap().expect_err("it was cancelled");
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{}", error.chain());
    assert!(cancelled.elapsed() < SOON, "{:?}", cancelled.elapsed());
    home.assert_nothing_left();
}

fn booting(event: &Event) -> bool {
    matches!(event, Event::Stage { name: "booting", .. })
}

#[tokio::test]
async fn before_anything() {
    let home = Home::new();
    let vmm = FakeVmm::honest("/tmp");
    let context = Context::default();
    context.cancel.cancel();
    let error = run_shell(&home.pyro(vmm), "true", context).await.expect_err("it was cancelled");
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    home.assert_nothing_left();
}

#[tokio::test]
async fn while_the_guest_boots() {
    let silent = FakeVmm::new(|inside| async move {
        let _kept = inside;
        pending().await
    });
    cancel_after(silent, "true", booting).await;
}

#[tokio::test]
async fn while_the_guest_is_activated() {
    let silent = FakeVmm::new(|inside| async move {
        serve_channel(inside.channel, |stream, _| async move {
            let _kept = stream;
            pending().await
        })
        .await
    });
    cancel_after(silent, "true", booting).await;
}

#[tokio::test]
async fn while_the_program_starts() {
    let silent = FakeVmm::new(|inside| async move {
        let guest = Guest::in_process("/tmp", Phase::Waiting);
        serve_channel(inside.channel, move |stream, count| {
            let guest = guest.clone();
            async move {
                if count == 0 {
                    return serve_connection(stream, guest).await;
                }
                let (mut reader, _writer) = frames(stream);
                let _: Hello = reader.expect(FrameKind::Hello).await.unwrap();
                pending().await
            }
        })
        .await
    });
    let running = |event: &Event| matches!(event, Event::Stage { name: "running", .. });
    cancel_after(silent, "true", running).await;
}

#[tokio::test]
async fn while_the_program_runs() {
    let pid = tempfile::NamedTempFile::new().unwrap();
    let line = format!("echo $$ >{}; echo; sleep 1000", pid.path().display());
    let output = |event: &Event| matches!(event, Event::Output { .. });
    cancel_after(FakeVmm::honest("/tmp"), &line, output).await;
    let pid = std::fs::read_to_string(pid.path()).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()));
    // A zombie would be this test's own to bury.
    assert!(status.is_err() || status.unwrap().contains("State:\tZ"), "{pid} still runs");
}

/// The events are nobody's any more, and full.
#[tokio::test]
async fn while_nobody_listens_to_the_output() {
    let output = |event: &Event| matches!(event, Event::Output { .. });
    cancel_after(FakeVmm::honest("/tmp"), "yes", output).await;
}

/// A caller that is dropped asks for nothing any more; the lease's end cleans up.
#[tokio::test]
async fn by_dropping_the_call() {
    let home = Home::new();
    let vmm = FakeVmm::honest("/tmp");
    let pyro = home.pyro(vmm.clone());
    let (events, mut received) = Events::channel();
    let context = Context { events, ..Context::default() };
    let running = tokio::spawn(async move { run_shell(&pyro, "yes", context).await });
    while !matches!(received.recv().await, Some(Event::Output { .. })) {}
    running.abort();
    let gone = async {
        while !home.workspaces().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, gone).await.expect("the supervisor cleans up");
}
