//! The whole tree, copied to a file system of its own: every type of file, every
//! name of one, holes, owners, modes, times and extended attributes.

#[cfg(test)]
mod tests;

use crate::device::await_node;
use crate::file::fault::refused;
use crate::file::root::NOFOLLOW;
use crate::file::status;
use crate::work::{Cancel, Stop};
use crate::{beneath, xattr};
use pyro_protocol::file::FileType;
use pyro_protocol::inspect::{CopyEnd, CopyProgress};
use pyro_protocol::piece::PieceSink;
use pyro_protocol::transfer::Outgoing;
use pyro_protocol::{AgentError, AgentErrorKind};
use rustix::fs::{
    AtFlags, Dir, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, chmodat, chownat,
    fstat, ftruncate, linkat, lsetxattr, mkdirat, mknodat, openat, readlinkat, seek, statat,
    symlinkat, syncfs, unlinkat, utimensat,
};
use rustix::io::{Errno, pread, pwrite};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// The disk to copy to.
const DEVICE: &str = "/dev/vdd";

const DEVICE_DEADLINE: Duration = Duration::from_secs(10);

/// Where it is mounted meanwhile.
const AT: &str = "/run/pyro/copy";

/// Nothing in the background: what is not written stays a hole of the host's.
const OPTIONS: &CStr = c"noinit_itable,nodiscard,errors=remount-ro";

/// Directories within one another that are entered: each takes descriptors.
const DEPTH_MAX: usize = 1000;

/// What is read at a time.
const BUFFER: usize = 1 << 20;

/// How much is copied before it is told, and written out, so that the end does
/// not take long.
const STEP: u64 = 32 << 20;

/// And how many names.
const STEP_ENTRIES: u64 = 2000;

/// What attributes are worth nothing elsewhere: marks of an overlay of overlays.
const MARKS: &[u8] = b"trusted.overlay.";

/// The file system on the disk, until it is finished.
#[derive(Debug)]
pub(super) struct Mounted {
    top: OwnedFd,
}

impl Mounted {
    pub(super) fn new() -> io::Result<Self> {
        await_node(Path::new(DEVICE), DEVICE_DEADLINE)?;
        std::fs::create_dir_all(AT)?;
        mount(DEVICE, AT, "ext4", MountFlags::NOATIME, Some(OPTIONS))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::open(AT, flags, Mode::empty()).inspect_err(|_| {
            // The guest has no other use for it.
            let _ = unmount(AT, UnmountFlags::DETACH);
        })?;
        Ok(Self { top })
    }

    pub(super) fn top(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }

    /// Writes everything out, and leaves it as it is to be found.
    pub(super) fn finish(self) -> Result<(), AgentError> {
        syncfs(&self.top).map_err(unwritten)?;
        drop(self.top);
        unmount(AT, UnmountFlags::empty()).map_err(unwritten)?;
        // What unmounting wrote, and could not write, only the device tells.
        let device = File::open(DEVICE).and_then(|device| device.sync_all());
        device.map_err(|error| unwritten(Errno::from_io_error(&error).unwrap_or(Errno::IO)))
    }
}

/// What a copy is made in.
pub(super) struct Target<'a> {
    top: BorrowedFd<'a>,
    /// Has a name for each file that has several, by its device and inode.
    links: OwnedFd,
    links_name: String,
    outgoing: &'a mut Outgoing,
    cancel: &'a Cancel,
    buffer: Vec<u8>,
    /// Of the entry at hand, for errors.
    path: Vec<u8>,
    end: CopyEnd,
    told: CopyProgress,
}

/// A directory that is being copied.
struct Level {
    source: OwnedFd,
    entries: Dir,
    target: OwnedFd,
    /// The length of the path before its name.
    path: usize,
}

impl<'a> Target<'a> {
    pub(super) fn new(
        top: BorrowedFd<'a>,
        outgoing: &'a mut Outgoing,
        cancel: &'a Cancel,
    ) -> Result<Self, AgentError> {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(unwritten)?;
        // A name that nobody has chosen.
        let links_name = format!(".pyro-links-{:016x}", u64::from_le_bytes(random));
        mkdirat(top, links_name.as_str(), Mode::RWXU).map_err(unwritten)?;
        let links = beneath::directory(top, links_name.as_bytes()).map_err(unwritten)?;
        let end = CopyEnd { entries: 0, bytes: 0, too_deep: 0 };
        let (buffer, path, told) = (vec![0; BUFFER], Vec::new(), CopyProgress::default());
        Ok(Self { top, links, links_name, outgoing, cancel, buffer, path, end, told })
    }

