//! What a guest sends, checked: nothing gets through but a tree.

use crate::error::{Error, ErrorKind, Result};
use crate::guest_text;
use pyro_protocol::export::{ExportEntry, ExportKind};
use pyro_protocol::file::FileType;
use pyro_protocol::guest_path::PATH_MAX;
use pyro_protocol::piece::Piece;
use pyro_protocol::transfer::{NoPiece, Pieces};
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// How many entries an export may have: a hostile guest could send them without
/// end. Each file costs some ten bytes of memory meanwhile.
pub const ENTRIES_MAX: u64 = 4_000_000;

/// The longest name that Linux takes in a directory.
const NAME_MAX: usize = 255;

/// How much of a name an error shows.
const SHOWN_MAX: usize = 200;

/// How much a guest may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of contents, holes included.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: ENTRIES_MAX, bytes: u64::MAX }
    }
}

/// How much a guest sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// Who makes something of a tree. It sees entries whose paths are plain and in
/// order, each below a directory that it saw, and contents only of files.
pub(super) trait Sink {
    /// The next entry; a file's content follows.
    fn entry(&mut self, entry: &ExportEntry) -> Result<()>;
    /// The next bytes of the file.
    fn bytes(&mut self, bytes: &[u8]) -> Result<()>;
    /// The next bytes of the file, all zero.
    fn hole(&mut self, length: u64) -> Result<()>;
    /// The file is complete; so many bytes less than its entry said.
    fn end(&mut self, missing: u64) -> Result<()>;
}

/// Takes a stream in.
pub(super) fn receive(
    mut pieces: Pieces<ExportEntry>,
    expected: FileType,
    limits: Limits,
    sink: &mut impl Sink,
) -> Result<Counts> {
    let mut check = Check::new(expected, limits);
    while let Some(piece) = pieces.piece().map_err(broken)? {
        let Piece::Entry(entry) = piece else { return Err(hostile("a content of nothing")) };
        check.entry(&entry)?;
        sink.entry(&entry)?;
        if let ExportKind::File { size_bytes } = entry.kind {
            content(&mut pieces, &mut check, size_bytes, sink)?;
        }
    }
    match check.counts.entries {
        0 => Err(hostile("nothing")),
        _ => Ok(check.counts),
    }
}

fn content(
    pieces: &mut Pieces<ExportEntry>,
    check: &mut Check,
    size: u64,
    sink: &mut impl Sink,
) -> Result<()> {
    let mut left = size;
    loop {
        let Some(piece) = pieces.piece().map_err(broken)? else {
            return Err(hostile("a file without an end"));
        };
        let taken = match &piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Hole(length) => *length,
            Piece::End | Piece::Torn | Piece::Entry(_) | Piece::Keep => 0,
        };
        left = left.checked_sub(taken).ok_or_else(|| hostile("more of a file than it has"))?;
        check.bytes(taken)?;
        match piece {
            Piece::Bytes(bytes) => sink.bytes(bytes)?,
            Piece::Hole(length) => sink.hole(length)?,
            Piece::End if left > 0 => return Err(hostile("less of a file than it has")),
            Piece::End | Piece::Torn => return sink.end(left),
            Piece::Entry(_) | Piece::Keep => return Err(hostile("an entry inside a file")),
        }
    }
}

/// What has come, as far as it decides what may come next.
struct Check {
    expected: FileType,
    limits: Limits,
    counts: Counts,
    /// The directories that the last entry is in, and itself if it is one.
    directories: Vec<Vec<u8>>,
    last: Vec<u8>,
    /// Digests of the paths of all files, for hard links to point to. Keyed at
    /// random: a guest cannot make two alike.
    files: HashSet<u64>,
    key: RandomState,
}

impl Check {
    fn new(expected: FileType, limits: Limits) -> Self {
        Self {
            expected,
            limits,
            counts: Counts::default(),
            directories: Vec::new(),
            last: Vec::new(),
            files: HashSet::new(),
            key: RandomState::new(),
        }
    }

