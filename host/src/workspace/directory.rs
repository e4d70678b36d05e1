//! The directory of one workspace, its lock, and what dead owners leave behind.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::id::WorkspaceId;
use crate::store::lock::{Lock, Mode};
use crate::store::{DISCARDED_PREFIX, discard_dir, private_dir, sync_dir};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The lock's file name. Held from before the directory is in place until
/// nothing of the workspace runs any more; so a lock that can be had is a dead
/// owner's.
pub(super) const LOCK_NAME: &str = "lock";

/// Held by one who starts, stops, resets or deletes a workspace.
pub(super) const LIFE_LOCK: &str = "life.lock";

/// Marks a directory whose workspace ends with its owner.
const EPHEMERAL_NAME: &str = "ephemeral";

/// A directory that is still being made carries this before its id.
const NEW_PREFIX: &str = ".new-";

/// How long one who makes a workspace waits for others.
const MAKING_MAX: Duration = Duration::from_secs(60);

/// The directory of a workspace that is being made or ends with its owner;
/// removed when dropped unless it was handed over.
#[derive(Debug)]
pub struct Directory {
    id: WorkspaceId,
    path: PathBuf,
    lock: File,
    owned: bool,
}

impl Directory {
    /// Makes one for a workspace that ends with its owner.
    pub fn create(config: &Config) -> Result<Self> {
        let mut made = Self::stage(config)?;
        let failed = |error| Error::io(format!("cannot make {}", made.path.display()), error);
        File::create(made.path.join(EPHEMERAL_NAME)).map_err(failed)?;
        made.rename(config)?;
        Ok(made)
    }

    /// Makes one for a workspace that is not there before it is settled: until
    /// then it goes with its owner.
    pub fn stage(config: &Config) -> Result<Self> {
        let parent = parent(config);
        loop {
            private_dir(&parent)?;
            // Somebody may have swept it away before it was locked: take another.
            if let Some(made) = Self::make(&parent, WorkspaceId::random())? {
                return Ok(made);
            }
        }
    }

    /// `None` when a sweeper came in between.
    fn make(parent: &Path, id: WorkspaceId) -> Result<Option<Self>> {
        let path = parent.join(format!("{NEW_PREFIX}{id}"));
        let failed = |error| Error::io(format!("cannot make {}", path.display()), error);
        // Shared by all who make a directory that has no lock yet, so that a
        // sweeper knows one without a lock for a dead maker's.
        let Some(_making) = Lock::take_dir(parent, Mode::Shared, MAKING_MAX)? else {
            return Ok(None);
        };
        private_dir(&path)?;
        let lock = open_lock(&path, true).map_err(failed)?;
        // From here on no sweeper touches it, unless one was first.
        if !try_lock(&lock).map_err(failed)? || !is_at(&lock, &path).map_err(failed)? {
            return Ok(None);
        }
        Ok(Some(Self { id, path, lock, owned: true }))
    }

    /// Puts it where workspaces are, by one rename that outlives a power failure.
    pub fn settle(&mut self, config: &Config) -> Result<()> {
        self.rename(config)?;
        let failed = |error| Error::io(format!("cannot make {}", self.path.display()), error);
        sync_dir(&self.path).and_then(|()| sync_dir(&parent(config))).map_err(failed)
    }

    fn rename(&mut self, config: &Config) -> Result<()> {
        let settled = parent(config).join(self.id.to_string());
        fs::rename(&self.path, &settled)
            .map_err(|error| Error::io(format!("cannot make {}", settled.display()), error))?;
        self.path = settled;
        Ok(())
    }

    /// The workspace.
    #[must_use]
    pub fn id(&self) -> WorkspaceId {
        self.id
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The held lock, for a supervisor to inherit.
    #[must_use]
    pub fn lock(&self) -> &File {
        &self.lock
    }

    /// The right to start, stop, reset or delete what it is to become.
    ///
    /// # Errors
    /// When it cannot be locked.
    pub async fn life(&self) -> Result<Lock> {
        Lock::take(&self.path.join(LIFE_LOCK), Mode::Exclusive, MAKING_MAX).await
    }

    /// Leaves the directory to whoever inherited the lock.
    pub fn hand_over(mut self) {
        self.owned = false;
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.owned {
            // What is left is swept by the next start.
            drop(discard_dir(&self.path));
        }
    }
}

/// Where workspaces are.
pub(super) fn parent(config: &Config) -> PathBuf {
    config.state_dir.join("workspaces")
}

fn open_lock(directory: &Path, create: bool) -> std::io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(0o600)
        .open(directory.join(LOCK_NAME))
}

