//! Shells: terminals in the guest that outlive the calls that opened them.
//!
//! The agent keeps the last [`RETAINED`] bytes that came out of each terminal. A
//! cursor counts those bytes from the very first, escape sequences and all: it
//! means the same byte for ever, and a reply says where its bytes begin, so a
//! reader who comes too late learns how much it missed.

use crate::kept::{ProcessId, SLICE_MAX, Slice};
use crate::process::Exit;
use crate::{ByteString, FrameKind, GuestPath};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The name of a shell: twelve hexadecimal digits, drawn by the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShellId(pub [u8; 6]);

/// A text that is no shell id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a shell id is twelve hexadecimal digits")]
pub struct BadShellId;

/// How large a terminal is, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TerminalSize {
    /// 1 to [`COLS_MAX`].
    pub cols: u16,
    /// 1 to [`ROWS_MAX`].
    pub rows: u16,
}

/// Opens a terminal with a program in it that outlives the connection, unless it
/// is to stay joined to it. If the reply cannot be sent, it is closed: nobody
/// would know its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OpenShell {
    /// The program and its arguments; none is an interactive `bash`, or `sh`
    /// where there is no bash.
    pub argv: Vec<ByteString>,
    /// Where; `None` is `/workspace`.
    pub cwd: Option<GuestPath>,
    /// Variables to add to the guest's defaults and the terminal's own, the last
    /// of a name wins.
    pub env: Vec<(ByteString, ByteString)>,
    /// A name or a number, optionally `:group`; `None` is root.
    pub user: Option<String>,
    /// How large the terminal is to be.
    pub size: TerminalSize,
    /// Whether the connection stays joined to it, as after an [`AttachShell`] from
    /// the first byte on. Then the program is this connection's: it waits until
    /// the host takes what it writes, so that nothing is skipped, and the shell is
    /// closed once the connection is. What a program left running that ended by
    /// itself goes on.
    pub joined: bool,
}

/// The terminal is open and its program runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShellOpened {
    /// The shell.
    pub shell: Shell,
}

/// A shell, as everybody who asks about it sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shell {
    /// What it is called.
    pub id: ShellId,
    /// Where it was opened.
    pub cwd: GuestPath,
    /// How large its terminal is.
    pub size: TerminalSize,
    /// When it was opened, by the guest's wall clock, in nanoseconds since the
    /// Unix epoch.
    pub started_at_ns: i64,
    /// Whether its program runs.
    pub state: ShellState,
    /// How many bytes have come out of the terminal.
    pub output_bytes: u64,
}

/// Whether a shell's program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ShellState {
    /// It does.
    Running {
        /// The process id in the guest.
        pid: u32,
    },
    /// It has ended; what came out can be read until the shell is closed.
    Ended {
        /// How.
        exit: Exit,
        /// When, as `started_at_ns`.
        ended_at_ns: i64,
    },
}

/// Asks which shells there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListShells;

/// Every shell: what has ended, the earliest end first, then what runs, in the
/// order of opening.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShellList {
    /// At most [`RUNNING_MAX`] and [`ENDED_MAX`] of them.
    pub shells: Vec<Shell>,
}

/// Asks for what came out of a shell's terminal from a cursor on, waiting a
/// while for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReadShell {
    /// Which.
    pub id: ShellId,
    /// The first byte wanted.
    pub cursor: u64,
    /// How many bytes to reply with at most; more than [`SLICE_MAX`] is taken
    /// for that.
    pub max_bytes: u32,
    /// How long to wait; more than [`WAIT_MAX_MS`](crate::kept::WAIT_MAX_MS) is
    /// taken for that.
    pub wait_ms: u32,
    /// What to wait for.
    pub until: ReadUntil,
}

/// What ends the waiting of a [`ReadShell`]; the end of the shell, and as many
/// bytes as are wanted at most, always do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ReadUntil {
    /// Bytes at or beyond the cursor.
    Output,
    /// No byte for so many milliseconds, counted from the call or the last byte
    /// after it.
    Idle {
        /// At least 1.
        ms: u32,
    },
}

/// How a shell is, and what came out of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShellRead {
    /// The shell. Once it has ended, `end` of the slice is final.
    pub shell: Shell,
    /// What came out.
    pub output: Slice,
    /// Whether it was silent for as long as was asked.
    pub idle: bool,
}

