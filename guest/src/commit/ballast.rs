//! Room on the disk that a commit can fall back on: once it has been decided,
//! its renames must not fail because a program has filled the disk.

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, ftruncate, openat};
use rustix::io::Errno;
use std::os::fd::{BorrowedFd, OwnedFd};

/// What one step may take at the very most: a new block in a directory, the
/// directory's own copy in the upper layer, and what leads to them.
const PER_STEP: u64 = 16 * 1024;

/// For the few blocks that any commit takes.
const LEAST: u64 = 256 * 1024;

/// Steps share directories; more than this is never needed.
const MOST: u64 = 64 * 1024 * 1024;

pub(super) struct Ballast<'a> {
    private: BorrowedFd<'a>,
    name: &'a str,
}

impl<'a> Ballast<'a> {
    pub(super) fn named(private: BorrowedFd<'a>, name: &'a str) -> Self {
        Self { private, name }
    }

    /// Takes the room that so many steps may need.
    pub(super) fn take(&self, steps: u64) -> rustix::io::Result<()> {
        let room = steps.saturating_mul(PER_STEP).clamp(LEAST, MOST);
        let file = self.open(OFlags::CREATE)?;
        match fallocate(&file, FallocateFlags::empty(), 0, room) {
            // A file system without the call; a test's.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            taken => taken,
        }
    }

    /// Gives the room back; whether there was any.
    pub(super) fn drop_it(&mut self) -> bool {
        let emptied = self.open(OFlags::empty()).and_then(|file| {
            let had_some = rustix::fs::fstat(&file)?.st_size > 0;
            ftruncate(&file, 0)?;
            Ok(had_some)
        });
        emptied.unwrap_or(false)
    }

    fn open(&self, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        openat(self.private, self.name, flags, Mode::RUSR | Mode::WUSR)
    }
}
