//! Doing a journal's steps, once or again.

use super::Failed;
use super::ballast::Ballast;
use super::step::Step;
use crate::beneath;
use crate::commit::remove;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Timestamps, UTIME_OMIT, chmodat, mkdirat, renameat, statat,
    unlinkat, utimensat,
};
use rustix::fs::{CWD, Timespec};
use rustix::io::Errno;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Does all that is left to do. What somebody made impossible in the meantime
/// does not keep the rest from being done; the first of it is reported.
pub(super) fn all(
    journal: &mut impl Read,
    tree: BorrowedFd<'_>,
    staging: BorrowedFd<'_>,
    ballast: &mut Ballast<'_>,
) -> io::Result<Option<Failed>> {
    let mut failed = None;
    let mut done = 0;
    while let Some(step) = Step::read(journal, done)? {
        done += 1;
        let mut outcome = one(&step, tree, staging);
        if outcome == Err(Errno::NOSPC) && ballast.drop_it() {
            outcome = one(&step, tree, staging);
        }
        if let Err(error) = outcome {
            failed.get_or_insert_with(|| Failed::new(step.path(), error));
        }
    }
    Ok(failed)
}

fn one(step: &Step, tree: BorrowedFd<'_>, staging: BorrowedFd<'_>) -> rustix::io::Result<()> {
    match step {
        Step::Put { slot, path } => {
            let staged = slot.name();
            match statat(staging, &staged, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            let (parent, name) = beneath::parent(tree, path)?;
            renameat(staging, &staged, &parent, name)
        }
        Step::Unlink { path } => {
            let unlinked = beneath::parent(tree, path)
                .and_then(|(parent, name)| unlinkat(&parent, name, AtFlags::empty()));
            // A directory has taken its place, by a later step.
            if unlinked == Err(Errno::ISDIR) { Ok(()) } else { absent(unlinked) }
        }
        Step::RemoveTree { path } => absent(
            beneath::parent(tree, path).and_then(|(parent, name)| remove::directory(&parent, name)),
        ),
        Step::Prune { path } => {
            let removed = beneath::parent(tree, path)
                .and_then(|(parent, name)| unlinkat(&parent, name, AtFlags::REMOVEDIR));
            match removed {
                // Something is in it, or on it.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => Ok(()),
                removed => absent(removed),
            }
        }
        Step::MakeDirectory { path, mode } => {
            let (parent, name) = beneath::parent(tree, path)?;
            match mkdirat(&parent, name, Mode::RWXU) {
                Err(Errno::EXIST) => is_directory(parent.as_fd(), name),
                Err(error) => Err(error),
                Ok(()) => set_mode(tree, path, *mode),
            }
        }
        Step::SetMode { path, mode } => set_mode(tree, path, *mode),
        Step::SetModified { path, time } => {
            let (parent, name) = beneath::parent(tree, path)?;
            let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            let times = Timestamps { last_access: omit, last_modification: *time };
            utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        }
    }
}

/// What is to go and is gone is as it should be. So is what was in a directory
/// whose place a file or link has taken, by a later step.
fn absent(removed: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match removed {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
        removed => removed,
    }
}

fn is_directory(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(()),
        FileType::RegularFile
        | FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(Errno::EXIST),
    }
}

/// chmod follows links, so what it gets is a descriptor of what is no link.
fn set_mode(tree: BorrowedFd<'_>, path: &[u8], mode: u32) -> rustix::io::Result<()> {
    let opened = beneath::open(tree, path, OFlags::PATH)?;
    chmod_path(opened.as_fd(), Mode::from_raw_mode(mode & 0o7777))
}

/// Sets the mode behind a descriptor that may be of O_PATH.
pub(crate) fn chmod_path(opened: BorrowedFd<'_>, mode: Mode) -> rustix::io::Result<()> {
    chmodat(CWD, format!("/proc/self/fd/{}", opened.as_raw_fd()), mode, AtFlags::empty())
}
