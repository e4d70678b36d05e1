//! Terminals that outlive the calls that opened them.

mod attached;
mod closing;
mod typing;

use crate::host::{Host, soon};
use pyro_protocol::kept::WAIT_MAX_MS;
use pyro_protocol::process::Outcome;
use pyro_protocol::shell::{
    CloseShell, ListShells, OpenShell, ReadShell, ReadUntil, ResizeShell, Shell, ShellClosed,
    ShellId, ShellRead, ShellState, ShellWritten, SignalShell, TerminalSize, WriteShell,
};
use pyro_protocol::{AgentError, AgentErrorKind};

/// Nothing here takes that long.
const LONG: u32 = WAIT_MAX_MS;

const SIZE: TerminalSize = TerminalSize { cols: 80, rows: 24 };

/// A shell that surely is there, whatever bash thinks of prompts.
fn program(words: &[&str]) -> OpenShell {
    OpenShell {
        argv: words.iter().map(|word| (*word).into()).collect(),
        cwd: None,
        env: Vec::new(),
        user: None,
        size: SIZE,
        joined: false,
    }
}

fn script(script: &str) -> OpenShell {
    program(&["/bin/sh", "-c", script])
}

impl Host {
    async fn open(&self, call: OpenShell) -> Shell {
        self.call(call).await.expect("it opens").shell
    }

    async fn read_shell(&self, id: ShellId, cursor: u64, until: ReadUntil) -> ShellRead {
        let call = ReadShell { id, cursor, max_bytes: u32::MAX, wait_ms: LONG, until };
        self.call(call).await.expect("it is there")
    }

    async fn type_in(&self, id: ShellId, text: &str) -> Result<ShellWritten, AgentError> {
        self.call(WriteShell { id, data: text.into(), wait_ms: LONG }).await
    }

    /// All that came out, once these words are in it.
    async fn shows(&self, id: ShellId, words: &str) -> String {
        let (mut seen, mut cursor) = (Vec::new(), 0);
        loop {
            let read = self.read_shell(id, cursor, ReadUntil::Output).await;
            assert_eq!(read.output.start, cursor);
            cursor = read.output.next_cursor();
            seen.extend(read.output.data.0);
            let text = String::from_utf8_lossy(&seen).into_owned();
            if text.contains(words) {
                return text;
            }
            assert!(read.shell.state.is_running(), "it ended after {text:?}");
        }
    }

    /// All that came out, once it has ended, and how it did.
    async fn ended(&self, id: ShellId) -> (String, Outcome) {
        let mut cursor = 0;
        loop {
            let read = self.read_shell(id, cursor, ReadUntil::Output).await;
            cursor = read.output.end;
            if let ShellState::Ended { exit, .. } = read.shell.state {
                let all = self.read_shell(id, 0, ReadUntil::Output).await.output.data.0;
                return (String::from_utf8_lossy(&all).into_owned(), exit.outcome);
            }
        }
    }

    async fn shells(&self) -> Vec<Shell> {
        self.call(ListShells).await.expect("a list").shells
    }

    async fn close_shell(&self, id: ShellId) -> Result<ShellClosed, AgentError> {
        self.call(CloseShell { id }).await
    }
}

#[tokio::test]
async fn a_shell_is_a_terminal_with_a_prompt() {
    let host = Host::new();
    let shell = host.open(program(&[])).await;
    host.shows(shell.id, "pyro$ ").await;
    host.type_in(shell.id, "test -t 0 && echo $TERM $(stty size)\n").await.expect("it types");
    host.shows(shell.id, "xterm-256color 24 80").await;
    assert_eq!(host.shells().await.len(), 1);
    host.close_shell(shell.id).await.expect("it closes");
    assert_eq!(host.shells().await, []);
}

#[tokio::test]
async fn what_a_shell_wrote_can_be_read_after_its_end() {
    let host = Host::new();
    let shell = host.open(script("echo one; echo two >&2; exit 7")).await;
    let (seen, outcome) = host.ended(shell.id).await;
    assert_eq!((&*seen, outcome), ("one\r\ntwo\r\n", Outcome::Exited { code: 7 }));
    let part = ReadShell {
        id: shell.id,
        cursor: 5,
        max_bytes: 3,
        wait_ms: LONG,
        until: ReadUntil::Idle { ms: LONG },
    };
    let part = host.call(part).await.expect("it is there");
    assert_eq!((part.output.data.0.as_slice(), part.output.end), (b"two".as_slice(), 10));
    let refused = host.type_in(shell.id, "x").await.expect_err("it has ended");
    assert_eq!(refused.kind, AgentErrorKind::Conflict);
    let refused = host.call(SignalShell { id: shell.id, number: 2 }).await;
    assert_eq!(refused.expect_err("it has ended").kind, AgentErrorKind::Conflict);
    host.close_shell(shell.id).await.expect("it closes");
    let gone = host.close_shell(shell.id).await.expect_err("it is gone");
    assert_eq!(gone.kind, AgentErrorKind::NotFound);
}

