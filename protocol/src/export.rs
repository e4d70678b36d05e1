//! A part of the tree, out of the guest.

use crate::file::{FileTime, FileType};
use crate::{ByteString, GuestPath};
use serde::{Deserialize, Serialize};

/// Sends a file, a symlink, or a directory with all that is in it. The reply is
/// [`Exporting`]; then comes a stream of [pieces](crate::piece) in `Data`
/// frames, an [`ExportEntry`] each, a file's with its content, and a `DataEnd`
/// with [`ExportEnd`].
///
/// What is changed meanwhile may be sent as it was or as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Export {
    /// What to send. Its parents may be symlinks within the tree; itself it is
    /// not followed.
    pub path: GuestPath,
    /// Whether [`ExportEntry::attributes`] are sent.
    pub attributes: bool,
}

/// It is there; the stream follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Exporting {
    /// What it is: a file, a directory or a symlink.
    pub file_type: FileType,
}

/// Something that is exported. A directory comes before what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExportEntry {
    /// Below what was asked for, names with slashes between; empty is that
    /// itself, the first entry.
    pub path: ByteString,
    /// Permissions with the set-id and sticky bits: 0 to 0o7777.
    pub mode: u32,
    /// When it was last modified.
    pub modified: FileTime,
    /// What it is.
    pub kind: ExportKind,
    /// Whose it is and what else is noted of it, if that was asked for.
    pub attributes: Option<Attributes>,
}

/// What only matters where the whole of a system is moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Attributes {
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Extended attributes by name.
    pub xattrs: Vec<Xattr>,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Xattr {
    /// Such as `security.capability`.
    pub name: ByteString,
    /// Whatever it is.
    pub value: ByteString,
}

/// The most bytes of names and values that an entry carries; what has more is
/// sent without them, and counted.
pub const XATTRS_MAX: usize = 4 * 1024;

const _: () = assert!(3 * crate::guest_path::PATH_MAX + XATTRS_MAX <= crate::piece::ENTRY_MAX);

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ExportKind {
    /// Its content follows: bytes and holes, and an end.
    File {
        /// How long that will be, or less if the file is torn.
        size_bytes: u64,
    },
    /// What is in it follows.
    Directory,
    /// Points wherever it likes.
    Symlink(ByteString),
    /// Another name of a file that came before, by that one's path.
    HardLink(ByteString),
}

/// All has been sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExportEnd {
    /// How many entries.
    pub entries: u64,
    /// FIFOs, sockets and devices, which are left out.
    pub special: u64,
    /// Files that changed while they were read.
    pub torn: u64,
    /// Directories left out because what is in them has longer paths than Linux
    /// takes.
    pub too_deep: u64,
    /// Entries whose extended attributes were left out because they are too many.
    pub unattributed: u64,
    /// The first few of all that was left out or torn.
    pub examples: Vec<GuestPath>,
}

/// The most [`ExportEnd::examples`].
pub const EXAMPLES_MAX: usize = 8;

const _: () =
    assert!((EXAMPLES_MAX + 1) * crate::guest_path::PATH_MAX <= crate::FrameKind::DataEnd.limit());