/// Types into a shell's terminal, as much as it takes within a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WriteShell {
    /// Which.
    pub id: ShellId,
    /// What to type; control characters do what they do on a keyboard.
    pub data: ByteString,
    /// How long it may take; more than
    /// [`WAIT_MAX_MS`](crate::kept::WAIT_MAX_MS) is taken for that.
    pub wait_ms: u32,
}

/// What became of the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShellWritten {
    /// The shell.
    pub shell: Shell,
    /// How many bytes the terminal took, from the first on.
    pub taken: u32,
}

/// Sends a signal to the foreground job of a shell's terminal: what Ctrl-C would
/// reach. Where no job is in the foreground, that is the shell itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SignalShell {
    /// Which.
    pub id: ShellId,
    /// 1 to 64, as Linux on x86-64 numbers them.
    pub number: u8,
}

/// It was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShellSignaled {
    /// The shell.
    pub shell: Shell,
}

/// Makes a shell's terminal larger or smaller; its foreground job hears of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ResizeShell {
    /// Which.
    pub id: ShellId,
    /// The new size.
    pub size: TerminalSize,
}

/// It has that size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShellResized {
    /// The shell.
    pub shell: Shell,
}

/// Ends a shell and all that was started in it, and forgets what came out: first
/// by hanging up, then by force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CloseShell {
    /// Which.
    pub id: ShellId,
}

/// It is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShellClosed {
    /// How it ended.
    pub shell: Shell,
}

/// Joins the connection to a shell's terminal. After the reply the agent sends
/// what comes out from the cursor on as `Stdout` and
/// [`Skipped`](crate::kept::Skipped) frames, [`StdinTaken`] for what it took,
/// and one `Exit` when the shell has ended; the host may send `Stdin`, `Signal`
/// for the foreground job, and `Resize`. Closing the connection, or only the
/// host's direction of it, leaves the shell as it is. Any number may be attached
/// at once; all see the same.
///
/// [`StdinTaken`]: crate::process::StdinTaken
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AttachShell {
    /// Which.
    pub id: ShellId,
    /// The first byte wanted.
    pub cursor: u64,
    /// The size that the terminal is to have from now on; `None` leaves it.
    pub size: Option<TerminalSize>,
}

/// The frames follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShellAttached {
    /// The shell.
    pub shell: Shell,
}

/// How many shells may run at the same time; the next is refused. Together with
/// [`ENDED_MAX`] and [`RETAINED`] they take at most 24 MiB of the agent's memory,
/// a fifth of the smallest guest's.
pub const RUNNING_MAX: usize = 32;

/// How many that have ended are kept; then the earliest to end is closed.
pub const ENDED_MAX: usize = 16;

/// How many bytes of each terminal's output are kept, the last ones.
pub const RETAINED: usize = 512 * 1024;

/// How wide a terminal may be: wider than any screen, and few enough that the
/// host can hold some screens in memory.
pub const COLS_MAX: u16 = 500;

/// How high a terminal may be.
pub const ROWS_MAX: u16 = 500;

// A slice and the longest list fit into a reply: a path, and little else that
// varies.
const _: () = assert!(SLICE_MAX as usize + 8 * 1024 <= FrameKind::Reply.limit());
const _: () = assert!(
    (RUNNING_MAX + ENDED_MAX) * (crate::guest_path::PATH_MAX + 128) <= FrameKind::Reply.limit()
);

impl TerminalSize {
    /// Whether a terminal may be so large.
    #[must_use]
    pub const fn is_possible(self) -> bool {
        1 <= self.cols && self.cols <= COLS_MAX && 1 <= self.rows && self.rows <= ROWS_MAX
    }
}

impl ShellState {
    /// Whether its program runs.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        match self {
            ShellState::Running { .. } => true,
            ShellState::Ended { .. } => false,
        }
    }
}

impl fmt::Display for ShellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ProcessId(self.0).fmt(f)
    }
}

impl FromStr for ShellId {
    type Err = BadShellId;

    fn from_str(text: &str) -> Result<Self, BadShellId> {
        let ProcessId(id) = text.parse().map_err(|_| BadShellId)?;
        Ok(Self(id))
    }
}
