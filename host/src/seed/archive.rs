//! A tar archive as a source. Nothing of it is extracted anywhere.

pub(crate) mod compression;
mod extension;
pub(crate) mod header;
pub(crate) mod limited;
pub(crate) mod tar;

use super::SEED_DEVICE_BYTES;
use super::entry::{BadPath, Entry, Kind, Nothing, RelPath, readable};
use super::walk::Walk;
use crate::context::Admitted;
use crate::error::{Error, ErrorKind, Result};
use compression::{Compression, MAGIC_BYTES};
use header::BadHeader;
use limited::Limited;
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use tar::{Member, MemberKind, Reader, TarError};

/// How much an archive may unpack to: more would not go onto the device, and
/// one that never ends has to end somewhere.
pub const ARCHIVE_BYTES_MAX: u64 = SEED_DEVICE_BYTES;

/// What an archive of the host is read through.
const READ_BUFFER: usize = 256 << 10;

/// The mode of a directory that no member is for.
const MADE_MODE: u32 = 0o755;

/// What a path of the archive is, as far as it matters for what comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Directory { entries: u32 },
    Symlink,
    File,
}

/// Shows every member of an archive, in its order, with the directories that it
/// left out.
///
/// # Errors
/// When it is no such archive, is damaged, holds a name that leads elsewhere,
/// or more than a seed may hold.
pub fn walk(archive: &Admitted, walk: &mut Walk<'_>) -> Result<()> {
    let path = archive.path();
    let failed = |error: io::Error| Error::io(format!("cannot read {}", path.display()), error);
    let file = open(archive).map_err(failed)?;
    let mut input = BufReader::with_capacity(READ_BUFFER, file);
    let first = input.fill_buf().map_err(failed)?;
    if first.is_empty() {
        return Err(refused(path, "it is empty"));
    }
    let compression = Compression::of(&first[..first.len().min(MAGIC_BYTES)]);
    let decoder = match compression {
        Compression::Other(name) => {
            return Err(refused(path, &format!("{name} is not taken")).hint(TAKEN));
        }
        Compression::None => Box::new(input) as Box<dyn Read>,
        Compression::Gzip => compression::gzip(input),
        Compression::Zstd => compression::zstd(input),
    };
    let limited = Limited { input: decoder, left: ARCHIVE_BYTES_MAX, cancel: walk.cancel() };
    let mut members =
        Members { path, reader: Reader::new(limited), seen: HashMap::new(), root: Root::Missing };
    let shown = members.all(walk, compression);
    // Reading ended early for no other reason.
    walk.check_cancelled().and(shown)
}

/// Opens it. Whatever is in its place by now, nobody is kept waiting.
fn open(archive: &Admitted) -> io::Result<File> {
    let file = File::from(archive.open(OFlags::RDONLY | OFlags::NONBLOCK)?);
    let is_file = file.metadata()?.is_file();
    is_file.then_some(file).ok_or_else(|| io::Error::other("it is no file any more"))
}

/// What a hint says of the archives that are taken.
const TAKEN: &str = "give a directory, or a tar archive: plain, or compressed by gzip or zstd";

/// Whether the root was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    Missing,
    Shown,
}

/// An archive on the way.
struct Members<'a, R> {
    path: &'a Path,
    reader: Reader<Limited<'a, R>>,
    seen: HashMap<RelPath, Seen>,
    root: Root,
}

