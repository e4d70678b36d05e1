//! Files of the workspace's tree. Every path is relative to `/workspace` or
//! absolute below it; a path or a symlink that leads out of the tree is refused
//! with `OutOfTree`.
//!
//! Names within a directory are in the order of their bytes, and a directory
//! comes right before what is in it. So a path is a cursor: what follows it is
//! the same whatever came and went meanwhile.

use crate::{ByteString, GuestPath};
use serde::{Deserialize, Serialize};

/// What something in a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character or block device.
    Device,
}

/// A moment by the guest's clock, or whatever a file claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileTime {
    /// Since the Unix epoch; negative before it.
    pub seconds: i64,
    /// Less than 1,000,000,000.
    pub nanoseconds: u32,
}

/// Something in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileEntry {
    /// Absolute.
    pub path: GuestPath,
    /// What it is.
    pub file_type: FileType,
    /// A file's length or that of a symlink's target; 0 for all else.
    pub size_bytes: u64,
    /// Permissions with the set-id and sticky bits: 0 to 0o7777.
    pub mode: u32,
    /// When it was last modified.
    pub modified: FileTime,
    /// How many names it has.
    pub links: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Where a symlink points to.
    pub link_target: Option<ByteString>,
}

/// Looks at one thing, not following it if it is a symlink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileStat {
    /// What to look at.
    pub path: GuestPath,
}

/// Lists a directory. Anything else is listed as itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileList {
    /// What to list.
    pub path: GuestPath,
    /// Whether directories below are listed as well.
    pub recursive: bool,
    /// Go on after this path, [`FileListed::next`] of an earlier page.
    pub after: Option<GuestPath>,
    /// How many entries the page may have; the agent may give fewer.
    pub limit: u32,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileListed {
    /// What is there.
    pub entries: Vec<FileEntry>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<GuestPath>,
    /// How many directories were not entered, because what is in them has
    /// longer paths than Linux takes.
    pub too_deep: u32,
}

/// The most bytes of entries or matches that the agent puts on one page,
/// whatever the limit says: half of what a reply may be.
pub const PAGE_MAX: usize = 512 * 1024;

const _: () = assert!(2 * PAGE_MAX <= crate::FrameKind::Reply.limit());

/// Reads a regular file. The reply is [`FileReading`]; then come `Data` frames
/// and a `DataEnd` with [`FileReadEnd`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileRead {
    /// What to read; a symlink is followed within the tree.
    pub path: GuestPath,
    /// Which part.
    pub range: ReadRange,
    /// Stop after so many bytes.
    pub max_bytes: Option<u64>,
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ReadRange {
    /// From a byte to the end.
    From {
        /// 0 is the first.
        offset: u64,
    },
    /// Whole lines, each with its newline.
    Lines {
        /// 1 is the first.
        first: u64,
        /// How many; `None` is to the end.
        count: Option<u64>,
    },
}

/// The file is open; its bytes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileReading {
    /// How long the file is now.
    pub size_bytes: u64,
}

/// All that was asked for has been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileReadEnd {
    /// Where in the file the first byte sent stands.
    pub offset: u64,
    /// Whether `max_bytes` cut the range short.
    pub truncated: bool,
    /// Where the file goes on after the last byte sent; `None` at its end.
    pub next_offset: Option<u64>,
}

/// Writes a file. `Data` frames with its content and an empty `DataEnd` follow
/// the call at once; the reply comes when all is on the disk. Until then nothing
/// of it is to be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileWrite {
    /// What to write; directories on the way to it are made. A symlink is
    /// written through as long as it stays within the tree.
    pub path: GuestPath,
    /// What becomes of what is there.
    pub disposition: Disposition,
    /// The file's permissions; `None` keeps those of a file that is there, and
    /// is 0o644 for a new one.
    pub mode: Option<u32>,
}

/// What becomes of the file that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Disposition {
    /// It is replaced as a whole by one rename. Its owner and permissions stay;
    /// its other names, if it has any, keep the old content.
    Replace,
    /// It grows.
    Append,
    /// It must not be there.
    CreateNew,
}

/// The file is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileWritten {
    /// How long it is now.
    pub size_bytes: u64,
    /// How many bytes were written.
    pub bytes_written: u64,
    /// Its permissions.
    pub mode: u32,
    /// Whether it was not there before.
    pub created: bool,
}