    /// Copies all of a tree.
    pub(super) fn take(mut self, source: BorrowedFd<'_>) -> Result<CopyEnd, Stop> {
        let source = openat(source, c".", DIRECTORY, Mode::empty()).map_err(|e| self.unread(e))?;
        let target = openat(self.top, c".", DIRECTORY, Mode::empty()).map_err(unwritten)?;
        self.end.entries += 1;
        let mut levels = vec![self.level(source, target)?];
        while let Some(level) = levels.last_mut() {
            let Some(entry) = level.entries.next() else {
                self.leave(level)?;
                self.path.truncate(level.path);
                levels.pop();
                continue;
            };
            let entry = entry.map_err(|errno| self.unread(errno))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.tell()?;
            let before = self.path.len();
            self.path.push(b'/');
            self.path.extend_from_slice(name.to_bytes());
            let entered = self.entry(level, name)?;
            match entered {
                Some(_) if levels.len() >= DEPTH_MAX => self.end.too_deep += 1,
                Some((source, target)) => {
                    let path = before;
                    levels.push(Level { path, ..self.level(source, target)? });
                    continue;
                }
                None => {}
            }
            self.path.truncate(before);
        }
        self.clear_links()?;
        Ok(self.end)
    }

    fn level(&self, source: OwnedFd, target: OwnedFd) -> Result<Level, AgentError> {
        let entries = Dir::read_from(&source).map_err(|errno| self.unread(errno))?;
        Ok(Level { source, entries, target, path: 0 })
    }

    /// A directory gets what is noted of it when nothing more comes into it.
    fn leave(&self, level: &Level) -> Result<(), AgentError> {
        let stat = fstat(&level.source).map_err(|errno| self.unread(errno))?;
        self.note(level.source.as_fd(), c".", level.target.as_fd(), c".", &stat)
    }

