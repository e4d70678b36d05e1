//! A tree of the host's, made of a checked stream.
//!
//! Everything is reached from one descriptor, through no link. Directories can
//! be written by their owner until all that is in them is there; only then they
//! get their own mode and time. One that its owner cannot pass gets its mode at
//! the very end: a later hard link may be to what is in it.

use super::staging::ITEM;
use super::stream::{Sink, parent};
use crate::disk::room::{Room, STEP};
use crate::error::{Error, ErrorKind, Result};
use pyro_protocol::export::{ExportEntry, ExportKind};
use pyro_protocol::file::FileTime;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, fchmod,
    futimens, linkat, mkdirat, openat, openat2, statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// How much memory the paths of directories without passage may take: more than
/// any honest tree has of them.
const CLOSED_BYTES_MAX: usize = 64 << 20;

/// Set-user-id and set-group-id bits stay in the guest: they would be the
/// caller's here.
const MODE_KEPT: u32 = 0o1777;

/// A tree in the making.
pub(super) struct Tree<'a> {
    top: BorrowedFd<'a>,
    room: Room<'a>,
    /// The directory of the last entry, by its path.
    within: (Vec<u8>, OwnedFd),
    /// The directories that are not complete, outermost first.
    open: Vec<ExportEntry>,
    /// Those that are complete but for a mode that lets nobody pass: path and
    /// mode, innermost first.
    closed: Vec<(Vec<u8>, Mode)>,
    /// How long those paths are in all.
    closed_bytes: usize,
    file: Option<(File, ExportEntry)>,
    /// Where in the file the next bytes go.
    at: u64,
    /// Up to where the file is on its way to the disk.
    flushed: u64,
}

impl<'a> Tree<'a> {
    pub(super) fn new(top: BorrowedFd<'a>, room: Room<'a>) -> Result<Self> {
        let itself = top.try_clone_to_owned().map_err(|error| refused(&[], error))?;
        let within = (Vec::new(), itself);
        let (open, closed, closed_bytes) = (Vec::new(), Vec::new(), 0);
        Ok(Self { top, room, within, open, closed, closed_bytes, file: None, at: 0, flushed: 0 })
    }

    /// Completes the directories.
    pub(super) fn finish(mut self) -> Result<()> {
        self.leave(None)?;
        for (path, mode) in &self.closed {
            let opened = self.reach(&staged(path), OFlags::RDONLY | OFlags::DIRECTORY);
            let done = opened.and_then(|directory| fchmod(&directory, *mode));
            done.map_err(|errno| refused(path, errno.into()))?;
        }
        Ok(())
    }

    /// The directory that an entry is in, and its name there.
    fn place(&mut self, path: &[u8]) -> Result<(BorrowedFd<'_>, Vec<u8>)> {
        if path.is_empty() {
            return Ok((self.top, ITEM.into()));
        }
        let staged = staged(parent(path));
        if self.within.0 != staged {
            let opened = self.reach(&staged, OFlags::PATH | OFlags::DIRECTORY);
            self.within = (staged, opened.map_err(|errno| refused(path, errno.into()))?);
        }
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        Ok((self.within.1.as_fd(), name.to_vec()))
    }

    fn reach(&self, staged: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let within =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        loop {
            match openat2(self.top, staged, flags, Mode::empty(), within) {
                // Something was renamed, elsewhere; nothing is in here.
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return opened,
            }
        }
    }

    /// Completes the directories that nothing more comes into.
    fn leave(&mut self, next: Option<&[u8]>) -> Result<()> {
        let is_left = |open: &ExportEntry| {
            let path = open.path.0.as_slice();
            let below = next.and_then(|next| next.strip_prefix(path));
            !below.is_some_and(|rest| path.is_empty() || rest.starts_with(b"/"))
        };
        while self.open.last().is_some_and(is_left) {
            let Some(entry) = self.open.pop() else { break };
            let path = &entry.path.0;
            let opened = self.reach(&staged(path), OFlags::RDONLY | OFlags::DIRECTORY);
            let passable = mode(&entry).contains(Mode::XUSR);
            let done = opened.and_then(|directory| {
                futimens(&directory, &times(entry.modified))?;
                if passable { fchmod(&directory, mode(&entry)) } else { Ok(()) }
            });
            done.map_err(|errno| refused(path, errno.into()))?;
            if !passable {
                self.close_later(entry)?;
            }
        }
        Ok(())
    }