/// Replaces exact strings in a file: all of the edits or none. Each one sees
/// what those before it made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileEdit {
    /// What to edit, at most [`EDIT_MAX`] bytes.
    pub path: GuestPath,
    /// At least one, at most [`EDITS_MAX`].
    pub edits: Vec<Edit>,
}

/// The longest file that can be edited, before and after: the agent holds it in
/// memory twice.
pub const EDIT_MAX: u64 = 4 * 1024 * 1024;

/// The most edits of one call: each goes over the whole file.
pub const EDITS_MAX: usize = 1000;

/// One replacement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Edit {
    /// What is there; not empty.
    pub old: ByteString,
    /// What is to be there instead.
    pub new: ByteString,
    /// How often `old` is there.
    pub occurrences: Occurrences,
}

/// How often a text must be in a file, not counting overlaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Occurrences {
    /// So many times.
    Exactly(u32),
    /// At least once.
    All,
}

/// The file is edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileEdited {
    /// How many replacements were made.
    pub replacements: u64,
    /// In which line the first of them begins; 1 is the first.
    pub first_line: u64,
    /// How long the file is now.
    pub size_bytes: u64,
}

/// Deletes a file, a symlink (never what it points to) or a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileDelete {
    /// What to delete; not `/workspace` itself.
    pub path: GuestPath,
    /// Whether a directory goes with all that is in it.
    pub recursive: bool,
}

/// It is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileDeleted;

/// Renames within the tree. Directories on the way to the new name are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileMove {
    /// What to move; a symlink is moved itself.
    pub from: GuestPath,
    /// Its new name, never a directory to move it into.
    pub to: GuestPath,
    /// Whether a file at the new name, or an empty directory for a directory,
    /// is replaced.
    pub replace: bool,
}

/// It has its new name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileMoved;

/// Searches for files by name, or for lines of files by what is in them. Does
/// not follow symlinks below `path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileSearch {
    /// The file or directory to search.
    pub path: GuestPath,
    /// What lines contain; `None` finds files, whatever is in them.
    pub pattern: Option<Pattern>,
    /// Globs one of which must match, if there are any: one without a slash
    /// matches a name, one with a slash the path below `path`. `**` crosses
    /// directories.
    pub include: Vec<String>,
    /// Globs none of which may match. A directory that matches is not entered.
    pub exclude: Vec<String>,
    /// Whether `.git` directories are entered.
    pub git: bool,
    /// Go on after this match, [`FileSearched::next`] of an earlier page.
    pub after: Option<SearchCursor>,
    /// How many matches the page may have; the agent may give fewer.
    pub limit: u32,
    /// Files that are longer are not looked into, and counted.
    pub max_file_bytes: u64,
}

/// What a line contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pattern {
    /// A regular expression of Rust's `regex`, or a text.
    pub text: String,
    /// Whether `text` stands for itself.
    pub literal: bool,
    /// Whether `a` also finds `A`.
    pub ignore_case: bool,
}

/// A place in the order of a search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SearchCursor {
    /// The last file that was found.
    pub path: GuestPath,
    /// The last line in it; `None` when it is done with.
    pub line: Option<u64>,
}

/// One page of what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileSearched {
    /// In the order of the tree.
    pub matches: Vec<Match>,
    /// Where to go on; `None` when all was searched.
    pub next: Option<SearchCursor>,
    /// What this page looked at and passed over.
    pub tally: SearchTally,
}

/// What was looked at, and what was not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SearchTally {
    /// Files looked into, or whose name was looked at when there is no pattern.
    pub files: u64,
    /// Files passed over because they contain NUL bytes.
    pub binary: u64,
    /// Files passed over because of their length.
    pub too_large: u64,
    /// What could not be opened, or is too deep.
    pub unreadable: u64,
}

/// A file, or a line of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Match {
    /// Absolute.
    pub path: GuestPath,
    /// Which line; `None` when names were searched.
    pub line: Option<MatchedLine>,
}

/// A line that matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MatchedLine {
    /// 1 is the first.
    pub number: u64,
    /// Where in the line the match begins, in bytes; 0 is the first.
    pub start: u64,
    /// The line without its newline, or [`LINE_MAX`] bytes of it around the
    /// match.
    pub text: ByteString,
    /// Whether `text` is only a part.
    pub cut: bool,
}

/// The most bytes of a line that a match shows.
pub const LINE_MAX: usize = 1024;