    fn entry(&mut self, entry: &ExportEntry) -> Result<()> {
        self.counts.entries += 1;
        if self.counts.entries > self.limits.entries {
            let message = format!("the export has more than {} entries", self.limits.entries);
            return Err(Error::new(ErrorKind::InvalidInput, message).hint("export a part of it"));
        }
        let path = entry.path.0.as_slice();
        match self.counts.entries {
            1 => self.first(entry)?,
            _ => self.below(path)?,
        }
        if entry.modified.nanoseconds >= 1_000_000_000 {
            return Err(hostile("a time that is none"));
        }
        match &entry.kind {
            ExportKind::File { size_bytes } => {
                i64::try_from(*size_bytes).map_err(|_| hostile("a file without end"))?;
                self.files.insert(self.key.hash_one(path));
            }
            ExportKind::Directory => self.directories.push(path.to_vec()),
            ExportKind::Symlink(target) => {
                let target = &target.0;
                if target.is_empty() || target.len() > PATH_MAX || target.contains(&0) {
                    return Err(hostile("a symlink without a target"));
                }
            }
            ExportKind::HardLink(first) => {
                if !self.files.contains(&self.key.hash_one(first.0.as_slice())) {
                    return Err(bad_name(path, "is a link to what is no file of the export"));
                }
            }
        }
        self.last = path.to_vec();
        Ok(())
    }

    /// The thing itself, which is of the type that the guest has told.
    fn first(&self, entry: &ExportEntry) -> Result<()> {
        let is_expected = match entry.kind {
            ExportKind::File { .. } => self.expected == FileType::File,
            ExportKind::Directory => self.expected == FileType::Directory,
            ExportKind::Symlink(_) => self.expected == FileType::Symlink,
            ExportKind::HardLink(_) => false,
        };
        if is_expected && entry.path.0.is_empty() {
            Ok(())
        } else {
            Err(hostile("something else than was asked for"))
        }
    }

    /// A path that comes after the last one, in a directory that has come.
    fn below(&mut self, path: &[u8]) -> Result<()> {
        let is_name = |name: &[u8]| {
            !matches!(name, b"" | b"." | b"..") && name.len() <= NAME_MAX && !name.contains(&0)
        };
        let names = |path| <[u8]>::split(path, |byte| *byte == b'/');
        if path.len() > PATH_MAX || !names(path).all(is_name) {
            return Err(bad_name(path, "is no path below it"));
        }
        if !self.last.is_empty() && !names(&self.last).lt(names(path)) {
            return Err(bad_name(path, "is out of order"));
        }
        let parent = parent(path);
        while self.directories.last().is_some_and(|directory| directory != parent) {
            self.directories.pop();
        }
        match self.directories.is_empty() {
            true => Err(bad_name(path, "is in what is no directory")),
            false => Ok(()),
        }
    }

    fn bytes(&mut self, taken: u64) -> Result<()> {
        self.counts.bytes = self.counts.bytes.saturating_add(taken);
        if self.counts.bytes > self.limits.bytes {
            let message = format!("the export has more than {} bytes", self.limits.bytes);
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .hint("allow more, or export a part of it"));
        }
        Ok(())
    }
}

/// The directory that a path is in; empty is the top.
pub(super) fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(&[], |at| &path[..at])
}

fn hostile(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("the guest sent {what}; nothing was exported"))
}

fn bad_name(path: &[u8], what: &str) -> Error {
    let path = guest_text::escaped(&String::from_utf8_lossy(path), SHOWN_MAX);
    hostile(&format!("an export in which {path:?} {what}"))
}

fn broken(error: NoPiece) -> Error {
    match error {
        NoPiece::CutOff(cut_off) => cut_off.into(),
        NoPiece::Bad(bad) => hostile("what is no export").because(bad),
    }
}