    fn close_later(&mut self, entry: ExportEntry) -> Result<()> {
        self.closed_bytes += entry.path.0.len();
        if self.closed_bytes > CLOSED_BYTES_MAX {
            let message = "the export has too many directories that nobody may enter";
            return Err(Error::new(ErrorKind::InvalidInput, message).hint("export a part of it"));
        }
        let mode = mode(&entry);
        self.closed.push((entry.path.0, mode));
        Ok(())
    }

    fn link(&mut self, path: &[u8], first: &[u8]) -> Result<(), Errno> {
        let source = self.reach(&staged(parent(first)), OFlags::PATH | OFlags::DIRECTORY)?;
        let name = first.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let stat = statat(&source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::PERM);
        }
        let (directory, target) = self.place(path).map_err(|_| Errno::NOENT)?;
        linkat(&source, name, directory, target.as_slice(), AtFlags::empty())
    }

    /// What was written of the file is off to the disk now and then, so that it
    /// need not all go at the end.
    fn flush(&mut self) {
        if self.at - self.flushed < STEP {
            return;
        }
        if let Some((file, _)) = &self.file {
            let (from, length) =
                (self.flushed.cast_signed(), (self.at - self.flushed).cast_signed());
            // SAFETY: the call takes an open descriptor and numbers. That it may
            // fail is no harm: everything is written out at the end.
            unsafe {
                libc::sync_file_range(file.as_raw_fd(), from, length, libc::SYNC_FILE_RANGE_WRITE)
            };
        }
        self.flushed = self.at;
    }
}

impl Sink for Tree<'_> {
    fn entry(&mut self, entry: &ExportEntry) -> Result<()> {
        let path = entry.path.0.as_slice();
        self.room.made()?;
        self.leave(Some(path))?;
        let said = |errno: Errno| refused(path, errno.into());
        match &entry.kind {
            ExportKind::Directory => {
                let (directory, name) = self.place(path)?;
                mkdirat(directory, name.as_slice(), Mode::RWXU).map_err(said)?;
                self.open.push(entry.clone());
            }
            ExportKind::Symlink(target) => {
                let (directory, name) = self.place(path)?;
                let name = name.as_slice();
                symlinkat(target.0.as_slice(), directory, name).map_err(said)?;
                utimensat(directory, name, &times(entry.modified), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(said)?;
            }
            ExportKind::HardLink(first) => self.link(path, &first.0).map_err(said)?,
            ExportKind::File { .. } => {
                let flags = OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::WRONLY
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let (directory, name) = self.place(path)?;
                let file = openat(directory, name.as_slice(), flags, Mode::RUSR | Mode::WUSR)
                    .map_err(said)?;
                self.file = Some((file.into(), entry.clone()));
                (self.at, self.flushed) = (0, 0);
            }
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let Some((file, entry)) = &mut self.file else { return Err(no_file()) };
        file.write_all(bytes).map_err(|error| refused(&entry.path.0, error))?;
        self.at += bytes.len() as u64;
        self.flush();
        self.room.wrote(bytes.len() as u64)
    }

    fn hole(&mut self, length: u64) -> Result<()> {
        let Some((file, entry)) = &mut self.file else { return Err(no_file()) };
        self.at = self.at.saturating_add(length);
        self.flushed = self.at;
        file.seek(SeekFrom::Start(self.at)).map_err(|error| refused(&entry.path.0, error))?;
        Ok(())
    }

    fn end(&mut self, _: u64) -> Result<()> {
        let Some((file, entry)) = self.file.take() else { return Err(no_file()) };
        let done = || -> io::Result<()> {
            // What ends in a hole ends there too.
            file.set_len(self.at)?;
            fchmod(&file, mode(&entry))?;
            Ok(futimens(&file, &times(entry.modified))?)
        };
        done().map_err(|error| refused(&entry.path.0, error))
    }
}

/// A path of the export below the staging directory.
fn staged(path: &[u8]) -> Vec<u8> {
    match path.is_empty() {
        true => ITEM.into(),
        false => [ITEM.as_bytes(), b"/", path].concat(),
    }
}

fn mode(entry: &ExportEntry) -> Mode {
    Mode::from_raw_mode(entry.mode & MODE_KEPT)
}

fn times(time: FileTime) -> Timestamps {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: omit, last_modification: time }
}

