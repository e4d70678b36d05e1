//! Room on the disk that a commit can fall back on: once it has been decided,
//! its renames must not fail because a program has filled the disk.

use super::step::Step;
use crate::beneath;
use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, ftruncate, openat};
use rustix::io::Errno;
use std::os::fd::{BorrowedFd, OwnedFd};

/// For the few blocks that any commit takes.
const LEAST: u64 = 256 * 1024;

/// A block: of a new directory, or of attributes that do not fit into an inode.
const BLOCK: u64 = 4096;

/// What ext4 puts before a name in a directory, and rounds it up by.
const ENTRY_HEAD: u64 = 12;

/// What a step may take at the very most. What the overlay copies for it was
/// copied when it was written down.
pub(super) fn room(step: &Step) -> u64 {
    let (_, name) = beneath::split(step.path());
    // Twice: a block that is full is split into two that are half empty.
    let entry = 2 * (name.len() as u64 + ENTRY_HEAD);
    match step {
        Step::MakeDirectory { .. } | Step::RemoveTree { .. } => entry + 2 * BLOCK,
        Step::Put { .. } | Step::Unlink { .. } | Step::Prune { .. } => entry,
        Step::SetMode { .. } | Step::SetModified { .. } => 0,
    }
}

pub(super) struct Ballast<'a> {
    private: BorrowedFd<'a>,
    name: &'a str,
}

impl<'a> Ballast<'a> {
    pub(super) fn named(private: BorrowedFd<'a>, name: &'a str) -> Self {
        Self { private, name }
    }

    /// Takes so much room.
    pub(super) fn take(&self, room: u64) -> rustix::io::Result<()> {
        let room = room.saturating_add(LEAST);
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