#[tokio::test]
async fn p10_silence_is_told_when_it_comes_and_not_before() {
    let host = Host::new();
    let shell = host.open(script("echo a; sleep 0.2; echo b; sleep 0.2; echo c; sleep 1000")).await;
    let read = host.read_shell(shell.id, 0, ReadUntil::Idle { ms: 2000 }).await;
    assert!(read.idle);
    assert_eq!(read.output.data.0, b"a\r\nb\r\nc\r\n");
    // A deadline in all ends it too, and so does the limit.
    let id = shell.id;
    let until = ReadUntil::Idle { ms: LONG };
    let late = ReadShell { id, cursor: 0, max_bytes: u32::MAX, wait_ms: 10, until };
    let late = host.call(late).await.expect("it is there");
    assert!(!late.idle && late.output.data.0.len() == 9);
    let full = ReadShell { id, cursor: 0, max_bytes: 2, wait_ms: LONG, until };
    let full = soon("a full reply", host.call(full)).await.expect("it is there");
    assert_eq!(full.output.data.0, b"a\r");
    let beyond = ReadShell { id, cursor: 10, max_bytes: 2, wait_ms: LONG, until };
    let refused = host.call(beyond).await.expect_err("nobody waits for a gap");
    assert_eq!(refused.kind, AgentErrorKind::InvalidArgument);
    host.close_shell(id).await.expect("it closes");
}

#[tokio::test]
async fn a_terminal_can_be_made_larger() {
    let host = Host::new();
    let shell =
        host.open(script("trap 'stty size' WINCH; echo up; while :; do sleep 0.1; done")).await;
    host.shows(shell.id, "up").await;
    let size = TerminalSize { cols: 132, rows: 50 };
    let resized = host.call(ResizeShell { id: shell.id, size }).await.expect("it is resized");
    assert_eq!(resized.shell.size, size);
    host.shows(shell.id, "50 132").await;
    for (cols, rows) in [(0, 24), (80, 0), (501, 24), (80, 501)] {
        let call = ResizeShell { id: shell.id, size: TerminalSize { cols, rows } };
        let refused = host.call(call).await.expect_err("it is no size");
        assert_eq!(refused.kind, AgentErrorKind::InvalidArgument);
    }
    host.close_shell(shell.id).await.expect("it closes");
}

#[tokio::test]
async fn what_cannot_be_opened_leaves_nothing() {
    let host = Host::new();
    let cases = [
        (program(&["/no/such/program"]), AgentErrorKind::ProgramNotFound),
        (program(&["/dev/null"]), AgentErrorKind::ProgramNotExecutable),
        (
            OpenShell { cwd: crate::host::path("/no/such/place"), ..program(&[]) },
            AgentErrorKind::DirectoryNotFound,
        ),
        (
            OpenShell { user: Some("nobody:at:all".into()), ..program(&[]) },
            AgentErrorKind::UserNotFound,
        ),
        (
            OpenShell { size: TerminalSize { cols: 0, rows: 0 }, ..program(&[]) },
            AgentErrorKind::InvalidArgument,
        ),
    ];
    for (call, kind) in cases {
        assert_eq!(host.call(call.clone()).await.expect_err("it cannot").kind, kind, "{call:?}");
    }
    assert_eq!(host.shells().await, []);
}

#[tokio::test]
async fn old_output_is_gone_and_its_absence_told() {
    use pyro_protocol::shell::RETAINED;
    let host = Host::new();
    let shell = host.open(script("stty -opost; head -c 1000000 /dev/zero; echo end")).await;
    host.ended(shell.id).await;
    let read = host.read_shell(shell.id, 5, ReadUntil::Output).await;
    assert_eq!(read.output.end, 1_000_004);
    assert_eq!(read.output.oldest, 1_000_004 - RETAINED as u64);
    assert_eq!(read.output.start, read.output.oldest);
    let tail = host.read_shell(shell.id, 1_000_000, ReadUntil::Output).await;
    assert_eq!(tail.output.data.0, b"end\n");
    host.close_shell(shell.id).await.expect("it closes");
}