impl<R: Read> Members<'_, R> {
    fn all(&mut self, walk: &mut Walk<'_>, compression: Compression) -> Result<()> {
        while self.next(walk)? {}
        match compression {
            // What follows is no part of it.
            Compression::None => Ok(()),
            Compression::Gzip | Compression::Zstd | Compression::Other(_) => {
                self.reader.finish().map_err(|error| self.broken(error))
            }
        }
    }

    /// Shows the next member; false at the end.
    fn next(&mut self, walk: &mut Walk<'_>) -> Result<bool> {
        let Some(member) = self.reader.next().map_err(|error| self.broken(error))? else {
            return Ok(false);
        };
        let Some(path) = self.relative(&member.name, &member.name)? else {
            if member.kind != MemberKind::Directory {
                return Err(self.bad(&member, "it is in the place of the root"));
            }
            self.root = Root::Shown;
            walk.root(member.mode, member.mtime)?;
            return Ok(true);
        };
        if self.root == Root::Missing {
            self.root = Root::Shown;
            walk.root(MADE_MODE, member.mtime)?;
        }
        self.make_parents(&member, &path, walk)?;
        let (seen, kind) = match &member.kind {
            MemberKind::Directory => (Seen::Directory { entries: 0 }, Kind::Directory),
            MemberKind::File(size) => (Seen::File, Kind::File { size: *size }),
            MemberKind::Symlink(target) => (Seen::Symlink, Kind::Symlink(target.clone())),
            MemberKind::HardLink(target) => {
                let target = self
                    .relative(&member.name, target)?
                    .ok_or_else(|| self.bad(&member, "it is a hard link to the root"))?;
                let seen = match self.seen.get(&target) {
                    Some(seen @ (Seen::File | Seen::Symlink)) => *seen,
                    Some(Seen::Directory { .. }) => {
                        return Err(self.bad(&member, "it is a hard link to a directory"));
                    }
                    None => {
                        let what =
                            format!("it is a hard link to `{target}`, which comes not before it");
                        return Err(self.bad(&member, &what));
                    }
                };
                (seen, Kind::HardLink(target))
            }
            MemberKind::Other(what) => {
                walk.skip(&path, what);
                return Ok(true);
            }
        };
        self.note(&member, &path, seen)?;
        // Linux knows no other mode of a symbolic link.
        let mode = if seen == Seen::Symlink { 0o777 } else { member.mode };
        let entry = Entry { path, mode, mtime: member.mtime, kind };
        let shown = if matches!(entry.kind, Kind::File { .. }) {
            walk.entry(&entry, &mut self.reader)
        } else {
            walk.entry(&entry, &mut Nothing)
        };
        shown.map_err(|error| {
            self.reader.failed.take().map_or(error, |failed| self.broken(failed))
        })?;
        Ok(true)
    }

    /// A member's name as a path of the seed; `None` is the root.
    fn relative(&self, member: &[u8], name: &[u8]) -> Result<Option<RelPath>> {
        let bad = |bad: BadPath| {
            let name = readable(member);
            refused(self.path, &format!("its member `{name}` cannot be in a seed")).because(bad)
        };
        if name.first() == Some(&b'/') {
            return Err(bad(BadPath::Absolute));
        }
        let names = name.split(|byte| *byte == b'/');
        let names: Vec<_> = names.filter(|name| !matches!(*name, b"" | b".")).collect();
        if names.is_empty() && !name.is_empty() {
            return Ok(None);
        }
        RelPath::new(names.join(&b'/')).map(Some).map_err(bad)
    }

    /// Shows the directories that a member is in and that no member was for.
    fn make_parents(&mut self, member: &Member, path: &RelPath, walk: &mut Walk<'_>) -> Result<()> {
        let mut missing = Vec::new();
        let mut next = path.parent();
        while let Some(parent) = next {
            match self.seen.get(&parent) {
                Some(Seen::Directory { .. }) => break,
                Some(Seen::Symlink) => {
                    let what = format!("it lies below the symbolic link `{parent}`");
                    return Err(self.bad(member, &what));
                }
                Some(Seen::File) => {
                    return Err(self.bad(member, &format!("it lies below the file `{parent}`")));
                }
                None => {}
            }
            next = parent.parent();
            missing.push(parent);
        }
        for path in missing.into_iter().rev() {
            self.note(member, &path, Seen::Directory { entries: 0 })?;
            let (mode, mtime) = (MADE_MODE, member.mtime);
            walk.entry(&Entry { path, mode, mtime, kind: Kind::Directory }, &mut Nothing)?;
        }
        Ok(())
    }

    /// Remembers what a path is; the last member of a name counts.
    fn note(&mut self, member: &Member, path: &RelPath, seen: Seen) -> Result<()> {
        match (self.seen.get(path).copied(), seen) {
            (Some(Seen::Directory { .. }), Seen::Directory { .. }) => return Ok(()),
            (Some(Seen::Directory { entries }), Seen::File | Seen::Symlink) if entries > 0 => {
                return Err(self.bad(member, "it comes again in place of a full directory"));
            }
            (Some(_), _) => {}
            (None, _) => {
                let parent = path.parent().and_then(|parent| self.seen.get_mut(&parent));
                if let Some(Seen::Directory { entries }) = parent {
                    *entries += 1;
                }
            }
        }
        self.seen.insert(path.clone(), seen);
        Ok(())
    }

    fn bad(&self, member: &Member, what: &str) -> Error {
        let name = readable(&member.name);
        refused(self.path, &format!("its member `{name}` cannot be in a seed: {what}"))
    }

    /// Says why no more can be read.
    fn broken(&self, error: TarError) -> Error {
        match error {
            TarError::Header(BadHeader::Checksum) if self.reader.members == 0 => {
                refused(self.path, "it is no tar archive").hint(TAKEN)
            }
            TarError::Truncated if self.reader.members == 0 => {
                refused(self.path, "it is no tar archive, or one cut short").hint(TAKEN)
            }
            TarError::Io(_) if self.reader.input().left == 0 => {
                let gib = ARCHIVE_BYTES_MAX >> 30;
                refused(self.path, &format!("it unpacks to more than {gib} GiB"))
            }
            TarError::Io(error) => match error.raw_os_error() {
                Some(_) => Error::io(format!("cannot read {}", self.path.display()), error),
                None => refused(self.path, "it is damaged").because(error),
            },
            error @ (TarError::Header(_)
            | TarError::Records(_)
            | TarError::LargeExtension
            | TarError::Sparse(_)
            | TarError::Volumes
            | TarError::Truncated) => refused(self.path, &error.to_string()),
        }
    }
}

fn refused(path: &Path, why: &str) -> Error {
    let path = path.display();
    Error::new(ErrorKind::InvalidInput, format!("cannot seed from {path}: {why}"))
}
