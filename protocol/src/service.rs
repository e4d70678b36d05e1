//! Programs that the agent keeps going: with a name, a sign that they are
//! ready, a log, and a policy for the case that they end.
//!
//! A service lives as long as the agent does. What it was given, its variables
//! above all, is in the agent's memory and nowhere else.

mod address;
mod name;

pub use address::{ADDRESS_MAX, BadAddress, BadUrl, HttpUrl, TcpAddress, URL_MAX};
pub use name::{BadServiceName, NAME_MAX, ServiceName};

use crate::kept::{ARGV_SHOWN_MAX, OutputStream};
use crate::process::{Exit, StartProcess};
use crate::{ByteString, FrameKind, GuestPath};
use serde::{Deserialize, Serialize};

/// Starts a service, and answers when it is ready or has failed to become so;
/// hanging up before that stops it. An error says that it never ran. A service
/// of that name that is over makes room, one that is not is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StartService {
    /// What to call it.
    pub name: ServiceName,
    /// What to run, without input and without a time-out.
    pub program: StartProcess,
    /// What tells that it is ready; without, it is as soon as it runs.
    pub readiness: Option<Readiness>,
    /// What happens when it ends by itself.
    pub restart: Restart,
}

/// What tells that a service is ready, asked until it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Readiness {
    /// What to look at.
    pub probe: Probe,
    /// How long after one look the next begins, [`INTERVAL_MS_MIN`] at least.
    pub interval_ms: u32,
    /// How long it may take in all, [`READY_TIMEOUT_MS_MAX`] at most.
    pub timeout_ms: u32,
}

/// What a readiness probe looks at. Whatever is refused, cut off, or does not
/// come in time, is not ready yet; nothing else comes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Probe {
    /// Ready once this is there.
    File(GuestPath),
    /// Ready once this accepts a connection.
    Tcp(TcpAddress),
    /// Ready once a GET of this answers with a status of 200 to 399.
    Http(HttpUrl),
    /// Ready once this exits with 0. It runs as and where the service does.
    Command(Vec<ByteString>),
}

/// What happens when a service ends by itself after it was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Restart {
    /// Nothing.
    Never,
    /// It is started again unless it exited with 0.
    OnFailure {
        /// So often in a row at most.
        limit: u32,
    },
    /// It is started again however it ended.
    Always {
        /// So often in a row at most.
        limit: u32,
    },
}

/// Asks what services there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListServices;

/// All services, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceList {
    /// At most [`SERVICES_MAX`].
    pub services: Vec<Service>,
}

/// Asks how many services there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CountServices;

/// So many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceCounts {
    /// Of any state.
    pub services: u32,
    /// That run and are ready.
    pub running: u32,
}

/// Asks how a service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceStatus {
    /// Which.
    pub name: ServiceName,
}

/// Asks for what a service wrote. After the reply the agent sends `Data` frames,
/// a [`LogChunk`] each, and [`Skipped`](crate::kept::Skipped) where bytes are
/// gone; a `DataEnd` with the [`Service`] comes last. With `follow` that is when
/// the service is over; hanging up ends nothing but the following.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceLogs {
    /// Which.
    pub name: ServiceName,
    /// So many last lines of each stream; `None` is all that there is.
    pub tail_lines: Option<u32>,
    /// Whether to go on with what comes.
    pub follow: bool,
}

/// The chunks follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceLogging {
    /// How the service is.
    pub service: Service,
    /// Whether it wrote more before the first chunk.
    pub truncated: bool,
}

/// What a service wrote to one stream at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogChunk {
    /// Where to.
    pub stream: OutputStream,
    /// When it was read, by the guest's wall clock, in nanoseconds since the
    /// Unix epoch.
    pub at_ns: i64,
    /// The bytes; [`LOG_CHUNK_MAX`] at most.
    pub data: ByteString,
}

/// Stops a service: TERM to all that it started, KILL to what is left after a
/// while. One that is over stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StopService {
    /// Which.
    pub name: ServiceName,
    /// How long it may take to obey, [`GRACE_MS_MAX`] at most.
    pub grace_ms: u32,
}

/// Stops a service if it is not over, and starts it as it was started, also with
/// what variables it had; answers as [`StartService`] does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RestartService {
    /// Which.
    pub name: ServiceName,
    /// How long it may take to obey, [`GRACE_MS_MAX`] at most.
    pub grace_ms: u32,
}

/// Removes a service and its log, after stopping it if it is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RemoveService {
    /// Which.
    pub name: ServiceName,
    /// How long it may take to obey, [`GRACE_MS_MAX`] at most.
    pub grace_ms: u32,
}

