//! A commit, from its first staged file to its last step.

use super::apply::{self, Round};
use super::ballast::{self, Ballast};
use super::{
    CommitError, Commits, FSYNCS_MAX, STEPS_MAX, Slot, Stage, Step, journal, staging, step,
    unfinished,
};
use crate::beneath;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Timespec, fsync, openat, renameat, symlinkat,
};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A commit in the making. Dropping it undoes everything.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(super) commits: Arc<Commits>,
    pub(super) id: String,
    pub(super) staging: OwnedFd,
    pub(super) journal: BufWriter<File>,
    pub(super) staged: u64,
    pub(super) steps: u64,
    /// What the steps may take on the disk, in bytes.
    pub(super) room: u64,
    /// The directory that the last step changed.
    pub(super) prepared: Option<Vec<u8>>,
}

impl Commit {
    /// A new, empty file to be put somewhere: mode 0600, whatever is wanted is
    /// set through the file.
    pub(crate) fn stage_file(&mut self) -> io::Result<(Slot, File)> {
        self.stage(|staging, name| {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
            openat(staging, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
        })
    }

    /// A file that was staged, to be read from its beginning.
    pub(crate) fn staged_file(&self, slot: Slot) -> io::Result<File> {
        Ok(File::from(beneath::open(&self.staging, slot.name().as_bytes(), OFlags::RDONLY)?))
    }

    /// A new symbolic link to be put somewhere, and when it was made.
    pub(crate) fn stage_link(
        &mut self,
        target: &[u8],
        modified: Option<Timespec>,
    ) -> io::Result<Slot> {
        let (slot, ()) = self.stage(|staging, name| {
            symlinkat(target, staging, name)?;
            modified.map_or(Ok(()), |time| apply::set_modified(staging, name, time))
        })?;
        Ok(slot)
    }

    /// A new file that is the same as one staged before, under one more name.
    pub(crate) fn stage_hard_link(&mut self, of: Slot) -> io::Result<Slot> {
        let (slot, ()) = self.stage(|staging, name| {
            rustix::fs::linkat(staging, of.name(), staging, name, AtFlags::empty())
        })?;
        Ok(slot)
    }

    /// A file of the tree, under one more name.
    pub(crate) fn stage_existing(&mut self, path: &[u8]) -> io::Result<Slot> {
        let (parent, existing) = beneath::parent(&self.commits.tree, path)?;
        let (slot, ()) = self.stage(|staging, name| {
            rustix::fs::linkat(&parent, existing, staging, name, AtFlags::empty())
        })?;
        Ok(slot)
    }

    fn stage<T>(
        &mut self,
        make: impl FnOnce(BorrowedFd<'_>, &str) -> rustix::io::Result<T>,
    ) -> io::Result<(Slot, T)> {
        let slot = Slot(self.staged);
        let made = make(self.staging.as_fd(), &slot.name())?;
        self.staged += 1;
        Ok((slot, made))
    }

    /// Adds what is to be done next. What the overlay has to copy for it is
    /// copied already, while there is a way back.
    pub(crate) fn step(&mut self, step: &Step) -> io::Result<()> {
        beneath::check(step.path())?;
        if self.steps >= STEPS_MAX {
            let text = format!("more than {STEPS_MAX} changes at once");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.prepare(step)?;
        self.steps += 1;
        self.room = self.room.saturating_add(ballast::room(step));
        step.write(&mut self.journal)
    }

    /// Copies up what a step changes: directories are small, but many; files are
    /// of any size.
    fn prepare(&mut self, step: &Step) -> rustix::io::Result<()> {
        let tree = self.commits.tree();
        match step {
            Step::SetMode { path, .. } | Step::SetModified { path, .. } => {
                return apply::copy_up(tree, path, |_| true);
            }
            // One of several names that goes makes the overlay copy the file,
            // to count its others.
            Step::Put { path, .. } | Step::Unlink { path } => {
                let is_linked = |file_type, links| file_type == FileType::RegularFile && links > 1;
                apply::copy_up(tree, path, |stat| {
                    is_linked(FileType::from_raw_mode(stat.st_mode), stat.st_nlink)
                })?;
            }
            Step::RemoveTree { path } => apply::copy_up(tree, path, |_| true)?,
            Step::Prune { .. } | Step::MakeDirectory { .. } => {}
        }
        let (parent, _) = beneath::split(step.path());
        if self.prepared.as_deref() != Some(parent) {
            apply::copy_up(tree, parent, |_| true)?;
            self.prepared = Some(parent.to_vec());
        }
        Ok(())
    }

    /// Decides, and does it. After this, whatever happens, all of it is done or
    /// will be. The caller has the [turn](Commits::turn).
    pub(crate) fn run(mut self) -> Result<(), CommitError> {
        if self.steps == 0 {
            return Ok(());
        }
        self.decide().map_err(CommitError::Before)?;
        self.finish()
    }

    pub(super) fn finish(mut self) -> Result<(), CommitError> {
        let done = self.commits.carry_out(&self.id, Round::First);
        match &done {
            Ok(()) | Err(CommitError::Interfered(_)) => self.commits.retire(&self.id),
            Err(CommitError::Before(_)) => {}
            Err(CommitError::Midway(_)) => {
                // What is there is needed: nothing is to be swept.
                let id = std::mem::take(&mut self.id);
                self.commits.active().insert(id, Stage::Interrupted);
            }
        }
        done
    }

    pub(super) fn decide(&mut self) -> io::Result<()> {
        self.journal.write_all(&step::end(self.steps))?;
        self.journal.flush()?;
        if self.staged <= FSYNCS_MAX {
            self.write_out_each()?;
        } else {
            rustix::fs::syncfs(&self.staging)?;
        }
        let private = self.commits.private.as_fd();
        Ballast::named(private, &super::ballast(&self.id)).take(self.room)?;
        fsync(self.journal.get_ref())?;
        self.check_staged()?;
        renameat(private, unfinished(&self.id), private, journal(&self.id))?;
        Ok(fsync(private)?)
    }

    fn write_out_each(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        for number in 0..self.staged {
            match openat(&self.staging, Slot(number).name(), flags, Mode::empty()) {
                Ok(file) => fsync(file)?,
                // A link; it goes out with its directory.
                Err(Errno::LOOP) => {}
                Err(Errno::NOENT) => return Err(removed()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(fsync(&self.staging)?)
    }

    /// A program that removes all it finds, as `git clean` does, finds what is
    /// staged too.
    fn check_staged(&self) -> io::Result<()> {
        let there = beneath::directory(self.commits.tree(), staging(&self.id).as_bytes());
        let there = there.map_err(|_| removed())?;
        let mut left = 0;
        for entry in Dir::read_from(&there)? {
            left += u64::from(!matches!(entry?.file_name().to_bytes(), b"." | b".."));
        }
        if left == self.staged { Ok(()) } else { Err(removed()) }
    }
}

pub(super) fn removed() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "a program has removed what was staged for it")
}

impl Drop for Commit {
    fn drop(&mut self) {
        if !self.id.is_empty() {
            self.commits.sweep(&self.id);
        }
    }
}
