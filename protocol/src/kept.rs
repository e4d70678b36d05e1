//! Processes that outlive the call that started them.
//!
//! The agent keeps such a process under an id, and what it writes in files of a
//! bounded size. A cursor counts the bytes of one stream from its very first:
//! it means the same byte for ever, and a reply says where its bytes begin, so
//! a reader who comes too late learns how much it missed.

use crate::process::{Exit, StartProcess};
use crate::{ByteString, FrameKind};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The name of a kept process: twelve hexadecimal digits, drawn by the agent.
/// It never comes to mean another process, not even after a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProcessId(pub [u8; 6]);

/// A text that is no process id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a process id is twelve hexadecimal digits")]
pub struct BadProcessId;

/// Starts a program that outlives the connection. Its output is kept; with
/// `stdin` its input stays open for [`WriteProcess`]. If the reply cannot be
/// sent, the program is killed and forgotten: nobody would know its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeepProcess {
    /// What to run, as for a process on a connection.
    pub program: StartProcess,
}

/// The program runs, and is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProcessKept {
    /// What to call it from now on.
    pub id: ProcessId,
    /// The process id in the guest.
    pub pid: u32,
}

/// Asks what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListProcesses;

/// Everything that is kept: what has ended, the earliest end first, then what
/// runs, in the order of starting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProcessList {
    /// At most [`RUNNING_MAX`] and [`ENDED_MAX`] of them.
    pub processes: Vec<KeptProcess>,
}

/// One kept process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeptProcess {
    /// What it is called.
    pub id: ProcessId,
    /// The program and its first arguments, cut to [`ARGV_SHOWN_MAX`].
    pub argv: Vec<ByteString>,
    /// When it was started, by the guest's wall clock, in nanoseconds since the
    /// Unix epoch.
    pub started_at_ns: i64,
    /// Whether it runs.
    pub state: ProcessState,
    /// How much it has written to its standard output.
    pub stdout_bytes: u64,
    /// How much it has written to its standard error.
    pub stderr_bytes: u64,
}

/// Whether a kept process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ProcessState {
    /// It does.
    Running {
        /// The process id in the guest.
        pid: u32,
    },
    /// It does not any more.
    Ended {
        /// How it ended.
        exit: Exit,
    },
    /// The guest or its agent went away while it ran. It runs no more, and how
    /// it ended nobody knows.
    Lost,
}

/// Asks for a kept process's state and for what it has written from these
/// cursors on, waiting a while for either to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PollProcess {
    /// Which.
    pub id: ProcessId,
    /// The first byte wanted of its standard output.
    pub stdout_cursor: u64,
    /// The first byte wanted of its standard error.
    pub stderr_cursor: u64,
    /// How many bytes of each stream to reply with at most; more than
    /// [`SLICE_MAX`] is taken for that.
    pub max_bytes: u32,
    /// How long to wait; more than [`WAIT_MAX_MS`] is taken for that.
    pub wait_ms: u32,
    /// What to wait for.
    pub until: PollUntil,
}

/// What ends the waiting of a [`PollProcess`]; the end of the process always
/// does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum PollUntil {
    /// Bytes at or beyond one of the cursors.
    Output,
    /// Nothing else.
    End,
}

/// How a kept process is, and what it has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProcessPolled {
    /// Whether it runs. Once it has ended, `end` of both slices is final.
    pub state: ProcessState,
    /// Of its standard output.
    pub stdout: Slice,
    /// Of its standard error.
    pub stderr: Slice,
}

/// Consecutive bytes of a stream. The next cursor is `start` and the length of
/// `data`; there is more when that is less than `end`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Slice {
    /// The oldest byte that is still kept.
    pub oldest: u64,
    /// The cursor of the first byte here: the one asked for, or `oldest` when
    /// that is later, and the bytes between are gone.
    pub start: u64,
    /// The bytes.
    pub data: ByteString,
    /// How many bytes the stream has had so far.
    pub end: u64,
}

