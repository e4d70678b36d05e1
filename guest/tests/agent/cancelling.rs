//! Closing the connection is cancelling the call.

use crate::host::{Bystander, Host, Running, argv, sh};
use pyro_protocol::process::STDIN_WINDOW;

/// A program with a descendant, both held.
async fn family(host: &Host, input: bool) -> (Running, [Bystander; 2]) {
    let mut call = sh("sleep 1000 & echo $!; wait");
    call.stdin = input;
    let mut running = host.start(call).await.expect("it starts");
    let child = Bystander::hold(&running.line().await);
    let program = Bystander::hold(&running.pid.to_string());
    (running, [program, child])
}

#[tokio::test]
async fn cancelling_kills_all_that_the_program_started() {
    let host = Host::new();
    let (running, family) = family(&host, false).await;
    drop(running);
    for member in family {
        member.dies().await;
    }
}

#[tokio::test]
async fn closing_our_direction_alone_cancels_too() {
    let host = Host::new();
    let (running, family) = family(&host, false).await;
    let mut connection = running.into_connection();
    connection.writer.shutdown().await.expect("the agent is there");
    for member in family {
        member.dies().await;
    }
}

#[tokio::test]
async fn cancelling_does_not_wait_behind_input_that_nobody_reads() {
    let host = Host::new();
    let (mut running, family) = family(&host, true).await;
    running.write(&vec![0; STDIN_WINDOW]).await.expect("there is room");
    drop(running);
    for member in family {
        member.dies().await;
    }
}

#[tokio::test]
async fn cancelling_does_not_wait_behind_output_that_nobody_reads() {
    let host = Host::new();
    let mut running = host.start(argv(&["/usr/bin/yes"])).await.expect("it starts");
    running.until(|seen| seen.stdout.len() > 1024).await;
    let program = Bystander::hold(&running.pid.to_string());
    drop(running);
    program.dies().await;
}

#[tokio::test]
async fn a_timeout_does_not_wait_behind_output_that_nobody_reads() {
    let host = Host::new();
    let mut call = argv(&["/usr/bin/yes"]);
    call.timeout_ms = Some(200);
    let running = host.start(call).await.expect("it starts");
    let program = Bystander::hold(&running.pid.to_string());
    // Not a frame is read before.
    program.dies().await;
    let ended = running.finish().await;
    assert_eq!(ended.exit.outcome, pyro_protocol::process::Outcome::TimedOut);
    assert!(ended.stdout.starts_with(b"y\ny\n"));
}

#[tokio::test]
async fn closing_after_the_exit_spares_what_was_left_behind() {
    let host = Host::new();
    let ended = host.script("sleep 1000 >/dev/null 2>&1 & echo $!").await;
    // finish has seen the exit, and the connection is gone.
    Bystander::hold(ended.text()).was_spared();
}
