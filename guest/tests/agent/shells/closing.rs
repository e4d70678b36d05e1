//! What is left of shells: nothing.

use super::{LONG, program, script};
use crate::host::{Bystander, Host, soon};
use pyro_protocol::shell::{ENDED_MAX, RUNNING_MAX, ReadShell, ReadUntil, ShellState};
use pyro_protocol::{AgentErrorKind, Call, FrameKind};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("a list").count()
}

#[tokio::test]
async fn r17_closing_ends_what_ignores_it() {
    let host = Host::new();
    let shell =
        host.open(script("trap '' HUP TERM INT; echo $$ up; while :; do sleep 0.1; done")).await;
    let seen = host.shows(shell.id, "up").await;
    let program = Bystander::hold(seen.split(' ').next().expect("a process id"));
    let closed = host.close_shell(shell.id).await.expect("it closes");
    assert!(matches!(closed.shell.state, ShellState::Ended { .. }));
    program.dies().await;
}

#[tokio::test]
async fn a_job_in_the_foreground_ends_with_its_shell() {
    let host = Host::new();
    let shell = host.open(program(&[])).await;
    host.shows(shell.id, "pyro$ ").await;
    host.type_in(shell.id, "sh -c 'echo p\"\"id $$.; exec sleep 1000'\n").await.expect("it types");
    let seen = host.shows(shell.id, ".\r\n").await;
    let job =
        Bystander::hold(seen.rsplit("pid ").next().expect("one").trim().trim_end_matches('.'));
    host.close_shell(shell.id).await.expect("it closes");
    job.dies().await;
}

#[tokio::test]
async fn r17_a_thousand_shells_leave_nothing_behind() {
    let host = Host::new();
    let shell = host.open(program(&["cat"])).await;
    host.close_shell(shell.id).await.expect("it closes");
    let before = descriptors();
    for round in 0..125 {
        let opened = (0..8).map(|at| {
            let host = &host;
            async move {
                let words: &[&str] = if at % 2 == 0 { &["cat"] } else { &["true"] };
                let shell = host.open(program(words)).await;
                host.close_shell(shell.id).await.expect("it closes");
            }
        });
        soon("a round", futures::future::join_all(opened)).await;
        assert_eq!(host.shells().await, [], "round {round}");
    }
    // Connections that have just ended may not be closed yet.
    let after = soon("descriptors", async {
        while descriptors() > before {
            host.script("true").await;
        }
        descriptors()
    });
    assert!(after.await <= before);
    let children = format!("/proc/self/task/{}/children", std::process::id());
    let left = std::fs::read_to_string(children).unwrap_or_default();
    assert_eq!(left.trim(), "");
}

#[tokio::test]
async fn there_are_so_many_and_no_more() {
    let host = Host::new();
    let mut ids = Vec::new();
    for _ in 0..RUNNING_MAX {
        ids.push(host.open(program(&["cat"])).await.id);
    }
    let refused = host.call(program(&["cat"])).await.expect_err("it is one too many");
    assert_eq!(refused.kind, AgentErrorKind::OutOfResources);
    // The earliest to end are forgotten first.
    for id in &ids {
        host.type_in(*id, "\u{4}").await.expect("it types");
        let mut cursor = 0;
        loop {
            let call = ReadShell {
                id: *id,
                cursor,
                max_bytes: 0,
                wait_ms: LONG,
                until: ReadUntil::Output,
            };
            match host.call(call).await {
                Ok(read) if read.shell.state.is_running() => cursor = read.output.end,
                Ok(_) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    soon("forgetting", async {
        while host.shells().await.len() > ENDED_MAX {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let left: Vec<_> = host.shells().await.into_iter().map(|shell| shell.id).collect();
    assert_eq!(left, ids[RUNNING_MAX - ENDED_MAX..]);
    for id in left {
        host.close_shell(id).await.expect("it closes");
    }
}

#[tokio::test]
async fn r17_a_caller_that_is_gone_takes_nothing_along() {
    let host = Host::new();
    let shell = host.open(program(&["cat"])).await;
    for until in [ReadUntil::Output, ReadUntil::Idle { ms: LONG }] {
        let mut connection = host.connect().await;
        let call = ReadShell { id: shell.id, cursor: 0, max_bytes: 9, wait_ms: LONG, until };
        connection.send(FrameKind::Call, &Call::from(call)).await;
        drop(connection);
    }
    host.type_in(shell.id, "still here\n").await.expect("it types");
    host.shows(shell.id, "still here\r\nstill here").await;
    host.close_shell(shell.id).await.expect("it closes");
}
