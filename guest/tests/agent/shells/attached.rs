//! Connections joined to a terminal.

use super::{SIZE, program, script};
use crate::host::{Connection, Host};
use pyro_protocol::process::{Exit, Outcome, STDIN_WINDOW, Signal, StdinTaken};
use pyro_protocol::shell::{AttachShell, ListShells, ShellId, TerminalSize};
use pyro_protocol::{AgentErrorKind, FrameKind};

/// One who sits at a shell.
struct Seat {
    connection: Connection,
    seen: Vec<u8>,
    taken: usize,
}

impl Host {
    async fn attach(&self, id: ShellId, size: Option<TerminalSize>) -> Seat {
        let mut connection = self.connect().await;
        let call = AttachShell { id, cursor: 0, size };
        connection.call(call).await.expect("it is there");
        Seat { connection, seen: Vec::new(), taken: 0 }
    }
}

impl Seat {
    async fn types(&mut self, text: &str) {
        let sent = self.connection.writer.send_raw(FrameKind::Stdin, text.as_bytes());
        crate::host::soon("typing", sent).await.expect("the agent listens");
    }

    /// One frame; the exit if it is the last.
    async fn step(&mut self) -> Option<Exit> {
        let frame = self.connection.next().await;
        if frame.kind == FrameKind::Exit {
            return Some(frame.decode(FrameKind::Exit).expect("an exit"));
        }
        if frame.kind == FrameKind::StdinTaken {
            let taken: StdinTaken = frame.decode(frame.kind).expect("an acknowledgement");
            self.taken += taken.bytes as usize;
        } else {
            assert_eq!(frame.kind, FrameKind::Stdout);
            self.seen.extend(frame.payload);
        }
        None
    }

    async fn sees(&mut self, words: &str) {
        while !String::from_utf8_lossy(&self.seen).contains(words) {
            let exit = self.step().await;
            assert!(exit.is_none(), "it ended after {:?}", String::from_utf8_lossy(&self.seen));
        }
    }

    async fn ends(mut self) -> Outcome {
        loop {
            if let Some(exit) = self.step().await {
                self.connection.closed().await;
                return exit.outcome;
            }
        }
    }
}

#[tokio::test]
async fn all_who_are_attached_see_the_same_and_may_leave() {
    let host = Host::new();
    let shell = host.open(program(&[])).await;
    let mut first = host.attach(shell.id, None).await;
    let mut second = host.attach(shell.id, Some(TerminalSize { cols: 100, rows: 40 })).await;
    first.sees("pyro$ ").await;
    first.types("echo $(stty size) x\n").await;
    first.sees("40 100 x").await;
    second.sees("40 100 x").await;
    while first.taken < "echo $(stty size) x\n".len() {
        assert!(first.step().await.is_none());
    }
    drop(first);
    second.connection.send(FrameKind::Resize, &SIZE).await;
    second.types("echo $(stty size) y; exit 5\n").await;
    second.sees("24 80 y").await;
    assert_eq!(second.ends().await, Outcome::Exited { code: 5 });
    // Whoever comes later sees it all, and that it is over.
    let mut third = host.attach(shell.id, Some(SIZE)).await;
    third.sees("24 80 y").await;
    assert_eq!(third.ends().await, Outcome::Exited { code: 5 });
    host.close_shell(shell.id).await.expect("it closes");
}

#[tokio::test]
async fn r17_signals_and_leaving_wait_for_no_input() {
    let host = Host::new();
    let shell = host
        .open(script(
            "stty raw -echo; trap 'echo caught' USR1; echo up; while :; do sleep 0.1; done",
        ))
        .await;
    let mut seat = host.attach(shell.id, None).await;
    seat.sees("up").await;
    let input = "x".repeat(FrameKind::Stdin.limit());
    for _ in 0..STDIN_WINDOW / input.len() {
        seat.types(&input).await;
    }
    seat.connection.send(FrameKind::Signal, &Signal { number: 10 }).await;
    seat.sees("caught").await;
    drop(seat);
    let mut seat = host.attach(shell.id, None).await;
    seat.sees("caught").await;
    drop(seat);
    host.close_shell(shell.id).await.expect("it closes");
}

#[tokio::test]
async fn what_has_no_place_ends_the_connection_and_nothing_else() {
    let host = Host::new();
    let shell = host.open(program(&["cat"])).await;
    let bad = TerminalSize { cols: 0, rows: 1 };
    for (kind, payload) in [
        (FrameKind::Resize, pyro_protocol::codec::encode(&bad).expect("it encodes")),
        (FrameKind::Signal, vec![65]),
        (FrameKind::StdinEnd, Vec::new()),
    ] {
        let mut seat = host.attach(shell.id, None).await;
        seat.connection.writer.send_raw(kind, &payload).await.expect("it is sent");
        let frame = seat.connection.next().await;
        assert_eq!(frame.kind, FrameKind::Error, "{kind:?}");
    }
    assert!(host.call(ListShells).await.expect("a list").shells[0].state.is_running());
    host.close_shell(shell.id).await.expect("it closes");
    let gone = AttachShell { id: shell.id, cursor: 0, size: None };
    assert_eq!(host.call(gone).await.expect_err("it is gone").kind, AgentErrorKind::NotFound);
}
