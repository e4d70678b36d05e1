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
mod making;
mod recovery;
pub(crate) mod remove;
mod step;
#[cfg(test)]
mod tests;

pub(crate) use making::Commit;
pub(crate) use step::{Slot, Step};

use crate::beneath;
use pyro_protocol::{AgentError, AgentErrorKind};
use rustix::fs::{Mode, OFlags, mkdirat, openat};
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
