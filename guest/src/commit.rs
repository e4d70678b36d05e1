//! Changing many files of a tree at once: all of them or none, also when the
//! agent or the machine is killed midway.
//!
//! ```text
//! begin ──▶ stage files, write steps down ──▶ run: everything to disk, then
//!   │ dropped, killed: nothing has happened          │
//!   ▼                                                ▼
//! swept                        rename journal.new to journal: decided
//!                                                    │ killed: `recover` does
//!                                                    ▼         the rest
//!                              steps, one after the other ──▶ journal removed
//! ```
//!
//! Files are staged in a hidden directory at the tree's root, so that a rename
//! puts them in place. The journal is on the same disk, where no path of the
//! guest leads. Once decided a commit only goes forward: to keep what it
//! replaces would make the overlay copy every file that is to be overwritten.
//! What it builds on must be checked before [`Commit::run`]; a program that
//! changes the same paths in the instant of the renames can make single steps
//! fail, which is reported. Where the system itself fails a step, the commit
//! stops there, and is completed before anything else is changed.

mod apply;
mod ballast;
mod recovery;
pub(crate) mod remove;
mod step;
#[cfg(test)]
mod tests;

pub(crate) use step::{Slot, Step};

use crate::beneath;
use apply::Round;
use ballast::Ballast;
use pyro_protocol::{AgentError, AgentErrorKind};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Timespec, fsync, mkdirat, openat, renameat, symlinkat,
};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What every name of a staging directory begins with; sixteen hexadecimal
/// digits follow.
const STAGING: &str = ".pyro-commit-";

/// What a journal begins with; eight bytes follow that say how many of its steps
/// are not to be done again.
const MAGIC: &[u8] = b"pyro-commit-1\n";

/// Up to so many staged files are written out one by one; with more it is
/// cheaper to write out the whole file system, other people's data too.
const FSYNCS_MAX: u64 = 32;

/// The most steps of one commit: as many as leave a journal of a gigabyte with
/// the longest paths, far less in practice.
pub(crate) const STEPS_MAX: u64 = 4_000_000;

/// The commits of one tree.
#[derive(Debug)]
pub(crate) struct Commits {
    tree: OwnedFd,
    private: OwnedFd,
    active: Mutex<BTreeMap<String, Stage>>,
    turn: Mutex<()>,
    /// How many are about to be done, or are being done.
    pending: watch::Sender<usize>,
}

/// How far a commit has come that is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not decided; or done, and being swept.
    Making,
    /// Decided, and stopped midway.
    Interrupted,
}

/// A commit in the making. Dropping it undoes everything.
#[derive(Debug)]
pub(crate) struct Commit {
    commits: Arc<Commits>,
    id: String,
    staging: OwnedFd,
    journal: BufWriter<File>,
    staged: u64,
    steps: u64,
    /// What the steps may take on the disk, in bytes.
    room: u64,
    /// The directory that the last step changed.
    prepared: Option<Vec<u8>>,
}

/// A step that could not be done.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", String::from_utf8_lossy(path))]
pub(crate) struct Failed {
    path: Vec<u8>,
    error: io::Error,
}

/// Why a commit did not happen, or not as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// Nothing was changed.
    #[error("nothing was changed")]
    Before(#[source] io::Error),
    /// All but this was changed, and perhaps more that it stands for.
    #[error("a program changed the same files in the same moment; the rest is done")]
    Interfered(#[source] Failed),
    /// What was begun will be completed before anything else is changed.
    #[error(
        "the change was interrupted midway; the next one, or the next start, completes it first"
    )]
    Midway(#[source] io::Error),
}

/// See [`Commits::pend`].
pub(crate) struct Pending<'commits>(&'commits watch::Sender<usize>);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Commits {
    /// Commits to `tree`, with their journals in `private`, a directory of the
    /// same disk that is for nothing else.
    pub(crate) fn new(tree: OwnedFd, private: OwnedFd) -> Arc<Self> {
        let (active, turn) = (Mutex::default(), Mutex::default());
        Arc::new(Self { tree, private, active, turn, pending: watch::Sender::new(0) })
    }

    /// The tree.
    pub(crate) fn tree(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }

    /// A place for what a call spools, on the same disk and out of everybody's
    /// sight: a file without a name.
    pub(crate) fn spool(&self) -> io::Result<File> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.private, ".", flags, Mode::RUSR | Mode::WUSR)?))
    }

    /// Waits until no other call is between reading the tree and committing
    /// what it makes of it. Completes first what was interrupted: whatever comes
    /// after would be undone by completing it later.
    pub(crate) fn turn(&self) -> Result<MutexGuard<'_, ()>, AgentError> {
        // It guards no data, so there is none to be half written.
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.complete().map_err(|error| {
            let error = AgentError::from(error);
            let text = format!("completing a change that was interrupted: {}", error.message);
            AgentError::new(error.kind, text)
        })?;
        Ok(turn)
    }

    /// Says that a commit is about to be done, until this is dropped.
    pub(crate) fn pend(&self) -> Pending<'_> {
        self.pending.send_modify(|count| *count += 1);
        Pending(&self.pending)
    }

    /// Waits until none is: who starts now sees the tree before or after one,
    /// not one that is being made.
    pub(crate) async fn settled(&self) {
        // The sender lives as long as `self`.
        drop(self.pending.subscribe().wait_for(|count| *count == 0).await);
    }

    /// Whether a name at the tree's root is a commit's in the making, which
    /// nobody is to see. A program's directory is not, whatever its name.
    pub(crate) fn is_staging(&self, name: &[u8]) -> bool {
        name.starts_with(STAGING.as_bytes())
            && self.active().keys().any(|id| name[STAGING.len()..] == *id.as_bytes())
    }

    /// Begins one. Names what it stages by an id that is written down first, so
    /// that no staging directory is ever left that nobody knows of.
    pub(crate) fn begin(self: &Arc<Self>) -> io::Result<Commit> {
        let id = fresh_id()?;
        let name = staging(&id);
        self.begin_in(&self.tree, id, &name)
    }

    /// Begins one that is only staged and never run: nothing of it is in the
    /// tree.
    pub(crate) fn rehearse(self: &Arc<Self>) -> io::Result<Commit> {
        let id = fresh_id()?;
        let name = rehearsal(&id);
        self.begin_in(&self.private, id, &name)
    }

    fn begin_in(
        self: &Arc<Self>,
        directory: &OwnedFd,
        id: String,
        name: &str,
    ) -> io::Result<Commit> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&self.private, unfinished(&id), flags, Mode::RUSR | Mode::WUSR)?;
        self.active().insert(id.clone(), Stage::Making);
        let begun = || {
            mkdirat(directory, name, Mode::RWXU)?;
            let staging = beneath::directory(directory, name.as_bytes())?;
            let mut journal = BufWriter::new(File::from(file));
            journal.write_all(MAGIC)?;
            journal.write_all(&0_u64.to_le_bytes())?;
            Ok((staging, journal))
        };
        match begun() {
            Ok((staging, journal)) => {
                let (commits, prepared) = (self.clone(), None);
                let (staged, steps, room) = (0, 0, 0);
                Ok(Commit { commits, id, staging, journal, staged, steps, room, prepared })
            }
            Err(error) => {
                self.sweep(&id);
                Err(error)
            }
        }
    }

    fn active(&self) -> MutexGuard<'_, BTreeMap<String, Stage>> {
        // No code panics while it holds the lock; were it so, the map is whole.
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    fn finish(mut self) -> Result<(), CommitError> {
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

    fn decide(&mut self) -> io::Result<()> {
        self.journal.write_all(&step::end(self.steps))?;
        self.journal.flush()?;
        if self.staged <= FSYNCS_MAX {
            self.write_out_each()?;
        } else {
            rustix::fs::syncfs(&self.staging)?;
        }
        let private = self.commits.private.as_fd();
        Ballast::named(private, &ballast(&self.id)).take(self.room)?;
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

fn removed() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "a program has removed what was staged for it")
}

impl Drop for Commit {
    fn drop(&mut self) {
        if !self.id.is_empty() {
            self.commits.sweep(&self.id);
        }
    }
}

impl Failed {
    fn new(path: &[u8], error: Errno) -> Self {
        Self { path: path.to_vec(), error: error.into() }
    }
}

impl From<CommitError> for AgentError {
    fn from(error: CommitError) -> Self {
        use io::ErrorKind::{NotFound, QuotaExceeded, StorageFull};
        let kind = match &error {
            CommitError::Before(cause) | CommitError::Midway(cause)
                if matches!(cause.kind(), StorageFull | QuotaExceeded) =>
            {
                AgentErrorKind::OutOfResources
            }
            CommitError::Before(cause) if cause.kind() == NotFound => AgentErrorKind::Conflict,
            CommitError::Before(_) | CommitError::Midway(_) => AgentErrorKind::System,
            CommitError::Interfered(_) => AgentErrorKind::Conflict,
        };
        AgentError::new(kind, crate::log::Chain(&error).to_string())
    }
}

fn staging(id: &str) -> String {
    format!("{STAGING}{id}")
}

fn rehearsal(id: &str) -> String {
    format!("{id}.rehearsal")
}

fn unfinished(id: &str) -> String {
    format!("{id}.new")
}

fn journal(id: &str) -> String {
    format!("{id}.journal")
}

fn ballast(id: &str) -> String {
    format!("{id}.ballast")
}

fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn fresh_id() -> io::Result<String> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}
