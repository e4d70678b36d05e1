//! The directory of one workspace, its lock, and what dead owners leave behind.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::id::WorkspaceId;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The lock's file name. Held from before the directory is in place until
/// nothing of the workspace runs any more; so a lock that can be had is a dead
/// owner's.
const LOCK_NAME: &str = "lock";

/// Marks a directory whose workspace ends with its owner.
const EPHEMERAL_NAME: &str = "ephemeral";

/// A directory that is still being made carries this before its id.
const NEW_PREFIX: &str = ".new-";

/// How long its making may take before it counts as abandoned.
const MAKING_MAX: Duration = Duration::from_secs(60);

/// A workspace's directory, removed when dropped unless it was handed over.
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
        let parent = parent(config);
        crate::store::private_dir(&parent)?;
        let id = WorkspaceId::random();
        let making = parent.join(format!("{NEW_PREFIX}{id}"));
        let path = parent.join(id.to_string());
        let failed = |error| Error::io(format!("cannot make {}", path.display()), error);
        crate::store::private_dir(&making)?;
        let lock = open_lock(&making, true).map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| failed(errno.into()))?;
        File::create(making.join(EPHEMERAL_NAME)).map_err(failed)?;
        fs::rename(&making, &path).map_err(failed)?;
        Ok(Self { id, path, lock, owned: true })
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

    /// Leaves the directory to whoever inherited the lock.
    pub fn hand_over(mut self) {
        self.owned = false;
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.owned {
            // What is left is swept by the next start.
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

fn parent(config: &Config) -> PathBuf {
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

/// Removes what dead owners left: directories of one-shot runs whose lock
/// nobody holds, and unfinished ones. Best effort: what cannot be removed now
/// is there for the next sweep.
pub fn sweep(config: &Config) {
    let Ok(entries) = fs::read_dir(parent(config)) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if is_abandoned(&path) {
            drop(fs::remove_dir_all(&path));
        }
    }
}

fn is_abandoned(path: &Path) -> bool {
    let unfinished =
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(NEW_PREFIX));
    if !unfinished && !path.join(EPHEMERAL_NAME).exists() {
        return false;
    }
    match open_lock(path, false) {
        Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
        // Its maker died between two system calls, or is between them now.
        Err(_) => path
            .metadata()
            .and_then(|meta| meta.modified())
            .is_ok_and(|made| made.elapsed().is_ok_and(|age| age > MAKING_MAX)),
    }
}
