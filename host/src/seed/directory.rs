//! A directory of the host as a source.
//!
//! Every directory is opened from the top, beneath it and through no symbolic
//! link, so that nobody who moves things about meanwhile leads the walk
//! elsewhere; and only one is open at a time, however deep the tree.

mod content;

use super::entry::{Bytes, Entry, Kind, Mtime, Nothing, RelPath};
use super::walk::{ENTRIES_MAX, Walk};
use crate::context::Admitted;
use crate::error::{Error, ErrorKind, Result};
use content::{Failure, HostFile};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, readlinkat, statat,
};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What tells a file from all others on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// That of what was looked at.
    #[must_use]
    pub fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// A directory to walk through.
pub struct Top<'a> {
    /// For messages.
    path: PathBuf,
    fd: OwnedFd,
    /// Where its content goes below the seed's root.
    prefix: Option<RelPath>,
    /// The file that is being written meanwhile, wherever it lies.
    avoid: Option<FileId>,
    /// What is wanted of it, by the path within.
    wanted: &'a dyn Fn(&RelPath) -> bool,
    /// What becomes of the content of its files, if they are small.
    rewrite: Option<&'a dyn Fn(Vec<u8>) -> Vec<u8>>,
    /// The first name of each file that has several.
    links: HashMap<FileId, RelPath>,
    /// The directory that was picked from last.
    picked: Option<(Option<RelPath>, OwnedFd)>,
    /// The directories that were shown to pick something from them.
    shown: HashSet<RelPath>,
}

/// The largest file whose content can be rewritten: it is in memory meanwhile.
const REWRITTEN_BYTES_MAX: u64 = 64 << 20;