fn refused(path: &[u8], error: io::Error) -> Error {
    let path = crate::guest_text::escaped(&String::from_utf8_lossy(path), 200);
    let what = if path.is_empty() { "the export".to_owned() } else { format!("{path:?}") };
    Error::io(format!("cannot write {what} on the host"), error)
}

fn no_file() -> Error {
    Error::new(ErrorKind::Internal, "a content of no file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::room::Taker;
    use crate::disk::room::tests::room_for;
    use pyro_protocol::ByteString;
    use std::cell::Cell;
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn entry(path: &str, mode: u32, kind: ExportKind) -> ExportEntry {
        let modified = FileTime { seconds: 5, nanoseconds: 5 };
        ExportEntry { path: ByteString(path.into()), mode, modified, kind, attributes: None }
    }

    #[test]
    fn s4_room_is_looked_at_across_files() {
        let home = tempfile::tempdir().expect("a directory");
        let top = File::open(home.path()).expect("there");
        let looks = Cell::new(4);
        let mut tree = Tree::new(top.as_fd(), room_for(&looks)).expect("begun");
        tree.entry(&entry("", 0o755, ExportKind::Directory)).expect("made");
        let content = vec![7; 1 << 20];
        let size_bytes = content.len() as u64;
        let mut one = |number: u32| {
            tree.entry(&entry(&format!("{number:09}"), 0o644, ExportKind::File { size_bytes }))?;
            tree.bytes(&content)?;
            tree.end(0)
        };
        let full = (0..100).find(|number| one(*number).is_err());
        assert!(full.is_some_and(|number| number < 30), "{full:?}");
    }

    #[test]
    fn r6_a_link_to_what_lies_in_a_closed_directory() {
        let home = tempfile::tempdir().expect("a directory");
        let top = File::open(home.path()).expect("there");
        let mut tree = Tree::new(top.as_fd(), Room::of(top.as_fd(), Taker::Export).expect("room"))
            .expect("begun");
        let file = ExportKind::File { size_bytes: 0 };
        tree.entry(&entry("", 0o555, ExportKind::Directory)).expect("made");
        tree.entry(&entry("a", 0o000, ExportKind::Directory)).expect("made");
        tree.entry(&entry("a/b", 0o200, ExportKind::Directory)).expect("made");
        tree.entry(&entry("a/b/file", 0o644, file)).expect("made");
        tree.end(0).expect("complete");
        let link = ExportKind::HardLink(ByteString(b"a/b/file".to_vec()));
        tree.entry(&entry("link", 0o644, link)).expect("linked");
        let mode = |path: &str| home.path().join(path).metadata().expect("there").mode() & 0o7777;
        // Who is not root could not pass it otherwise.
        assert_eq!(mode("item/a"), 0o700);
        tree.finish().expect("complete");
        assert_eq!((mode("item"), mode("item/a")), (0o555, 0o000));
        assert_eq!(home.path().join("item/a").metadata().expect("there").mtime(), 5);
        let all = fs::Permissions::from_mode(0o700);
        fs::set_permissions(home.path().join("item/a"), all).expect("opened");
        assert_eq!(mode("item/a/b"), 0o200);
    }
}
