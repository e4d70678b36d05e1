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
//! fail, which is reported.

mod apply;
mod ballast;
pub(crate) mod remove;
mod step;
#[cfg(test)]
mod tests;

pub(crate) use step::{Slot, Step};

use crate::beneath;
use ballast::Ballast;
use pyro_protocol::{AgentError, AgentErrorKind};
use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, fsync, mkdirat, openat, renameat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What every name of a staging directory begins with; sixteen hexadecimal
/// digits follow.
const STAGING: &str = ".pyro-commit-";

/// What a journal begins with.
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
    active: Mutex<BTreeSet<String>>,
    turn: Mutex<()>,
    /// How many are about to be done, or are being done.
    pending: watch::Sender<usize>,
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
    /// What was begun will be completed when the agent starts again.
    #[error("the change was interrupted and is completed at the next start")]
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
    /// what it makes of it.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        // It guards no data, so there is none to be half written.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
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
            && self.active().iter().any(|id| name[STAGING.len()..] == *id.as_bytes())
    }

    /// Completes what was decided and sweeps what was not, after an agent or a
    /// machine that died. To be called before anything else happens to the tree.
    pub(crate) fn recover(&self) -> io::Result<()> {
        let mut ids = BTreeSet::new();
        for entry in Dir::read_from(&self.private)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some((id, _)) = name.split_once('.').filter(|(id, _)| is_id(id)) {
                ids.insert(id.to_owned());
            }
        }
        let mut worst = Ok(());
        for id in ids {
            // One that cannot be completed is kept, and keeps no other from it.
            match self.resume(&id).map_err(io::Error::other) {
                Ok(()) => self.sweep(&id),
                Err(error) => worst = Err(error),
            }
        }
        worst
    }

    fn resume(&self, id: &str) -> Result<(), CommitError> {
        match self.open(&journal(id)) {
            Ok(file) => match self.carry_out(id, file) {
                Err(CommitError::Interfered(failed)) => {
                    crate::log::warn(format_args!("completing a commit: {failed}"));
                    Ok(())
                }
                carried_out => carried_out,
            },
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(CommitError::Midway(error.into())),
        }
    }

    /// Begins one. Names what it stages by an id that is written down first, so
    /// that no staging directory is ever left that nobody knows of.
    pub(crate) fn begin(self: &Arc<Self>) -> io::Result<Commit> {
        let id = fresh_id()?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&self.private, unfinished(&id), flags, Mode::RUSR | Mode::WUSR)?;
        self.active().insert(id.clone());
        let begun = || {
            mkdirat(&self.tree, staging(&id), Mode::RWXU)?;
            let staging = beneath::directory(&self.tree, staging(&id).as_bytes())?;
            let mut journal = BufWriter::new(File::from(file));
            journal.write_all(MAGIC)?;
            Ok((staging, journal))
        };
        match begun() {
            Ok((staging, journal)) => {
                Ok(Commit { commits: self.clone(), id, staging, journal, staged: 0, steps: 0 })
            }
            Err(error) => {
                self.sweep(&id);
                Err(error)
            }
        }
    }

    fn carry_out(&self, id: &str, journal_file: OwnedFd) -> Result<(), CommitError> {
        let mut reader = BufReader::new(File::from(journal_file));
        let mut magic = [0; MAGIC.len()];
        reader.read_exact(&mut magic).map_err(CommitError::Midway)?;
        if magic != MAGIC {
            let error = io::Error::new(io::ErrorKind::InvalidData, "an unknown kind of journal");
            return Err(CommitError::Midway(error));
        }
        let staging = match beneath::directory(&self.tree, staging(id).as_bytes()) {
            Ok(staging) => staging,
            // Swept already: only the journal had still to go.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(CommitError::Midway(error.into())),
        };
        let ballast = ballast(id);
        let mut ballast = Ballast::named(self.private.as_fd(), &ballast);
        match apply::all(&mut reader, self.tree(), staging.as_fd(), &mut ballast) {
            Ok(None) => Ok(()),
            Ok(Some(failed)) => Err(CommitError::Interfered(failed)),
            Err(error) => Err(CommitError::Midway(error)),
        }
    }

    /// Removes all of a commit but what it did. The journal goes last: as long
    /// as there is a staging directory, somebody knows of it.
    fn sweep(&self, id: &str) {
        let swept = remove::directory(&self.tree, staging(id).as_bytes());
        if let Err(error) = swept
            && error != Errno::NOENT
        {
            crate::log::warn(format_args!("removing what a commit staged: {error}"));
            return;
        }
        for name in [ballast(id), unfinished(id), journal(id)] {
            match unlinkat(&self.private, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => crate::log::warn(format_args!("removing {name}: {error}")),
            }
        }
        self.active().remove(id);
    }

    fn open(&self, name: &str) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        openat(&self.private, name, flags, Mode::empty())
    }

    fn active(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // No code panics while it holds the lock; were it so, the set is whole.
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Commit {
    /// A new, empty file to be put somewhere: mode 0600, whatever is wanted is
    /// set through the file.
    pub(crate) fn stage_file(&mut self) -> io::Result<(Slot, File)> {
        let slot = self.slot();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let file = openat(&self.staging, slot.name(), flags, Mode::RUSR | Mode::WUSR)?;
        Ok((slot, File::from(file)))
    }

    /// A file that was staged, to be read from its beginning.
    pub(crate) fn staged_file(&self, slot: Slot) -> io::Result<File> {
        Ok(File::from(beneath::open(&self.staging, slot.name().as_bytes(), OFlags::RDONLY)?))
    }

    /// A new symbolic link to be put somewhere.
    pub(crate) fn stage_link(&mut self, target: &[u8]) -> io::Result<Slot> {
        let slot = self.slot();
        symlinkat(target, &self.staging, slot.name())?;
        Ok(slot)
    }

    /// A new file that is the same as one staged before, under one more name.
    pub(crate) fn stage_hard_link(&mut self, of: Slot) -> io::Result<Slot> {
        let slot = self.slot();
        let (from, to) = (of.name(), slot.name());
        rustix::fs::linkat(&self.staging, from, &self.staging, to, AtFlags::empty())?;
        Ok(slot)
    }

    /// A file of the tree, under one more name.
    pub(crate) fn stage_existing(&mut self, path: &[u8]) -> io::Result<Slot> {
        let slot = self.slot();
        let (parent, name) = beneath::parent(&self.commits.tree, path)?;
        rustix::fs::linkat(&parent, name, &self.staging, slot.name(), AtFlags::empty())?;
        Ok(slot)
    }

    /// Adds what is to be done next.
    pub(crate) fn step(&mut self, step: &Step) -> io::Result<()> {
        beneath::check(step.path())?;
        if self.steps >= STEPS_MAX {
            let text = format!("more than {STEPS_MAX} changes at once");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.steps += 1;
        step.write(&mut self.journal)
    }

    /// Decides, and does it. After this, whatever happens, all of it is done or
    /// will be.
    pub(crate) fn run(mut self) -> Result<(), CommitError> {
        self.decide().map_err(CommitError::Before)?;
        let done = match self.commits.open(&journal(&self.id)) {
            Ok(file) => self.commits.carry_out(&self.id, file),
            Err(error) => Err(CommitError::Midway(error.into())),
        };
        if matches!(done, Err(CommitError::Midway(_))) {
            // The next start needs what is there: nothing is to be swept.
            self.id.clear();
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
        Ballast::named(private, &ballast(&self.id)).take(self.steps)?;
        fsync(self.journal.get_ref())?;
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
                // One that could not be made, and was not needed.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(fsync(&self.staging)?)
    }

    fn slot(&mut self) -> Slot {
        let slot = Slot(self.staged);
        self.staged += 1;
        slot
    }
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
        let kind = match &error {
            CommitError::Before(cause)
                if [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded]
                    .contains(&cause.kind()) =>
            {
                AgentErrorKind::OutOfResources
            }
            CommitError::Before(_) | CommitError::Midway(_) => AgentErrorKind::System,
            CommitError::Interfered(_) => AgentErrorKind::Conflict,
        };
        AgentError::new(kind, crate::log::Chain(&error).to_string())
    }
}

fn staging(id: &str) -> String {
    format!("{STAGING}{id}")
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
