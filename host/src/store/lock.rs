//! `flock` on a file, shared or exclusive, awaited with a deadline.

use crate::error::{Error, ErrorKind, Result};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::sync::oneshot;

/// How a lock is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Together with others who share.
    Shared,
    /// Alone.
    Exclusive,
}

/// A lock, until the last clone is dropped or the process ends.
#[derive(Debug, Clone)]
pub struct Lock(Arc<File>);

impl Lock {
    /// The open file that is the lock, for a child to inherit.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.0
    }

    /// Takes the lock of a file if nobody is in the way, making the file.
    ///
    /// # Errors
    /// When the file cannot be made or locked at all.
    pub fn try_take(path: &Path, mode: Mode) -> Result<Option<Self>> {
        match attempt(open_or_create, path, mode) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(refused(path, error)),
        }
    }

    /// Takes the lock of a file, making the file and waiting for whoever is in
    /// the way.
    ///
    /// # Errors
    /// `Conflict` when they are still there at the deadline.
    pub async fn take(path: &Path, mode: Mode, deadline: Duration) -> Result<Self> {
        if let Some(lock) = Self::try_take(path, mode)? {
            return Ok(lock);
        }
        let (sender, receiver) = oneshot::channel();
        // If we give up, the thread drops the lock as it gets it.
        wait_in_thread(open_or_create, path, mode, |answer| drop(sender.send(answer)))?;
        match tokio::time::timeout(deadline, receiver).await {
            Err(_) => Err(still_locked(path, deadline)),
            Ok(Ok(answer)) => answer.map_err(|error| refused(path, error)),
            Ok(Err(gone)) => Err(refused(path, io::Error::other(gone))),
        }
    }

    /// Takes the lock of a directory that is there, if nobody is in the way.
    /// `None` also when it is not, or no longer, there.
    ///
    /// # Errors
    /// When it cannot be locked at all.
    pub fn try_take_dir(path: &Path, mode: Mode) -> Result<Option<Self>> {
        match attempt(open_dir, path, mode) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_absent(&error) => {
                Ok(None)
            }
            Err(error) => Err(refused(path, error)),
        }
    }

    /// Takes the lock of a directory, blocking while somebody is in the way;
    /// `None` when it is not, or no longer, there.
    ///
    /// # Errors
    /// `Conflict` when they are still there at the deadline.
    pub fn take_dir(path: &Path, mode: Mode, deadline: Duration) -> Result<Option<Self>> {
        let answer = match attempt(open_dir, path, mode) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let (sender, receiver) = mpsc::channel();
                wait_in_thread(open_dir, path, mode, move |answer| drop(sender.send(answer)))?;
                receiver.recv_timeout(deadline).map_err(|_| still_locked(path, deadline))?
            }
            answer => answer,
        };
        match answer {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(refused(path, error)),
        }
    }
}

fn refused(path: &Path, error: io::Error) -> Error {
    Error::io(format!("cannot lock {}", path.display()), error)
}

fn still_locked(path: &Path, deadline: Duration) -> Error {
    let message = format!("{} is still locked after {} s", path.display(), deadline.as_secs());
    Error::new(ErrorKind::Conflict, message)
        .hint("another pyro is at work on it; try again when it is done")
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

type Open = fn(&Path) -> io::Result<File>;

fn open_dir(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32);
    let made = options.clone().write(true).create(true).truncate(false).mode(0o600).open(path);
    match made {
        // Whoever only asks who has it is still told.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => options.open(path),
        made => made,
    }
}

/// `WouldBlock` when somebody is in the way.
fn attempt(open: Open, path: &Path, mode: Mode) -> io::Result<Lock> {
    let operation = match mode {
        Mode::Shared => FlockOperation::NonBlockingLockShared,
        Mode::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    lock_as_named(open, path, operation)
}

/// Waits in a thread of its own: the runtime would join one of its pool when it
/// shuts down, and this one may wait longer than anybody cares.
fn wait_in_thread(
    open: Open,
    path: &Path,
    mode: Mode,
    answer: impl FnOnce(io::Result<Lock>) + Send + 'static,
) -> Result<()> {
    let operation = match mode {
        Mode::Shared => FlockOperation::LockShared,
        Mode::Exclusive => FlockOperation::LockExclusive,
    };
    let path = path.to_owned();
    std::thread::Builder::new()
        .name("lock".into())
        .spawn(move || answer(lock_as_named(open, &path, operation)))
        .map(drop)
        .map_err(|error| Error::io("cannot start a thread", error))
}

/// A file removed or replaced between `open` and `flock` is nobody's lock: then
/// it tries again with what has the name now.
fn lock_as_named(open: Open, path: &Path, operation: FlockOperation) -> io::Result<Lock> {
    loop {
        let file = open(path)?;
        match flock(&file, operation) {
            Ok(()) if is_still_at(&file, path)? => return Ok(Lock(Arc::new(file))),
            Ok(()) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    let locked = file.metadata()?;
    match path.symlink_metadata() {
        Ok(named) => Ok((locked.dev(), locked.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_shared_exclude_only_the_exclusive() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("lock");
        let first = Lock::take(&path, Mode::Shared, LONG).await.expect("free");
        let second = Lock::try_take(&path, Mode::Shared).expect("asked").expect("shared");
        assert!(Lock::try_take(&path, Mode::Exclusive).expect("asked").is_none());
        drop((first, second));
        assert!(Lock::try_take(&path, Mode::Exclusive).expect("asked").is_some());
    }

    #[tokio::test]
    async fn a_clone_keeps_it() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("lock");
        let lock = Lock::take(&path, Mode::Exclusive, LONG).await.expect("free");
        let clone = lock.clone();
        drop(lock);
        assert!(Lock::try_take(&path, Mode::Exclusive).expect("asked").is_none());
        drop(clone);
        assert!(Lock::try_take(&path, Mode::Exclusive).expect("asked").is_some());
    }

    #[tokio::test]
    async fn who_waits_gets_it_next() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("lock");
        let lock = Lock::take(&path, Mode::Exclusive, LONG).await.expect("free");
        let waiting = Lock::take(&path, Mode::Exclusive, LONG);
        let (next, ()) = tokio::join!(waiting, async { drop(lock) });
        next.expect("it is free now");
    }

    #[tokio::test]
    async fn waiting_ends_at_the_deadline() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("lock");
        let _held = Lock::take(&path, Mode::Exclusive, LONG).await.expect("free");
        let error =
            Lock::take(&path, Mode::Shared, Duration::from_millis(1)).await.expect_err("held");
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }

    #[tokio::test]
    async fn a_lock_on_a_removed_file_is_nobodys() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("lock");
        let stale = Lock::take(&path, Mode::Exclusive, LONG).await.expect("free");
        fs::remove_file(&path).expect("removed");
        let fresh = Lock::take(&path, Mode::Exclusive, LONG).await.expect("another file");
        drop(stale);
        assert!(Lock::try_take(&path, Mode::Exclusive).expect("asked").is_none());
        drop(fresh);
    }

    #[test]
    fn s3_a_link_in_its_place_is_refused() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("lock");
        std::os::unix::fs::symlink(home.path().join("elsewhere"), &path).expect("linked");
        assert!(Lock::try_take(&path, Mode::Exclusive).is_err());
        assert!(!home.path().join("elsewhere").exists());
    }

    #[test]
    fn a_directory_that_is_not_there_is_no_failure() {
        let home = tempfile::tempdir().expect("a directory");
        let none = home.path().join("none");
        assert!(Lock::take_dir(&none, Mode::Shared, LONG).expect("asked").is_none());
    }
}
