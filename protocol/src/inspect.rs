//! A guest that only looks at a workspace's disk, which it has read-only.

use crate::ByteString;
use serde::{Deserialize, Serialize};

/// Gives a guest that came up on its read-only base a workspace's disks to look
/// at, in place of [`Activate`](crate::power::Activate). What its file systems
/// must put right first is written to the guest's memory. After the reply the
/// agent serves calls that read files, whose paths may lie anywhere in the tree
/// that the workspace's programs saw, and no others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Inspect {
    /// Fresh random bytes from the host, as
    /// [`Activate`](crate::power::Activate) has them.
    pub entropy: ByteString,
    /// What to add to the guest's wall clock, in nanoseconds.
    pub clock_offset_ns: i64,
    /// Whether the third disk is a seed.
    pub seeded: bool,
}

/// The tree can be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Inspecting {
    /// What mounting took, in microseconds.
    pub took_us: u64,
}

/// Counts what [`CopyTree`] would copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MeasureTree;

/// How large the whole tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TreeMeasured {
    /// How many names there are.
    pub entries: u64,
    /// What the contents of files take in blocks of 4 KiB, without holes. A file
    /// with several names counts once.
    pub bytes: u64,
    /// How much room the workspace's own disk still has.
    pub free_bytes: u64,
}

/// Copies the whole tree to the fourth disk, an empty ext4 of the host's making.
/// The reply is [`CopyingTree`]; then comes a [`CopyProgress`] now and then, each
/// as an entry of a stream of [pieces](crate::piece), and a `DataEnd` with
/// [`CopyEnd`] once the file system is unmounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CopyTree;

/// The disk is mounted; it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CopyingTree;

/// How far the copy is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CopyProgress {
    /// How many names are there.
    pub entries: u64,
    /// How many bytes of contents are there.
    pub bytes: u64,
}

/// The copy is complete, and on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CopyEnd {
    /// How many names there are.
    pub entries: u64,
    /// How many bytes contents have, without holes.
    pub bytes: u64,
    /// Directories whose contents were left out because they lie too deep.
    pub too_deep: u64,
}
