//! State is files: records written whole or not at all, locks that die with
//! their holder, directories that appear and vanish by one rename.
//!
//! - [`record`]: small versioned JSON files, replaced atomically.
//! - [`lock`]: `flock` with a deadline, and without one for those who only ask.
//! - [`staging`]: where things are made before they are renamed into place.
//! - [`shelf`]: finished directories that processes hold while they use them.
//! - [`verify`]: whether a file is still what it was, without reading it again.
//!
//! Every lock is an open file description: the kernel releases it when the last
//! process that has it is gone, so there is nothing to clean up after a crash
//! but files, and a held lock means alive.

pub mod lock;
pub mod record;
pub mod shelf;
pub mod staging;
pub mod verify;

pub use record::write_atomically;

use crate::error::{Error, ErrorKind, Result};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Makes a directory, and those above it, that only this user can enter.
///
/// One that somebody else made in advance is refused: its owner could read and
/// replace what is in it.
///
/// # Errors
/// When it cannot be made, is no directory, or belongs to another user.
pub fn private_dir(path: &Path) -> Result<()> {
    let refused = |error| Error::io(format!("cannot make the directory {}", path.display()), error);
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(refused)?;
    let meta = path.metadata().map_err(refused)?;
    let user = rustix::process::geteuid().as_raw();
    let link_owner = path.symlink_metadata().map_err(refused)?.uid();
    if meta.uid() != user || (link_owner != user && link_owner != 0) {
        return Err(Error::new(
            ErrorKind::HostRequirement,
            format!("{} belongs to user {}, not to you ({user})", path.display(), meta.uid()),
        )
        .hint("set PYRO_HOME to a directory of your own"));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(refused)?;
    }
    Ok(())
}

/// Makes a directory in one that is there and private; it may be there already.
///
/// # Errors
/// When it cannot be made: not found, when the one above it is gone.
pub fn subdirectory(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::io(format!("cannot make the directory {}", path.display()), error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// How the names of directories begin that are being removed.
pub const DISCARDED_PREFIX: &str = ".gone-";

/// Removes a directory with all that is in it. First one rename takes its name
/// away: removing takes many steps, and one that is cut short leaves something
/// that says what it is.
///
/// # Errors
/// When the host's system refuses. That somebody else removed it is no error.
pub fn discard_dir(path: &Path) -> Result<()> {
    let refused = |error| Error::io(format!("cannot remove {}", path.display()), error);
    let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let name = path.file_name().ok_or_else(|| refused(io::ErrorKind::InvalidInput.into()))?;
    let mut gone = std::ffi::OsString::from(DISCARDED_PREFIX);
    gone.push(name);
    let gone = path.with_file_name(gone);
    match fs::rename(path, &gone).and_then(|()| fs::remove_dir_all(&gone)) {
        Err(error) if !absent(&error) => Err(refused(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Bytes that an unprivileged user may still write on the file system of a path.
///
/// # Errors
/// When the path does not exist or its file system does not say.
pub fn free_bytes(path: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(path)
        .map_err(|error| Error::io(format!("cannot size up {}", path.display()), error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes of disk that a file or a directory with all below it occupies. What
/// vanishes meanwhile counts as nothing.
#[must_use]
pub fn disk_usage(path: &Path) -> u64 {
    let Ok(meta) = path.symlink_metadata() else { return 0 };
    let below = if meta.is_dir() { fs::read_dir(path).ok() } else { None };
    let below: u64 = below.into_iter().flatten().flatten().map(|e| disk_usage(&e.path())).sum();
    // Linux counts blocks of 512 bytes, whatever the file system's own are.
    meta.blocks() * 512 + below
}

/// Makes a directory's entries survive a power failure.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes everything below a directory survive a power failure.
fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("it is there").mode() & 0o777
    }

    #[test]
    fn s3_directories_are_for_their_user_alone() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("a/b");
        private_dir(&path).expect("it is made");
        assert_eq!((mode(&path), mode(&home.path().join("a"))), (0o700, 0o700));
    }

    #[test]
    fn s3_loose_directories_are_tightened() {
        let home = tempfile::tempdir().expect("a directory");
        fs::set_permissions(home.path(), Permissions::from_mode(0o755)).expect("ours");
        private_dir(home.path()).expect("it is ours");
        assert_eq!(mode(home.path()), 0o700);
    }

    #[test]
    fn s3_directories_of_others_are_refused() {
        let theirs = if rustix::process::geteuid().is_root() {
            let home = tempfile::tempdir().expect("a directory").keep();
            std::os::unix::fs::chown(&home, Some(65534), None).expect("root may");
            home
        } else {
            "/".into()
        };
        let error = private_dir(&theirs).expect_err("it is not ours");
        assert_eq!(error.kind(), ErrorKind::HostRequirement);
        if theirs != Path::new("/") {
            fs::remove_dir_all(theirs).expect("root may");
        }
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("file");
        fs::write(&path, "").expect("written");
        let error = private_dir(&path).expect_err("a file is no directory");
        assert!(error.message().contains("file"), "{error}");
    }
}
