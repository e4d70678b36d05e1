//! Finished directories: each appears whole by one rename, is held by every
//! process that uses it, and vanishes by one rename when nobody does.

use super::lock::{Lock, Mode};
use super::staging::Staging;
use super::{private_dir, sync_dir, sync_tree};
use crate::error::{Error, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A finished directory that stays while this, or a clone of it, lives.
#[derive(Debug, Clone)]
pub struct Held {
    path: PathBuf,
    _lock: Lock,
}

impl Held {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// How long to wait for somebody who claims a directory. They look whether it is
/// still needed and rename it: milliseconds, unless they were stopped.
const CLAIM_MAX: Duration = Duration::from_secs(10);

/// Holds a finished directory; `None` when it is not, or no longer, there.
///
/// # Errors
/// When the host's system refuses.
pub fn hold(path: &Path) -> Result<Option<Held>> {
    let lock = Lock::take_dir(path, Mode::Shared, CLAIM_MAX)?;
    Ok(lock.map(|lock| Held { path: path.to_owned(), _lock: lock }))
}

/// What to do with a directory that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Another builder was quicker: theirs is as good.
    Keep,
    /// It is damaged: the new one takes its place at once.
    Replace,
}

/// Puts a finished directory in its place, on disk before it is seen. A replaced
/// one ends in the staging directory's place.
///
/// # Errors
/// When the host's system refuses; then nothing was put there.
pub fn publish(finished: &Path, to: &Path, existing: Existing) -> Result<Held> {
    let refused = |error| Error::io(format!("cannot put {} in place", to.display()), error);
    let parent = to.parent().ok_or_else(|| refused(io::ErrorKind::InvalidInput.into()))?;
    private_dir(parent)?;
    sync_tree(finished).map_err(refused)?;
    // Held before it is seen: nobody can take it away before its user says so.
    let held = Lock::try_take_dir(finished, Mode::Shared)?
        .ok_or_else(|| refused(io::ErrorKind::ResourceBusy.into()))?;
    loop {
        match renameat_with(CWD, finished, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => break,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(refused(error.into())),
        }
        match existing {
            Existing::Keep => {
                if let Some(theirs) = hold(to)? {
                    return Ok(theirs);
                }
            }
            Existing::Replace => {
                match renameat_with(CWD, finished, CWD, to, RenameFlags::EXCHANGE) {
                    Ok(()) => break,
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(refused(error.into())),
                }
            }
        }
    }
    sync_dir(parent).map_err(refused)?;
    Ok(Held { path: to.to_owned(), _lock: held })
}

/// A finished directory that nobody holds; while this lives nobody can.
#[derive(Debug)]
pub struct Claimed {
    path: PathBuf,
    lock: Lock,
}

impl Claimed {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes it away by one rename, then removes it.
    ///
    /// # Errors
    /// When the host's system refuses.
    pub fn remove(self, staging: &Staging) -> Result<()> {
        let refused = |error| Error::io(format!("cannot remove {}", self.path.display()), error);
        let name =
            self.path.file_name().ok_or_else(|| refused(io::ErrorKind::InvalidInput.into()))?;
        let away = staging.path().join(name);
        fs::rename(&self.path, &away).map_err(refused)?;
        // Whoever waits to hold it may see now that it is gone.
        drop(self.lock);
        fs::remove_dir_all(&away).map_err(refused)
    }
}

/// Claims a finished directory in order to remove it; `None` while anybody
/// holds it.
///
/// # Errors
/// When the host's system refuses.
pub fn claim(path: &Path) -> Result<Option<Claimed>> {
    let lock = Lock::try_take_dir(path, Mode::Exclusive)?;
    Ok(lock.map(|lock| Claimed { path: path.to_owned(), lock }))
}