/// A service and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Service {
    /// What it is called.
    pub name: ServiceName,
    /// The program and its first arguments, cut to [`ARGV_SHOWN_MAX`].
    pub argv: Vec<ByteString>,
    /// Where it runs; `None` is `/workspace`.
    pub cwd: Option<GuestPath>,
    /// What tells that it is ready; a command is cut as the program is.
    pub readiness: Option<Readiness>,
    /// What happens when it ends.
    pub restart: Restart,
    /// When it was last asked to start, by the guest's wall clock, in
    /// nanoseconds since the Unix epoch, as all times here.
    pub started_at_ns: i64,
    /// How often its policy has started it again since.
    pub restarts: u32,
    /// How it is.
    pub state: ServiceState,
}

/// How a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ServiceState {
    /// It runs, and is not ready yet.
    Starting {
        /// The process id in the guest.
        pid: u32,
        /// Since when it runs.
        since_ns: i64,
    },
    /// It runs and is ready.
    Running {
        /// The process id in the guest.
        pid: u32,
        /// Since when it runs.
        since_ns: i64,
        /// Since when it is ready.
        ready_at_ns: i64,
    },
    /// It has ended, and will be started again.
    Backoff {
        /// When.
        next_ns: i64,
        /// How it ended.
        exit: Exit,
    },
    /// It ended by itself, and that was that.
    Exited {
        /// When.
        at_ns: i64,
        /// How.
        exit: Exit,
    },
    /// It was told to stop.
    Stopped {
        /// When that was done.
        at_ns: i64,
        /// What it took.
        how: StopHow,
        /// How it ended; unknown when it was not running then.
        exit: Option<Exit>,
    },
    /// It is of no use as it is, and nothing of it runs.
    Failed {
        /// When that was found.
        at_ns: i64,
        /// Why.
        reason: ServiceFailure,
        /// How it ended, when it ran.
        exit: Option<Exit>,
    },
}

/// What it took to stop a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum StopHow {
    /// It obeyed TERM, with all that it started.
    Terminated,
    /// Something was left after the grace and got KILL.
    Killed,
    /// Nothing: it waited to be started again.
    Idle,
}

/// Why a service is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ServiceFailure {
    /// It ended before it was ready.
    ExitedBeforeReady,
    /// It was not ready in time, and was stopped.
    ReadinessTimeout,
    /// The one who started it did not wait until it was ready; it was stopped.
    StartCancelled,
    /// It ended as often in a row as its policy starts it again.
    RestartLimit,
    /// It could not be started again.
    NotStarted,
}

impl ServiceState {
    /// Whether it is over: nothing of it runs, or will without being told to.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        match self {
            Self::Starting { .. } | Self::Running { .. } | Self::Backoff { .. } => false,
            Self::Exited { .. } | Self::Stopped { .. } | Self::Failed { .. } => true,
        }
    }
}

/// How many services there can be, in whatever state. Each has a log of
/// [`LOG_RETAINED`] on the workspace's disk.
pub const SERVICES_MAX: usize = 64;

/// How many bytes of what a service wrote are kept at least, the last ones.
pub const LOG_RETAINED: u64 = 4 * 1024 * 1024;

/// How many bytes of a log are in one chunk at most: it fits into a frame.
pub const LOG_CHUNK_MAX: usize = 32 * 1024;

/// How many bytes of arguments and variables a service has at most, with the
/// command of its probe: the agent has all of them in its memory, which is small.
pub const PROGRAM_MAX: usize = 128 * 1024;

/// How often a probe looks at most, in milliseconds from look to look.
pub const INTERVAL_MS_MIN: u32 = 10;

/// How long a service may take to become ready at most: a day.
pub const READY_TIMEOUT_MS_MAX: u32 = 24 * 3600 * 1000;

/// How long a service may take to obey at most.
pub const GRACE_MS_MAX: u32 = 10 * 60 * 1000;

// The longest list fits into a reply: names, two argument lists, and two paths
// that are cut as they are, with what stands around.
const _: () = assert!(
    SERVICES_MAX
        * (NAME_MAX
            + 2 * (ARGV_SHOWN_MAX.0 + 3 * ARGV_SHOWN_MAX.1)
            + 2 * crate::guest_path::PATH_MAX
            + 256)
        <= FrameKind::Reply.limit()
);
const _: () = assert!(URL_MAX <= crate::guest_path::PATH_MAX);
const _: () = assert!(LOG_CHUNK_MAX + 64 <= FrameKind::Data.limit());
// The last frame of a log has one service.
const _: () = assert!(
    NAME_MAX
        + 2 * (ARGV_SHOWN_MAX.0 + 3 * ARGV_SHOWN_MAX.1)
        + 2 * crate::guest_path::PATH_MAX
        + 256
        <= FrameKind::DataEnd.limit()
);
