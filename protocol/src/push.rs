//! A tree of the host's, into the workspace, as far as it is not there already.
//!
//! ```text
//! host  ── Push, the entries, DataEnd ──▶ agent     compares with what is there
//! host ◀── Reply, an answer per file, DataEnd ── agent
//! host  ── the contents asked for, DataEnd ──▶ agent     stages, then commits
//! host ◀── the changes, DataEnd ── agent
//! ```
//!
//! All of it or nothing is done: until the last `DataEnd` has reached the agent,
//! nothing of it is to be seen.

use crate::file::FileTime;
use crate::{ByteString, GuestPath};
use serde::{Deserialize, Serialize};

/// Pushes a tree. A stream of [pieces](crate::piece) in `Data` frames follows
/// the call at once: one [`PushEntry`] each, no contents, in the order of the
/// tree (names by their bytes, a directory right before what is in it), each
/// path once. The reply, after their `DataEnd`, is [`PushCompared`].
///
/// Then the agent sends in `Data` frames one [`Answer`](ANSWER_SAME) for each
/// file, in the order of the entries, and an empty `DataEnd`; the host, for each
/// file that was not answered by [`ANSWER_SAME`], in any order, a [`PushContent`]
/// and its content in pieces or `Keep`, and an empty `DataEnd`; the agent a stream
/// of [`PushChange`]s and a `DataEnd` with [`PushEnd`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Push {
    /// The directory that is to become like the source; it is made if need be.
    /// Nothing on the way to it may be a symlink.
    pub dest: GuestPath,
    /// Delete what the source does not have, and replace what is in its way.
    pub delete: bool,
    /// Only say what would be done. No contents are sent then: the host answers
    /// for a file that differs with an empty content.
    pub dry_run: bool,
    /// Compare contents also where size and modification time are equal.
    pub checksum: bool,
}

/// Something in the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushEntry {
    /// Below the source, names with slashes between; empty is the source itself.
    pub path: ByteString,
    /// Permissions with the set-id and sticky bits: 0 to 0o7777.
    pub mode: u32,
    /// When it was last modified.
    pub modified: FileTime,
    /// What it is.
    pub kind: PushKind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum PushKind {
    /// A regular file.
    File {
        /// How long it is.
        size_bytes: u64,
    },
    /// A directory.
    Directory,
    /// Points wherever it likes.
    Symlink(ByteString),
    /// Another name of a file that came before.
    HardLink {
        /// That one's path.
        path: ByteString,
        /// Which of the files it is; 0 is the first.
        file: u64,
    },
}

/// What is there has been compared with the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushCompared {
    /// How many entries there were.
    pub entries: u64,
    /// How many files are answered by something else than [`ANSWER_SAME`].
    pub open: u64,
}

/// The file is there, with the same size and modification time.
pub const ANSWER_SAME: u8 = 0;

/// The file is to be sent.
pub const ANSWER_SEND: u8 = 1;

/// A file of the same size is there. Its BLAKE3 digest follows, 32 bytes: the
/// host sends the file only if its own has another, and otherwise `Keep`.
pub const ANSWER_COMPARE: u8 = 2;

/// A file that was asked for; its content follows, or `Keep`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushContent {
    /// Which of those that were asked for; 0 is the first.
    pub number: u64,
    /// The mode it is to have.
    pub mode: u32,
    /// The modification time it is to have if it is written, unless its content
    /// is torn: then it has the guest's, so that the next push looks at it again.
    pub modified: FileTime,
}

/// The length of a BLAKE3 digest.
pub const DIGEST_LEN: usize = 32;

/// Something that was changed, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushChange {
    /// Absolute.
    pub path: GuestPath,
    /// What became of it.
    pub action: PushAction,
}

/// What becomes of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum PushAction {
    /// It was not there.
    Created,
    /// It has another content, or is another thing.
    Updated,
    /// It has another mode.
    Attributes,
    /// It is there no more. What was in it is not told.
    Deleted,
}

/// The end of a push.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushEnd {
    /// How many of [`PushAction::Created`].
    pub created: u64,
    /// How many of [`PushAction::Updated`].
    pub updated: u64,
    /// How many of [`PushAction::Attributes`].
    pub attributes: u64,
    /// How many of [`PushAction::Deleted`].
    pub deleted: u64,
    /// How many bytes of contents were written.
    pub bytes_written: u64,
}
