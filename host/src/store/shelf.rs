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
    private_dir(finished)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Lab {
        home: tempfile::TempDir,
        staging: Staging,
    }

    impl Lab {
        fn new() -> Self {
            let home = tempfile::tempdir().expect("a directory");
            let staging = Staging::new(&home.path().join("staging")).expect("made");
            Self { home, staging }
        }

        fn shelf(&self) -> PathBuf {
            self.home.path().join("shelf/thing")
        }

        fn publish(&self, content: &str, existing: Existing) -> Held {
            let made = self.staging.path().join("made");
            fs::create_dir_all(made.join("deep")).expect("made");
            fs::write(made.join("deep/file"), content).expect("written");
            publish(&made, &self.shelf(), existing).expect("published")
        }

        fn content(&self) -> String {
            fs::read_to_string(self.shelf().join("deep/file")).expect("it is there")
        }
    }

    #[test]
    fn what_is_published_is_held_until_dropped() {
        let lab = Lab::new();
        let held = lab.publish("one", Existing::Keep);
        assert!(claim(&lab.shelf()).expect("asked").is_none());
        let second = hold(&lab.shelf()).expect("asked").expect("shared");
        drop(held);
        assert!(claim(&lab.shelf()).expect("asked").is_none());
        drop(second);
        let claimed = claim(&lab.shelf()).expect("asked").expect("free");
        claimed.remove(&lab.staging).expect("removed");
        assert!(hold(&lab.shelf()).expect("asked").is_none());
    }

    #[test]
    fn an_existing_one_is_kept_or_replaced() {
        let lab = Lab::new();
        let first = lab.publish("one", Existing::Keep);
        lab.publish("two", Existing::Keep);
        assert_eq!(lab.content(), "one");
        fs::remove_dir_all(lab.staging.path().join("made")).expect("the second stayed behind");
        let third = lab.publish("three", Existing::Replace);
        assert_eq!(lab.content(), "three");
        drop(first);
        assert!(claim(&lab.shelf()).expect("asked").is_none(), "the new one is held");
        drop(third);
        assert!(claim(&lab.shelf()).expect("asked").is_some());
    }

    #[test]
    fn who_wants_to_hold_waits_for_who_judges() {
        let lab = Lab::new();
        drop(lab.publish("one", Existing::Keep));
        let claimed = claim(&lab.shelf()).expect("asked").expect("free");
        std::thread::scope(|scope| {
            let holding = scope.spawn(|| hold(&lab.shelf()).expect("asked"));
            drop(claimed);
            assert!(holding.join().expect("no panic").is_some(), "it was judged needed");
        });
    }
}
