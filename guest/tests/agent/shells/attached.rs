//! Connections joined to a terminal.

use super::{SIZE, program, script};
use crate::host::{Connection, Host, soon};
use pyro_protocol::process::{Exit, Outcome, STDIN_WINDOW, Signal, StdinTaken};
use pyro_protocol::shell::{
    AttachShell, ListShells, OpenShell, RETAINED, ReadUntil, ShellId, TerminalSize,
};
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
        Seat::new(connection)
    }

    /// Opens a shell that stays joined to the connection.
    async fn join(&self, call: OpenShell) -> Seat {
        let mut connection = self.connect().await;
        connection.call(OpenShell { joined: true, ..call }).await.expect("it opens");
        Seat::new(connection)
    }

    /// Returns once what comes out of a shell waits to be taken.
    async fn held_up(&self, id: ShellId) {
        soon("the flood is held up", async {
            let mut end = 0;
            loop {
                let read = self.read_shell(id, end, ReadUntil::Idle { ms: 100 }).await;
                if read.idle {
                    break;
                }
                end = read.output.end;
            }
        })
        .await;
    }

    /// Returns once there is no shell any more.
    async fn none_left(&self) {
        soon("the end", async { while !self.shells().await.is_empty() {} }).await;
    }
}

impl Seat {
    fn new(connection: Connection) -> Self {
        Self { connection, seen: Vec::new(), taken: 0 }
    }

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

/// The one who reads may be slow: nothing is skipped that is joined to it.
#[tokio::test]
async fn what_is_joined_to_a_connection_waits_for_it() {
    const LINES: usize = RETAINED / 4;
    let host = Host::new();
    let mut seat = host.join(script(&format!("stty -onlcr; seq 1 {LINES}; echo done"))).await;
    // Another who looks, and takes what is there still, does not make it go on.
    let shell = host.shells().await.remove(0);
    let mut other = host.attach(shell.id, None).await;
    let _ = other.connection.next().await;
    drop(other);
    seat.sees("done").await;
    let seen = std::mem::take(&mut seat.seen);
    assert_eq!(seat.ends().await, Outcome::Exited { code: 0 });
    let expected: String = (1..=LINES).map(|line| format!("{line}\n")).collect();
    assert!(seen == format!("{expected}done\n").into_bytes(), "something is missing");
    host.none_left().await;
}

#[tokio::test]
async fn what_is_typed_is_acknowledged_although_more_and_more_comes_out() {
    let host = Host::new();
    let mut seat = host.join(script("yes & exec cat >/dev/null")).await;
    host.held_up(host.shells().await[0].id).await;
    seat.types("keys\n").await;
    while seat.taken == 0 {
        assert!(seat.seen.len() < 16 * RETAINED, "nobody says that they were taken");
        assert!(seat.step().await.is_none());
    }
    assert_eq!(seat.taken, "keys\n".len());
    drop(seat);
    host.none_left().await;
}

/// The one whose it is takes it along, in whatever state it is; and one whose
/// connection is stuck keeps nobody from closing it.
#[tokio::test]
async fn r17_what_is_joined_to_a_connection_ends_with_it() {
    let host = Host::new();
    for asleep in ["trap '' HUP; echo up; while :; do sleep 1; done", "echo up; exec sleep 1000"] {
        let mut seat = host.join(script(asleep)).await;
        seat.sees("up").await;
        drop(seat);
        host.none_left().await;
    }
    let flooding = host.join(script("exec cat /dev/zero")).await;
    let id = host.shells().await[0].id;
    host.held_up(id).await;
    host.close_shell(id).await.expect("it closes");
    drop(flooding);
    assert_eq!(host.shells().await, []);
}