impl<'a> Top<'a> {
    /// Opens a directory; a symbolic link to one will do.
    ///
    /// # Errors
    /// When it is none, or the host's system refuses.
    pub fn open(place: &Admitted, avoid: Option<FileId>) -> Result<Top<'a>> {
        let path = place.path();
        let fd = place
            .open(OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|error| Error::io(format!("cannot open {}", path.display()), error))?;
        Ok(Self {
            path: path.to_owned(),
            fd,
            prefix: None,
            avoid,
            wanted: &|_| true,
            rewrite: None,
            links: HashMap::new(),
            picked: None,
            shown: HashSet::new(),
        })
    }

    /// Puts the content below this directory of the seed.
    #[must_use]
    pub fn at(mut self, prefix: RelPath) -> Self {
        self.prefix = Some(prefix);
        self
    }

    /// Leaves out, with all that is in it, what the choice does not want.
    #[must_use]
    pub fn only(mut self, wanted: &'a dyn Fn(&RelPath) -> bool) -> Self {
        self.wanted = wanted;
        self
    }

    /// Changes the content of every file. Files too large for that are skipped.
    #[must_use]
    pub fn rewriting(mut self, rewrite: &'a dyn Fn(Vec<u8>) -> Vec<u8>) -> Self {
        self.rewrite = Some(rewrite);
        self
    }

    /// Its own mode and time.
    pub fn stat(&self) -> Result<(u32, Mtime)> {
        let stat = fstat(&self.fd).map_err(|errno| refused("look at", &self.path, errno))?;
        Ok((mode(&stat), mtime(&stat)))
    }

    /// Shows everything in it: in each directory what is no directory by name,
    /// then one directory after the other.
    pub fn walk(&mut self, walk: &mut Walk<'_>) -> Result<()> {
        let mut waiting: Vec<Option<RelPath>> = vec![None];
        while let Some(directory) = waiting.pop() {
            let below = self.one(directory.as_ref(), walk)?;
            waiting.extend(below.into_iter().rev().map(Some));
        }
        Ok(())
    }

    /// Shows what is at a path, with the directories that it is in unless they
    /// were shown before. What is not there, or behind a symbolic link, is not
    /// shown. A directory is shown without what is in it. Says whether it is one.
    pub fn pick(&mut self, path: &RelPath, walk: &mut Walk<'_>) -> Result<bool> {
        let parent = path.parent();
        if self.picked.as_ref().is_none_or(|(last, _)| *last != parent) {
            if let Some(parent) = &parent
                && !self.shown.contains(parent)
                && !self.pick(parent, walk)?
            {
                return Ok(false);
            }
            let Some(fd) = self.descend(parent.as_ref())? else { return Ok(false) };
            self.picked = Some((parent, fd));
        }
        if self.shown.contains(path) {
            return Ok(true);
        }
        let Some((parent, fd)) = self.picked.take() else { return Ok(false) };
        let name = CString::new(path.name())
            .map_err(|error| Error::new(ErrorKind::Internal, "a NUL in a name").because(error))?;
        let there = statat(fd.as_fd(), &name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let is_directory =
            there && self.entry(fd.as_fd(), &name, path, walk)? == Some(Found::Directory);
        if is_directory {
            self.shown.insert(path.clone());
        }
        self.picked = Some((parent, fd));
        Ok(is_directory)
    }

    /// Shows one directory's entries; its directories are still to be walked.
    fn one(&mut self, directory: Option<&RelPath>, walk: &mut Walk<'_>) -> Result<Vec<RelPath>> {
        let shown = self.shown_path(directory);
        let Some(fd) = self.descend(directory)? else {
            walk.warnings().push(|| format!("`{}` vanished", shown.display()));
            return Ok(Vec::new());
        };
        let mut below = Vec::new();
        let names = list(fd.as_fd()).map_err(|errno| refused("list", &shown, errno))?;
        let names = names.ok_or_else(|| {
            let message = format!("{} has more than {ENTRIES_MAX} entries", shown.display());
            Error::new(ErrorKind::InvalidInput, message)
        })?;
        for name in names {
            let inner = RelPath::below(directory, name.to_bytes()).map_err(|bad| {
                let shown = shown.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
                Error::new(ErrorKind::InvalidInput, format!("cannot seed {}", shown.display()))
                    .because(bad)
            })?;
            if !(self.wanted)(&inner) {
                continue;
            }
            let found = self.entry(fd.as_fd(), &name, &inner, walk)?;
            if found == Some(Found::Directory) {
                below.push(inner);
            }
        }
        Ok(below)
    }

    /// Shows one entry of an open directory.
    fn entry(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        inner: &RelPath,
        walk: &mut Walk<'_>,
    ) -> Result<Option<Found>> {
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => {
                walk.warnings().push(|| format!("`{inner}` vanished"));
                return Ok(None);
            }
            Err(errno) => return Err(refused("look at", &self.shown_path(Some(inner)), errno)),
        };
        let path = self.outer(inner)?;
        let entry =
            |kind| Entry { path: path.clone(), mode: mode(&stat), mtime: mtime(&stat), kind };
        if self.avoid == Some(FileId::of(&stat)) {
            walk.skip(&path, "it is the seed that is being written");
            return Ok(None);
        }
        let file_type = FileType::from_raw_mode(stat.st_mode);
        match file_type {
            FileType::Directory => {
                walk.entry(&entry(Kind::Directory), &mut Nothing)?;
                return Ok(Some(Found::Directory));
            }
            FileType::RegularFile | FileType::Symlink => {}
            FileType::Socket => walk.skip(&path, "it is a socket"),
            FileType::Fifo => walk.skip(&path, "it is a FIFO"),
            FileType::CharacterDevice | FileType::BlockDevice => {
                walk.skip(&path, "it is a device");
            }
            FileType::Unknown => walk.skip(&path, "nobody knows what it is"),
        }
        if !matches!(file_type, FileType::RegularFile | FileType::Symlink) {
            return Ok(None);
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&FileId::of(&stat)) {
                walk.entry(&entry(Kind::HardLink(first.clone())), &mut Nothing)?;
                return Ok(Some(Found::Other));
            }
            self.links.insert(FileId::of(&stat), path.clone());
        }
        if file_type == FileType::Symlink {
            let target = readlinkat(directory, name, Vec::new())
                .map_err(|errno| refused("read", &self.shown_path(Some(inner)), errno))?;
            walk.entry(&entry(Kind::Symlink(target.into_bytes())), &mut Nothing)?;
            return Ok(Some(Found::Other));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut content = HostFile::new(directory, name, &stat);
        if let Some(rewrite) = self.rewrite {
            if size > REWRITTEN_BYTES_MAX {
                walk.skip(&path, "it is too large to be cleaned of secrets");
                return Ok(Some(Found::Other));
            }
            let mut bytes = Vec::new();
            if let Err(error) = content.read_to_end(&mut bytes) {
                let cause = match content.failure() {
                    Some(Failure::Vanished) => {
                        walk.warnings().push(|| format!("`{path}` vanished"));
                        self.links.remove(&FileId::of(&stat));
                        return Ok(None);
                    }
                    Some(Failure::Refused(cause)) => cause,
                    None => error,
                };
                return Err(unreadable("read", &self.shown_path(Some(inner)), cause));
            }
            let bytes = rewrite(bytes);
            let size = bytes.len() as u64;
            walk.entry(&entry(Kind::File { size }), &mut Bytes(&bytes))?;
            return Ok(Some(Found::Other));
        }
        if let Err(error) = walk.entry(&entry(Kind::File { size }), &mut content) {
            return match content.failure() {
                Some(Failure::Vanished) => {
                    walk.vanished(&path);
                    self.links.remove(&FileId::of(&stat));
                    Ok(None)
                }
                Some(Failure::Refused(cause)) => {
                    Err(unreadable("read", &self.shown_path(Some(inner)), cause))
                }
                None => Err(error),
            };
        }
        if content.changed() {
            walk.warnings().push(|| format!("`{path}` changed while it was read"));
        }
        Ok(Some(Found::Other))
    }

    /// Opens a directory of the tree; `None` if it is there no more.
    fn descend(&self, directory: Option<&RelPath>) -> Result<Option<OwnedFd>> {
        let path = directory.map_or(&b"."[..], RelPath::as_bytes);
        match open_beneath(self.fd.as_fd(), path, OFlags::DIRECTORY) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(unreadable("open", &self.shown_path(directory), errno.into())),
        }
    }

    /// A path within as a path of the seed.
    fn outer(&self, inner: &RelPath) -> Result<RelPath> {
        let Some(prefix) = &self.prefix else { return Ok(inner.clone()) };
        RelPath::new([prefix.as_bytes(), b"/", inner.as_bytes()].concat()).map_err(|bad| {
            let shown = self.shown_path(Some(inner));
            Error::new(ErrorKind::InvalidInput, format!("cannot seed {}", shown.display()))
                .because(bad)
        })
    }

    /// A path within as one of the host, for messages.
    fn shown_path(&self, inner: Option<&RelPath>) -> PathBuf {
        inner.map_or_else(
            || self.path.clone(),
            |inner| self.path.join(std::ffi::OsStr::from_bytes(inner.as_bytes())),
        )
    }
}

/// What an entry turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Directory,
    Other,
}

/// Opens something beneath a directory for reading, through no symbolic link.
pub fn open_beneath(top: BorrowedFd<'_>, path: &[u8], more: OFlags) -> Result<OwnedFd, Errno> {
    // A FIFO must not keep anybody waiting.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | more;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(top, path, flags, Mode::empty(), resolve) {
            // Something was renamed meanwhile.
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
}

/// The names in an open directory, sorted; `None` if they are too many.
fn list(directory: BorrowedFd<'_>) -> Result<Option<Vec<CString>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        if names.len() as u64 > ENTRIES_MAX {
            return Ok(None);
        }
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(Some(names))
}

fn mode(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

fn mtime(stat: &Stat) -> Mtime {
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Mtime { secs: stat.st_mtime, nanos }
}

fn refused(action: &str, path: &Path, errno: Errno) -> Error {
    Error::io(format!("cannot {action} {}", path.display()), errno.into())
}

fn unreadable(action: &str, path: &Path, cause: io::Error) -> Error {
    Error::io(format!("cannot {action} {}", path.display()), cause)
        .hint("make it readable, or leave it out of the seed")
}
