//! What programs read.

use crate::host::{Connection, Host, argv, sh};
use pyro_protocol::process::{Outcome, STDIN_WINDOW};
use pyro_protocol::{AgentError, AgentErrorKind, FrameKind};

/// Bytes in no simple order.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn eight_mebibytes_go_there_and_back() {
    let host = Host::new();
    let bytes = noise(8 * 1024 * 1024);
    let mut call = argv(&["/bin/cat"]);
    call.stdin = true;
    let mut running = host.start(call).await.expect("it starts");
    running.write(&bytes).await.expect("it reads on");
    running.end_input().await;
    let ended = running.finish().await;
    assert_eq!(ended.code(), 0);
    assert!(ended.stdout == bytes, "{} bytes came back, or others", ended.stdout.len());
}

#[tokio::test]
async fn without_input_a_program_reads_nothing() {
    let host = Host::new();
    assert_eq!(host.script("cat; echo end").await.text(), "end\n");
}

#[tokio::test]
async fn the_end_of_input_comes_after_the_input() {
    let host = Host::new();
    let mut call = argv(&["/usr/bin/wc", "-c"]);
    call.stdin = true;
    let mut running = host.start(call).await.expect("it starts");
    running.write(&noise(STDIN_WINDOW)).await.expect("it reads");
    running.end_input().await;
    assert_eq!(running.finish().await.text().trim(), STDIN_WINDOW.to_string());
}

#[tokio::test]
async fn a_program_may_close_its_input_early() {
    let host = Host::new();
    let mut call = sh("exec <&-; echo closed; read unanswered < gate; exit 9");
    call.stdin = true;
    assert_eq!(host.script("mkfifo gate").await.code(), 0);
    let mut running = host.start(call).await.expect("it starts");
    assert_eq!(running.line().await, "closed");
    // Many windows' worth: whatever nobody reads still counts as taken.
    running.write(&noise(4 * STDIN_WINDOW)).await.expect("it is still there");
    running.end_input().await;
    assert_eq!(host.script("echo > gate").await.code(), 0);
    assert_eq!(running.finish().await.code(), 9);
}

#[tokio::test]
async fn input_for_a_program_that_has_ended_does_no_harm() {
    let host = Host::new();
    let mut call = argv(&["/bin/true"]);
    call.stdin = true;
    let mut running = host.start(call).await.expect("it starts");
    match running.write(&noise(4 * STDIN_WINDOW)).await {
        Err(exit) => assert_eq!(exit.outcome, Outcome::Exited { code: 0 }),
        Ok(()) => assert_eq!(running.finish().await.code(), 0),
    }
}

#[tokio::test]
async fn a_signal_does_not_wait_behind_input_that_nobody_reads() {
    let host = Host::new();
    let mut call = argv(&["/bin/sleep", "1000"]);
    call.stdin = true;
    let mut running = host.start(call).await.expect("it starts");
    running.write(&noise(STDIN_WINDOW)).await.expect("there is room");
    running.signal(9).await;
    assert_eq!(running.finish().await.exit.outcome, Outcome::Signaled { signal: 9 });
}

#[tokio::test]
async fn more_than_the_window_breaks_the_protocol() {
    let host = Host::new();
    let mut call = argv(&["/bin/sleep", "1000"]);
    call.stdin = true;
    let connection = host.start(call).await.expect("it starts").into_connection();
    let chunk = noise(FrameKind::Stdin.limit());
    complaint(connection, async |connection| {
        // Twice the window and what a pipe holds; the agent may stop listening.
        for _ in 0..40 {
            drop(connection.writer.send_raw(FrameKind::Stdin, &chunk).await);
        }
    })
    .await;
}

#[tokio::test]
async fn input_that_was_not_announced_breaks_the_protocol() {
    let host = Host::new();
    let running = host.start(argv(&["/bin/sleep", "1000"])).await.expect("it starts");
    complaint(running.into_connection(), async |connection| {
        drop(connection.writer.send_raw(FrameKind::Stdin, b"x").await);
    })
    .await;
}

/// The agent says that we broke the protocol, and ends the connection.
async fn complaint(mut connection: Connection, breach: impl AsyncFn(&mut Connection)) {
    breach(&mut connection).await;
    loop {
        let frame = connection.next().await;
        if frame.kind == FrameKind::StdinTaken {
            continue;
        }
        let error: AgentError = frame.decode(FrameKind::Error).expect("an error");
        assert_eq!(error.kind, AgentErrorKind::Protocol);
        return;
    }
}