fn try_lock(lock: &File) -> std::io::Result<bool> {
    match flock(lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether the lock is still the directory's: a sweeper unlinks it.
fn is_at(lock: &File, directory: &Path) -> std::io::Result<bool> {
    let held = lock.metadata()?;
    match directory.join(LOCK_NAME).symlink_metadata() {
        Ok(named) => Ok((held.dev(), held.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes what dead owners left: directories of one-shot runs whose lock
/// nobody holds, unfinished ones, and those whose removal was cut short. Best
/// effort: what cannot be removed now is there for the next sweep.
pub fn sweep(config: &Config) {
    let Ok(entries) = fs::read_dir(parent(config)) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(DISCARDED_PREFIX) {
            drop(fs::remove_dir_all(&path));
        } else if name.starts_with(NEW_PREFIX) || path.join(EPHEMERAL_NAME).exists() {
            sweep_if_abandoned(&path);
        }
    }
}

fn sweep_if_abandoned(path: &Path) {
    match open_lock(path, false) {
        Ok(lock) => sweep_if_free(path, &lock),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => sweep_if_unmade(path),
        // What cannot be looked at is not known to be abandoned.
        Err(_) => {}
    }
}

fn sweep_if_free(path: &Path, lock: &File) {
    // Held until it is gone, or its maker could take it for its own.
    if try_lock(lock).is_ok_and(|locked| locked) {
        drop(discard_dir(path));
    }
}

/// Its maker died between making it and its lock, or is between them now.
fn sweep_if_unmade(path: &Path) {
    let Some(parent) = path.parent() else { return };
    let Ok(Some(_nobody_makes)) = Lock::try_take_dir(parent, Mode::Exclusive) else { return };
    match open_lock(path, false) {
        Ok(lock) => sweep_if_free(path, &lock),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => drop(discard_dir(path)),
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn names(config: &Config) -> Vec<String> {
        let entries = fs::read_dir(parent(config)).expect("it is there");
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("readable").file_name();
        entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn it_is_there_until_it_is_dropped() {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::within(home.path());
        let made = Directory::create(&config).expect("it is made");
        sweep(&config);
        assert_eq!(names(&config), [made.id().to_string()]);
        drop(made);
        assert!(names(&config).is_empty());
    }

    #[test]
    fn r9_one_that_was_handed_over_goes_with_the_last_holder_of_its_lock() {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::within(home.path());
        let made = Directory::create(&config).expect("it is made");
        let inherited = made.lock().try_clone().expect("a descriptor");
        made.hand_over();
        sweep(&config);
        assert_eq!(names(&config).len(), 1);
        drop(inherited);
        sweep(&config);
        assert!(names(&config).is_empty());
    }

    /// Whatever a sweep meets half made, nobody who makes one loses it.
    #[test]
    fn makers_and_sweepers_at_once_do_each_other_no_harm() {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::within(home.path());
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        sweep(&config);
                    }
                });
            }
            let makers = [0; 3].map(|_| {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let made = Directory::create(&config).expect("it is made");
                        fs::write(made.path().join("disk"), "data").expect("it is still there");
                        assert!(is_at(made.lock(), made.path()).expect("readable"));
                    }
                })
            });
            let ended = makers.map(std::thread::ScopedJoinHandle::join);
            over.store(true, Ordering::Relaxed);
            assert!(ended.iter().all(Result::is_ok), "a maker failed");
        });
        sweep(&config);
        assert!(names(&config).is_empty(), "{:?}", names(&config));
    }

    /// Before it is locked, a sweeper may be first; then it is not used.
    #[test]
    fn one_that_was_swept_while_it_was_made_is_not_used() {
        let home = tempfile::tempdir().expect("a directory");
        let making = home.path().join(".new-0123456789ab");
        private_dir(&making).expect("it is made");
        let lock = open_lock(&making, true).expect("a lock");
        sweep_if_abandoned(&making);
        assert!(!making.exists());
        assert!(try_lock(&lock).expect("lockable"));
        assert!(!is_at(&lock, &making).expect("it says"));
    }

    /// Its maker may be killed after the first of two system calls.
    #[test]
    fn r9_one_without_a_lock_goes_when_nobody_makes_any() {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::within(home.path());
        let making = parent(&config).join(".new-0123456789ab");
        private_dir(&making).expect("it is made");
        let maker = Lock::try_take_dir(&parent(&config), Mode::Shared).expect("lockable");
        sweep(&config);
        assert!(making.exists());
        drop(maker);
        sweep(&config);
        assert!(!making.exists());
    }

    #[test]
    fn a_link_among_the_workspaces_leads_a_sweep_nowhere() {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::within(home.path());
        private_dir(&parent(&config)).expect("it is made");
        let precious = home.path().join("precious");
        fs::create_dir(&precious).expect("it is made");
        for file in [LOCK_NAME, EPHEMERAL_NAME, "data"] {
            fs::write(precious.join(file), "").expect("written");
        }
        for name in ["0123456789ab", ".new-0123456789ab", ".gone-0123456789ab"] {
            std::os::unix::fs::symlink(&precious, parent(&config).join(name)).expect("linked");
        }
        sweep(&config);
        assert!(precious.join("data").exists());
    }
}
