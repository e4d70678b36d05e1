//! Running a program in the guest, on the connection that asked for it.

use crate::{ByteString, GuestPath};
use serde::{Deserialize, Serialize};

/// Starts a program. The reply is [`ProcessStarted`]; then, on the same
/// connection, the agent sends `Stdout`, `Stderr` and [`StdinTaken`] frames and
/// at last one `Exit`; the host may send `Stdin`, `StdinEnd` and `Signal`.
/// Closing the connection, or only the host's direction of it, kills everything
/// the program started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StartProcess {
    /// The program and its arguments as they are; no shell looks at them. The
    /// program is looked up in the `PATH` of its own environment unless it
    /// contains a slash.
    pub argv: Vec<ByteString>,
    /// Where to run; `None` is `/workspace`.
    pub cwd: Option<GuestPath>,
    /// Variables to add to the guest's defaults, the last of a name wins.
    pub env: Vec<(ByteString, ByteString)>,
    /// A name or a number, optionally `:group`; `None` is root.
    pub user: Option<String>,
    /// Whether `Stdin` frames will come; otherwise the program reads /dev/null.
    pub stdin: bool,
    /// Kill everything the program started after so many milliseconds.
    pub timeout_ms: Option<u64>,
}

/// The program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProcessStarted {
    /// The process id in the guest.
    pub pid: u32,
}

/// How many bytes of `Stdin` the host may have sent beyond what [`StdinTaken`]
/// frames have acknowledged. So the agent can read every frame at once, and a
/// signal or the closing never waits behind input that the program does not
/// read.
pub const STDIN_WINDOW: usize = 256 * 1024;

/// The program took so many bytes more of its input, or will never read them.
/// The agent may let several chunks add up before it says so, but never keeps
/// more than half the window back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StdinTaken {
    /// To be added to what the host may send.
    pub bytes: u32,
}

const _: () = assert!(STDIN_WINDOW >= 4 * crate::frame::STREAM_CHUNK);

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Outcome {
    /// By itself, with this status.
    Exited {
        /// 0 to 255.
        code: u8,
    },
    /// By a signal.
    Signaled {
        /// 1 to 64.
        signal: u8,
    },
    /// The time allowed was over and everything it started was killed.
    TimedOut,
}

/// The last frame of a process's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Exit {
    /// How it ended.
    pub outcome: Outcome,
    /// From spawn to exit, in microseconds, by the guest's monotonic clock.
    pub took_us: u64,
}

/// A signal for the whole process group of a running program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Signal {
    /// 1 to 64, as Linux on x86-64 numbers them.
    pub number: u8,
}