/// Asks for all that a kept process writes from these cursors on, until it
/// ends. After the reply the agent sends `Stdout`, `Stderr` and [`Skipped`]
/// frames, and a `DataEnd` with [`FollowEnd`] last. Closing the connection ends
/// the following and nothing else; a reader who is too slow misses bytes and is
/// told so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FollowProcess {
    /// Which.
    pub id: ProcessId,
    /// The first byte wanted of its standard output.
    pub stdout_cursor: u64,
    /// The first byte wanted of its standard error.
    pub stderr_cursor: u64,
}

/// The frames follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FollowingProcess;

/// So many bytes of a stream would come now and are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Skipped {
    /// Which stream.
    pub stream: OutputStream,
    /// How many.
    pub bytes: u64,
}

/// One of a program's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum OutputStream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

impl OutputStream {
    /// The kind of frame that carries it.
    #[must_use]
    pub const fn frame_kind(self) -> FrameKind {
        match self {
            OutputStream::Stdout => FrameKind::Stdout,
            OutputStream::Stderr => FrameKind::Stderr,
        }
    }
}

/// All that a kept process wrote has been sent, and it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FollowEnd {
    /// How; never `Running`.
    pub state: ProcessState,
}

/// Hands a kept process input, as much as it takes within a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WriteProcess {
    /// Which; it was started with `stdin`.
    pub id: ProcessId,
    /// The input; may be empty.
    pub data: ByteString,
    /// Whether this is the last of it. The input is closed only if all was
    /// taken.
    pub end: bool,
    /// How long it may take; more than [`WAIT_MAX_MS`] is taken for that.
    pub wait_ms: u32,
}

/// What became of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProcessWritten {
    /// How many bytes were taken, from the first on.
    pub taken: u32,
    /// Whether the input is closed.
    pub ended: bool,
}

/// Sends a signal to a kept process's group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SignalProcess {
    /// Which.
    pub id: ProcessId,
    /// 1 to 64, as Linux on x86-64 numbers them.
    pub number: u8,
}

/// It was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProcessSignaled;

/// Removes a kept process and its output. One that runs is killed first, with
/// everything it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ForgetProcess {
    /// Which.
    pub id: ProcessId,
}

/// It is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProcessForgotten {
    /// How it was when the call came.
    pub state: ProcessState,
}

/// How many kept processes may run at the same time; the next is refused. Each
/// costs the agent a few kilobytes and five descriptors.
pub const RUNNING_MAX: usize = 256;

/// How many that have ended are kept; then the earliest to end is forgotten.
pub const ENDED_MAX: usize = 256;

/// How many bytes of each stream are kept at least, the last ones.
pub const RETAINED: u64 = 8 * 1024 * 1024;

/// How many bytes of arguments, and how many arguments, a list shows.
pub const ARGV_SHOWN_MAX: (usize, usize) = (1024, 64);

/// How many bytes of each stream a poll replies with at most.
pub const SLICE_MAX: u32 = 256 * 1024;

/// How long a call waits at most, in milliseconds: whoever wants to wait longer
/// asks again, so that nothing waits for a host that was forgotten.
pub const WAIT_MAX_MS: u32 = 10 * 60 * 1000;

// Both slices, and the longest list, fit into a reply.
const _: () = assert!(2 * SLICE_MAX as usize + 256 <= FrameKind::Reply.limit());
const _: () = assert!(
    (RUNNING_MAX + ENDED_MAX) * (ARGV_SHOWN_MAX.0 + 3 * ARGV_SHOWN_MAX.1 + 64)
        <= FrameKind::Reply.limit()
);

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for ProcessId {
    type Err = BadProcessId;

    fn from_str(text: &str) -> Result<Self, BadProcessId> {
        let digit = |byte: &u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(BadProcessId),
        };
        let digits: [u8; 12] = text.as_bytes().try_into().map_err(|_| BadProcessId)?;
        let mut id = [0; 6];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            for half in pair {
                *byte = (*byte << 4) | digit(half)?;
            }
        }
        Ok(Self(id))
    }
}

impl Slice {
    /// Where to read on.
    #[must_use]
    pub fn next_cursor(&self) -> u64 {
        self.start.saturating_add(self.data.0.len() as u64)
    }
}
