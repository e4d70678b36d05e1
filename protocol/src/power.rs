//! A guest's moments: it is given a workspace, it stood still, it goes off.

use crate::ByteString;
use serde::{Deserialize, Serialize};

/// Gives a guest that came up on its read-only base its workspace. The agent
/// seeds the kernel's random numbers first, sets the clock, mounts the disks,
/// pivots; after the reply it serves every call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Activate {
    /// Fresh random bytes from the host, [`ENTROPY_LEN`] of them.
    pub entropy: ByteString,
    /// What to add to the guest's wall clock, in nanoseconds.
    pub clock_offset_ns: i64,
    /// The guest's host name: 1 to 63 of `[a-z0-9-]`.
    pub hostname: String,
    /// The guest's /etc/machine-id: 32 hexadecimal digits.
    pub machine_id: String,
    /// Whether the third disk is a seed: then `/workspace` is an overlay of it
    /// and the workspace's own layer, else a directory of the root.
    pub seeded: bool,
}

/// How many random bytes [`Activate`] carries: twice what the kernel needs to
/// call its generator initialised.
pub const ENTROPY_LEN: usize = 64;

/// The workspace is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Activated {
    /// What mounting and pivoting took, in microseconds.
    pub took_us: u64,
}

/// Ends every process, writes everything to disk, and powers off. The reply
/// comes once the disks are consistent; the machine goes off when the host has
/// closed the connection, or a second later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PowerOff {
    /// How long processes may take to obey TERM before they get KILL.
    pub grace_ms: u32,
}

/// Disks are consistent; the guest goes off now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PoweringOff;

/// Steps the wall clock of a guest that stood still while the host's went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShiftClock {
    /// What to add, in nanoseconds.
    pub offset_ns: i64,
}

/// It is stepped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClockShifted;

/// Writes out what the guest's programs have written by now, so that a copy of
/// the workspace's disk has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SyncDisk;

/// It is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiskSynced;

/// Asks whether anybody is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ping;

/// Somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pong;
