//! Where things are made before one rename puts them in place.
//!
//! A staging directory is locked by whoever works in it. One that nobody locks
//! was left by a crash: [`abandoned`] finds it.

use super::lock::{Lock, Mode};
use super::private_dir;
use crate::error::{Error, Result};
use crate::id::fill_random;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A private directory that is removed when dropped, or by the next who comes
/// if this process does not live to drop it.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    _lock: Lock,
}

impl Staging {
    /// A new one below a directory that is made if need be.
    ///
    /// # Errors
    /// When the host's system refuses.
    pub fn new(within: &Path) -> Result<Self> {
        private_dir(within)?;
        let refused =
            |error| Error::io(format!("cannot make a directory in {}", within.display()), error);
        loop {
            let mut random = [0; 8];
            fill_random(&mut random);
            let path = within.join(format!("{:016x}", u64::from_le_bytes(random)));
            DirBuilder::new().mode(0o700).create(&path).map_err(refused)?;
            // Between the two somebody may have swept it away: take another.
            if let Some(lock) = Lock::try_take_dir(&path, Mode::Exclusive)? {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is swept later.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// A staging directory that nobody works in any more.
#[derive(Debug)]
pub struct Abandoned {
    path: PathBuf,
    _lock: Lock,
}

impl Abandoned {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it with all that is in it.
    ///
    /// # Errors
    /// When the host's system refuses, as it does for files of subordinate
    /// users.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }
}

/// What crashes left below a directory, locked so that nobody else sweeps it.
#[must_use]
pub fn abandoned(within: &Path) -> Vec<Abandoned> {
    let Ok(entries) = fs::read_dir(within) else { return Vec::new() };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter_map(|path| {
            let lock = Lock::try_take_dir(&path, Mode::Exclusive).ok()??;
            Some(Abandoned { path, _lock: lock })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_one_is_gone() {
        let home = tempfile::tempdir().expect("a directory");
        let staging = Staging::new(home.path()).expect("made");
        fs::write(staging.path().join("file"), "content").expect("written");
        let path = staging.path().to_owned();
        drop(staging);
        assert!(!path.exists());
    }

    #[test]
    fn only_what_nobody_works_in_is_abandoned() {
        let home = tempfile::tempdir().expect("a directory");
        let alive = Staging::new(home.path()).expect("made");
        // As a crash leaves it: the lock is gone, the directory is not.
        let dead = home.path().join("0123456789abcdef");
        fs::create_dir_all(dead.join("deep")).expect("made");
        let mut found = abandoned(home.path());
        assert_eq!(found.len(), 1);
        assert!(abandoned(home.path()).is_empty(), "one sweeper is enough");
        found.remove(0).remove().expect("removed");
        assert!(alive.path().exists() && !dead.exists());
    }
}