    /// Copies what has a name; gives a directory with its copy.
    fn entry(&mut self, level: &Level, name: &CStr) -> Result<Option<(OwnedFd, OwnedFd)>, Stop> {
        let (source, target) = (level.source.as_fd(), level.target.as_fd());
        let stat = statat(source, name, NOFOLLOW).map_err(|errno| self.unread(errno))?;
        self.end.entries += 1;
        match status::file_type(&stat) {
            FileType::Directory => {
                match mkdirat(target, name, Mode::RWXU) {
                    // That of every file system of this kind.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(unwritten(errno).into()),
                }
                let from = openat(source, name, DIRECTORY, Mode::empty());
                let to = openat(target, name, DIRECTORY, Mode::empty()).map_err(unwritten)?;
                return Ok(Some((from.map_err(|errno| self.unread(errno))?, to)));
            }
            FileType::File => {
                let link = (stat.st_nlink > 1).then(|| format!("{}-{}", stat.st_dev, stat.st_ino));
                if let Some(link) = &link {
                    match linkat(&self.links, link.as_str(), target, name, AtFlags::empty()) {
                        Ok(()) => return Ok(None),
                        // The first name, or one too many for the new file system.
                        Err(Errno::NOENT | Errno::MLINK) => {}
                        Err(errno) => return Err(unwritten(errno).into()),
                    }
                }
                self.file(source, target, name, &stat)?;
                self.note(source, name, target, name, &stat)?;
                if let Some(link) = link {
                    match linkat(target, name, &self.links, link.as_str(), AtFlags::empty()) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(unwritten(errno).into()),
                    }
                }
                return Ok(None);
            }
            FileType::Symlink => {
                let to = readlinkat(source, name, Vec::new()).map_err(|e| self.unread(e))?;
                symlinkat(to.as_c_str(), target, name).map_err(unwritten)?;
            }
            FileType::Fifo | FileType::Socket | FileType::Device => {
                let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
                mknodat(target, name, kind, Mode::RUSR, stat.st_rdev).map_err(unwritten)?;
            }
        }
        self.note(source, name, target, name, &stat)?;
        Ok(None)
    }

    fn file(
        &mut self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> Result<(), Stop> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = openat(source, name, flags, Mode::empty()).map_err(|e| self.unread(e))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let to = openat(target, name, flags, Mode::RUSR).map_err(unwritten)?;
        let size = status::size(stat);
        let mut at = 0;
        while at < size {
            let start = match seek(&from, SeekFrom::Data(at)) {
                Ok(start) => start.min(size),
                Err(Errno::NXIO) => break,
                Err(_) => at,
            };
            let end = seek(&from, SeekFrom::Hole(start)).unwrap_or(size).min(size);
            at = start;
            while at < end {
                let room = usize::try_from(end - at).map_or(BUFFER, |left| left.min(BUFFER));
                let length = match pread(&from, &mut self.buffer[..room], at) {
                    Ok(0) => return Err(self.unread(Errno::IO).into()),
                    Ok(length) => length,
                    Err(Errno::INTR) => continue,
                    Err(errno) => return Err(self.unread(errno).into()),
                };
                write_all(&to, &self.buffer[..length], at).map_err(unwritten)?;
                at += length as u64;
                self.end.bytes += length as u64;
                self.tell()?;
            }
        }
        Ok(ftruncate(&to, size).map_err(unwritten)?)
    }

    /// What is noted of something beside its content. Owners first: a change of
    /// them takes modes and capabilities away.
    fn note(
        &self,
        source: BorrowedFd<'_>,
        name: &CStr,
        target: BorrowedFd<'_>,
        target_name: &CStr,
        stat: &Stat,
    ) -> Result<(), AgentError> {
        let (user, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        chownat(target, target_name, Some(user), Some(group), NOFOLLOW).map_err(unwritten)?;
        let [from, to] = [(source, name), (target, target_name)].map(|(directory, name)| {
            let directory = format!("/proc/self/fd/{}/", directory.as_raw_fd());
            [directory.as_bytes(), name.to_bytes()].concat()
        });
        for attribute in xattr::names(&from).map_err(|errno| self.unread(errno))? {
            if attribute.starts_with(MARKS) {
                continue;
            }
            let value = xattr::value(&from, &attribute).map_err(|errno| self.unread(errno))?;
            if let Some(value) = value {
                let flags = rustix::fs::XattrFlags::empty();
                lsetxattr(to.as_slice(), attribute.as_slice(), &value, flags).map_err(unwritten)?;
            }
        }
        if status::file_type(stat) != FileType::Symlink {
            let mode = Mode::from_raw_mode(status::mode(stat));
            chmodat(target, target_name, mode, AtFlags::empty()).map_err(unwritten)?;
        }
        let times = Timestamps {
            last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
            last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
        };
        utimensat(target, target_name, &times, NOFOLLOW).map_err(unwritten)
    }

    /// Tells now and then how far it is.
    fn tell(&mut self) -> Result<(), Stop> {
        let CopyEnd { entries, bytes, .. } = self.end;
        let is_far = bytes - self.told.bytes >= STEP || entries - self.told.entries >= STEP_ENTRIES;
        if !is_far {
            return Ok(());
        }
        self.cancel.check()?;
        syncfs(self.top).map_err(unwritten)?;
        self.told = CopyProgress { entries, bytes };
        self.outgoing.entry(&self.told)?;
        Ok(self.outgoing.flush()?)
    }

    fn clear_links(&self) -> Result<(), AgentError> {
        for entry in Dir::read_from(&self.links).map_err(unwritten)? {
            let entry = entry.map_err(unwritten)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                unlinkat(&self.links, entry.file_name(), AtFlags::empty()).map_err(unwritten)?;
            }
        }
        let times = fstat(self.top).map_err(unwritten)?;
        unlinkat(self.top, self.links_name.as_str(), AtFlags::REMOVEDIR).map_err(unwritten)?;
        // Removing it has touched the top once more.
        let time = |tv_sec, nanoseconds: u64| Timespec { tv_sec, tv_nsec: nanoseconds as _ };
        let times = Timestamps {
            last_access: time(times.st_atime, times.st_atime_nsec as u64),
            last_modification: time(times.st_mtime, times.st_mtime_nsec as u64),
        };
        utimensat(self.top, c".", &times, NOFOLLOW).map_err(unwritten)
    }

    fn unread(&self, errno: Errno) -> AgentError {
        let path: &[u8] = if self.path.is_empty() { b"/" } else { &self.path };
        refused(String::from_utf8_lossy(path), errno)
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn write_all(to: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match pwrite(to, bytes, at) {
            Ok(length) => {
                bytes = &bytes[length..];
                at += length as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The copy cannot be written: the host's disk is full, more often than not.
fn unwritten(errno: Errno) -> AgentError {
    let kind = match errno {
        Errno::NOSPC => AgentErrorKind::OutOfResources,
        _ => AgentErrorKind::System,
    };
    AgentError::new(kind, format!("the copy cannot be written: {}", io::Error::from(errno)))
}
