//! A private directory beside the output, where it is made.

use super::{Existing, there_already};
use crate::error::{Error, ErrorKind, Result};
use crate::id::fill_random;
use crate::store::lock::{Lock, Mode as LockMode};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, fsync, openat, renameat_with};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What the names of such directories begin with.
const PREFIX: &str = ".pyro-export-";

/// What is being made in it.
pub(super) const ITEM: &str = "item";

/// A directory that only its owner can look into, on the file system of the
/// output. It is removed when dropped, or by the next export into the same
/// directory.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    top: OwnedFd,
    _lock: Lock,
}

impl Staging {
    pub(super) fn beside(output: &Path) -> Result<Self> {
        let parent = parent(output);
        fs::create_dir_all(parent)
            .map_err(|error| Error::io(format!("cannot make {}", parent.display()), error))?;
        sweep(parent);
        let refused =
            |error| Error::io(format!("cannot make a directory in {}", parent.display()), error);
        loop {
            let mut random = [0; 8];
            fill_random(&mut random);
            let path = parent.join(format!("{PREFIX}{:016x}", u64::from_le_bytes(random)));
            DirBuilder::new().mode(0o700).create(&path).map_err(refused)?;
            // Between the two somebody may have swept it away: take another.
            if let Some(lock) = Lock::try_take_dir(&path, LockMode::Exclusive)? {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let top = rustix::fs::open(&path, flags, Mode::empty())
                    .map_err(|errno| refused(errno.into()))?;
                return Ok(Self { path, top, _lock: lock });
            }
        }
    }

    pub(super) fn top(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }

    /// A new file that is to become the output.
    pub(super) fn create(&self) -> Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        match openat(&self.top, ITEM, flags, mode) {
            Ok(file) => Ok(file.into()),
            Err(errno) => {
                Err(Error::io(format!("cannot write in {}", self.path.display()), errno.into()))
            }
        }
    }

    /// Writes everything out, and puts it in place.
    pub(super) fn settle(self, output: &Path, existing: Existing) -> Result<()> {
        let refused =
            |errno: Errno| Error::io(format!("cannot write {}", output.display()), errno.into());
        rustix::fs::syncfs(&self.top).map_err(refused)?;
        let name = output.file_name().ok_or_else(|| no_name(output))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent =
            rustix::fs::openat(CWD, parent(output), flags, Mode::empty()).map_err(refused)?;
        let rename = |flags| renameat_with(&self.top, ITEM, &parent, name, flags);
        match rename(RenameFlags::NOREPLACE) {
            // What was there before goes away with the staging directory.
            Err(Errno::EXIST) if existing == Existing::Replace => {
                rename(RenameFlags::EXCHANGE).map_err(refused)?;
            }
            Err(Errno::EXIST) => return Err(there_already(output)),
            renamed => renamed.map_err(refused)?,
        }
        fsync(&parent).map_err(refused)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next export.
        drop(remove(&self.path));
    }
}

/// Removes what exports that were killed have left.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
        if !is_ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if let Ok(Some(_lock)) = Lock::try_take_dir(&entry.path(), LockMode::Exclusive) {
            // It is in nobody's way.
            drop(remove(&entry.path()));
        }
    }
}

/// Removes a directory whose directories may be read-only. Nobody else can
/// change what is in it.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        removed => removed,
    }
}

fn open_up(top: &Path) -> io::Result<()> {
    let mut waiting = vec![top.to_owned()];
    while let Some(directory) = waiting.pop() {
        fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(())
}

fn parent(output: &Path) -> &Path {
    match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

fn no_name(output: &Path) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("{} names nothing to make", output.display()))
}
