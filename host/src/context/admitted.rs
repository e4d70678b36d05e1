//! A path of the host that may be used, and the way to it.

use super::Roots;
use crate::error::Result;
use rustix::fs::{Mode, OFlags, mkdirat, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A path of the host that may be used. What it says may change after it was
/// admitted, a directory become a link elsewhere: so whoever is bound to roots
/// comes to it from a root's descriptor, beneath it, each time anew. All others
/// get what the system gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    path: PathBuf,
    roots: Roots,
}

impl Admitted {
    pub(super) fn new(path: PathBuf, roots: Roots) -> Self {
        Self { path, roots }
    }

    /// The path, for showing and for comparing. Nothing is opened by it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether only what lies below roots may be used.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.roots.is_limit()
    }

    /// Another path, for the same caller.
    ///
    /// # Errors
    /// `InvalidInput` when it lies outside the caller's roots.
    pub fn admit(&self, path: &Path) -> Result<Self> {
        self.roots.admit(path)
    }

    /// What is at a path below.
    #[must_use]
    pub fn join(&self, below: impl AsRef<Path>) -> Self {
        Self { path: self.path.join(below), roots: self.roots.clone() }
    }

    /// The directory that it is in.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let parent = self.path.parent()?;
        let here = parent.as_os_str().is_empty();
        let path = if here { Path::new(".") } else { parent }.to_owned();
        Some(Self { path, roots: self.roots.clone() })
    }

    /// Opens what is there now.
    ///
    /// # Errors
    /// When the host's system refuses, or when it leads out of the roots by now.
    pub fn open(&self, flags: OFlags) -> io::Result<OwnedFd> {
        let (from, path, resolve) = self.roots.way(&self.path)?;
        loop {
            match openat2(from, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // Something on the way was renamed meanwhile.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::XDEV) => return Err(io::Error::other("it leads out of the roots")),
                opened => return Ok(opened?),
            }
        }
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// As [`Admitted::open`].
    pub fn open_file(&self) -> io::Result<File> {
        self.open(OFlags::RDONLY).map(File::from)
    }

    /// Whether something is there, be it a link that leads nowhere.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.open(OFlags::PATH | OFlags::NOFOLLOW).is_ok()
    }

    /// Opens a directory, which is made if need be, with those that it is in.
    ///
    /// # Errors
    /// As [`Admitted::open`].
    pub fn make_dir(&self) -> io::Result<OwnedFd> {
        self.made(OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn made(&self, flags: OFlags) -> io::Result<OwnedFd> {
        match self.open(flags) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                let within = self.parent().ok_or(missing)?;
                let within = within.made(OFlags::PATH | OFlags::DIRECTORY)?;
                if let Some(name) = self.path.file_name() {
                    match mkdirat(within, name, Mode::from_raw_mode(0o777)) {
                        // Somebody else was faster.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                self.open(flags)
            }
            opened => opened,
        }
    }
}

/// For whoever may name any path.
impl From<&Path> for Admitted {
    fn from(path: &Path) -> Self {
        Self::new(path.to_owned(), Roots::UNLIMITED)
    }
}

/// For whoever may name any path.
impl From<&PathBuf> for Admitted {
    fn from(path: &PathBuf) -> Self {
        Self::from(path.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn s9_a_path_that_leads_elsewhere_by_now_leads_nowhere() {
        let home = tempfile::tempdir().expect("a directory");
        let (inside, outside) = (home.path().join("in"), home.path().join("out"));
        fs::create_dir_all(inside.join("d")).expect("made");
        fs::create_dir(&outside).expect("made");
        fs::write(inside.join("d/file"), "inside").expect("written");
        fs::write(outside.join("file"), "outside").expect("written");
        let roots = Roots::below(std::slice::from_ref(&inside)).expect("there");
        let file = roots.admit(Path::new("d/file")).expect("inside");
        let deep = roots.admit(Path::new("new/deep/output")).expect("inside");
        assert!(file.open_file().is_ok() && !deep.is_there());
        fs::remove_dir_all(inside.join("d")).expect("removed");
        symlink("../out", inside.join("d")).expect("linked");
        symlink(&outside, inside.join("new")).expect("linked");
        assert!(file.open_file().is_err(), "it leads out");
        assert!(deep.parent().expect("a directory").make_dir().is_err(), "it leads out");
        assert!(!outside.join("deep").exists());
        // The root is the directory that it was, wherever that is now.
        fs::rename(&inside, home.path().join("moved")).expect("renamed");
        symlink(&outside, &inside).expect("linked");
        assert!(roots.admit(&outside.join("file")).is_err());
        let new = roots.admit(Path::new("x/y"));
        assert!(new.is_err_and(|error| error.message().contains("outside the roots")));
    }

    #[test]
    fn directories_on_the_way_are_made() {
        let home = tempfile::tempdir().expect("a directory");
        let roots = Roots::below(&[home.path().to_owned()]).expect("there");
        for place in [
            roots.admit(Path::new("a/b/c")).expect("inside"),
            Admitted::from(home.path().join("d/../e").as_path()),
        ] {
            place.make_dir().expect("made");
            place.make_dir().expect("there");
        }
        assert!(home.path().join("a/b/c").is_dir() && home.path().join("e").is_dir());
    }
}
