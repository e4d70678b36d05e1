//! Doing a journal's steps, once or again.

use super::Failed;
use super::ballast::Ballast;
use super::step::Step;
use crate::beneath;
use crate::commit::remove;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, Timestamps, UTIME_OMIT, chmodat, fstat,
    mkdirat, renameat, renameat_with, statat, unlinkat, utimensat,
};
use rustix::fs::{CWD, Timespec};
use rustix::io::Errno;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// What the steps are done with.
pub(super) struct Place<'a> {
    pub(super) tree: BorrowedFd<'a>,
    pub(super) staging: BorrowedFd<'a>,
    pub(super) ballast: Ballast<'a>,
    pub(super) round: Round,
}

/// Whether steps may have been done before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    First,
    Again,
}

/// Why not all steps were done, nor can be now.
#[derive(Debug)]
pub(super) struct Stopped {
    /// So many were, from the first.
    pub(super) done: u64,
    pub(super) error: io::Error,
}

/// Does all that is left to do. What somebody made impossible in the meantime
/// does not keep the rest from being done; the first of it is reported.
pub(super) fn all(
    journal: &mut impl Read,
    skip: u64,
    place: &mut Place<'_>,
) -> Result<Option<Failed>, Stopped> {
    let mut failed = None;
    let mut done = 0;
    while let Some(step) = Step::read(journal, done).map_err(|error| Stopped { done, error })? {
        if done >= skip {
            let mut outcome = one(&step, done, place);
            if matches!(outcome, Err(Errno::NOSPC | Errno::DQUOT)) && place.ballast.drop_it() {
                outcome = one(&step, done, place);
            }
            match outcome {
                Ok(()) => {}
                Err(error) if is_interference(error) => {
                    failed.get_or_insert_with(|| Failed::new(step.path(), error));
                }
                Err(error) => {
                    let kind = io::Error::from(error).kind();
                    let error = io::Error::new(kind, Failed::new(step.path(), error));
                    return Err(Stopped { done, error });
                }
            }
        }
        done += 1;
    }
    Ok(failed)
}

/// Whether a program has put something in the way, or taken it away, or holds on
/// to it: by what it made, mounted, or declared immutable. All else is a failure
/// of the system, which may pass.
fn is_interference(error: Errno) -> bool {
    matches!(
        error,
        Errno::NOENT
            | Errno::NOTDIR
            | Errno::LOOP
            | Errno::ISDIR
            | Errno::EXIST
            | Errno::NOTEMPTY
            | Errno::BUSY
            | Errno::XDEV
            | Errno::PERM
            | Errno::ACCESS
    )
}

fn one(step: &Step, number: u64, place: &Place<'_>) -> rustix::io::Result<()> {
    let &Place { tree, staging, round, .. } = place;
    match step {
        Step::Put { slot, path } => {
            let staged = slot.name();
            match (statat(staging, &staged, AtFlags::SYMLINK_NOFOLLOW), round) {
                (Err(Errno::NOENT), Round::Again) => return Ok(()),
                (Err(error), Round::First | Round::Again) => return Err(error),
                (Ok(_), Round::First | Round::Again) => {}
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
            beneath::parent(tree, path)
                .and_then(|(parent, name)| remove_tree(&parent, name, staging, number)),
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
                Err(Errno::EXIST) => is_directory(parent.as_fd(), name)?,
                made => made?,
            }
            // Also of one that is there: it may be ours, made right before a kill.
            set_mode(tree, path, *mode)
        }
        Step::SetMode { path, mode } => set_mode(tree, path, *mode),
        Step::SetModified { path, time } => {
            let (parent, name) = beneath::parent(tree, path)?;
            set_modified(parent.as_fd(), name, *time)
        }
    }
}

/// Takes a directory out of the tree at once, with all that is in it; it is
/// removed with what is left of the staging. To remove it where it is would take
/// a whiteout on the disk for every single name.
fn remove_tree(
    parent: impl AsFd,
    name: &[u8],
    staging: BorrowedFd<'_>,
    number: u64,
) -> rustix::io::Result<()> {
    // With the slash it is a directory, or nothing happens.
    let itself = [name, b"/"].concat();
    let aside = format!("gone-{number}");
    match renameat_with(&parent, itself, staging, aside, RenameFlags::NOREPLACE) {
        // It is a mount, or something on the overlay that cannot be renamed; or
        // there is one more since the commit was interrupted.
        Err(Errno::XDEV | Errno::BUSY | Errno::EXIST) => remove::directory(parent, name),
        moved => moved,
    }
}

/// Makes an overlay take its copy of what is there, with its content, if it is
/// to: by setting the mode that it has.
pub(super) fn copy_up(
    tree: BorrowedFd<'_>,
    path: &[u8],
    is_to: impl Fn(&Stat) -> bool,
) -> rustix::io::Result<()> {
    let opened = match beneath::open(tree, path, OFlags::PATH) {
        Ok(opened) => opened,
        // It will be there when it is its turn; or the step is going to fail.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(error) => return Err(error),
    };
    let stat = fstat(&opened)?;
    if FileType::from_raw_mode(stat.st_mode).is_symlink() || !is_to(&stat) {
        return Ok(());
    }
    match chmod_path(opened.as_fd(), Mode::from_raw_mode(stat.st_mode & 0o7777)) {
        // Immutable: the step is going to fail.
        Err(Errno::PERM) => Ok(()),
        copied => copied,
    }
}

/// Sets when something was modified, itself.
pub(super) fn set_modified(
    parent: BorrowedFd<'_>,
    name: impl rustix::path::Arg,
    time: Timespec,
) -> rustix::io::Result<()> {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access: omit, last_modification: time };
    utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
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
    match chmod_path(opened.as_fd(), Mode::from_raw_mode(mode & 0o7777)) {
        // It is a link, which has no mode.
        Err(Errno::OPNOTSUPP) => Err(Errno::LOOP),
        set => set,
    }
}

/// Sets the mode behind a descriptor that may be of O_PATH.
pub(crate) fn chmod_path(opened: BorrowedFd<'_>, mode: Mode) -> rustix::io::Result<()> {
    chmodat(CWD, format!("/proc/self/fd/{}", opened.as_raw_fd()), mode, AtFlags::empty())
}
