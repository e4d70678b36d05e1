//! What has changed in the guest, and changing it by a patch.

use crate::{ByteString, GuestPath};
use serde::{Deserialize, Serialize};

/// Asks what has changed. The reply is [`DiffStarted`]; then the agent sends
/// `Data` frames, each a list of [`DiffRecord`], and `DataEnd` with a
/// [`DiffSummary`]. Closing the connection ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Diff {
    /// Where.
    pub scope: DiffScope,
    /// Only these and what is below them; all of the scope when there are none.
    /// At most [`DIFF_PATHS_MAX`].
    pub paths: Vec<GuestPath>,
    /// How much of it.
    pub detail: DiffDetail,
}

/// The most paths that a [`Diff`] can be limited to.
pub const DIFF_PATHS_MAX: usize = 1024;

/// What is compared with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum DiffScope {
    /// `/workspace` with its seed; paths are relative to it.
    Workspace,
    /// Everything else with the environment; paths are relative to `/`.
    System,
}

/// How much a [`Diff`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum DiffDetail {
    /// The entries alone; their contents are told as unchanged, text or not.
    Names,
    /// And how many lines.
    Counts,
    /// And the patch.
    Patch,
}

/// The comparison has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiffStarted;

/// A piece of a diff. A patch belongs to the entry before it, and may come in
/// several pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum DiffRecord {
    /// The next thing that changed.
    Entry(DiffEntry),
    /// More of a patch that `git apply` takes.
    Patch(ByteString),
}

/// One thing that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiffEntry {
    /// Where it is, or was.
    pub path: GuestPath,
    /// Where it was, if it was renamed.
    pub old_path: Option<GuestPath>,
    /// What happened to it.
    pub status: DiffStatus,
    /// What it is, or was before it was deleted.
    pub artifact: Artifact,
    /// Type and permissions before, as `st_mode` has them.
    pub old_mode: Option<u32>,
    /// And after.
    pub new_mode: Option<u32>,
    /// What happened to the content.
    pub content: DiffContent,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum DiffStatus {
    /// It was not there.
    Added,
    /// Its content, mode, owner or attributes are others.
    Modified,
    /// It is gone.
    Deleted,
    /// It is another type of thing.
    TypeChanged,
    /// It was elsewhere; its content may have changed on the way.
    Renamed,
}

/// A type of thing in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Artifact {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A pipe, socket or device, which no patch can carry.
    Other,
}

/// What happened to a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum DiffContent {
    /// Nothing, or there is none.
    Unchanged,
    /// Lines were changed.
    Text {
        /// Lines that are new.
        insertions: u32,
        /// Lines that are gone.
        deletions: u32,
    },
    /// Bytes were changed that are no text, or too many for a comparison of
    /// lines.
    Binary,
    /// It was changed, and is too large to be told: the patch is without it.
    Omitted,
}

/// The end of a diff.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiffSummary {
    /// Entries of any status.
    pub total: u64,
    /// Entries that were added.
    pub added: u64,
    /// Entries that were modified.
    pub modified: u64,
    /// Entries that were deleted.
    pub deleted: u64,
    /// Entries of another type.
    pub type_changed: u64,
    /// Entries that were renamed.
    pub renamed: u64,
    /// Entries whose lines changed.
    pub text_patched: u64,
    /// The other entries.
    pub non_text: u64,
    /// Entries whose content is left out.
    pub omitted: u64,
    /// There were so many that renames are told as deleted and added.
    pub renames_skipped: bool,
    /// Places that were not looked at, for their paths are longer than Linux
    /// opens.
    pub too_deep: u64,
}

/// Applies a patch, all of it or nothing. The host sends the patch as `Data`
/// frames, at most [`PATCH_MAX`] bytes, and an empty `DataEnd`; the reply, or
/// the error, comes after that or as soon as it is clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApplyPatch {
    /// How many leading names of each path are dropped; `None` finds out.
    pub strip: Option<u32>,
    /// Only find out whether it applies.
    pub dry_run: bool,
    /// Take the patch back.
    pub reverse: bool,
}

/// The longest patch.
pub const PATCH_MAX: u64 = 64 * 1024 * 1024;

/// The most entries of a [`PatchApplied`] that are told by name.
pub const PATCHED_MAX: usize = 512;

/// The patch is applied, or could be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PatchApplied {
    /// The first [`PATCHED_MAX`] files, by path.
    pub entries: Vec<Patched>,
    /// All of them.
    pub total: u64,
    /// How many were added.
    pub added: u64,
    /// How many were modified.
    pub modified: u64,
    /// How many were deleted.
    pub deleted: u64,
    /// How many were renamed.
    pub renamed: u64,
}

/// A file that a patch changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Patched {
    /// Relative to `/workspace`.
    pub path: GuestPath,
    /// What happened to it.
    pub status: DiffStatus,
}
