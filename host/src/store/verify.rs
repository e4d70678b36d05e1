//! Whether a file is what its digest says, without reading it every time.
//!
//! The file is hashed once. Then a stamp beside it remembers which file that
//! was: device, inode, size and both times. Whoever changes the file changes its
//! ctime, which nobody can set back; then it is hashed again.

use super::record::{self, Record};
use crate::digest::Measured;
use serde::{Deserialize, Serialize};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A file's times move in ticks: what changes within one tick of another change
/// looks unchanged. So a stamp is taken only this long after the last change.
const TICK: Duration = Duration::from_millis(20);

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is not there.
    #[error("it is missing")]
    Missing,
    /// It cannot be read, or is no file.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// It is longer or shorter.
    #[error("it has {actual} bytes and should have {expected}")]
    Length {
        /// What the manifest says.
        expected: u64,
        /// What the file has.
        actual: u64,
    },
    /// Its content is another.
    #[error("its digest is {actual} and should be {expected}")]
    Content {
        /// The first digits of what it should be.
        expected: String,
        /// The first digits of what it is.
        actual: String,
    },
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
            Self::Missing
        } else {
            Self::Unreadable(error)
        }
    }
}

/// Which file it was whose content has that digest.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp<D> {
    digest: D,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<D: Measured> Record for Stamp<D> {
    const VERSION: u32 = 1;
}

impl<D: Measured> Stamp<D> {
    fn new(digest: D, meta: &Metadata) -> Self {
        Self {
            digest,
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    fn is_settled(&self) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let (Ok(seconds), Ok(nanoseconds)) = (seconds.try_into(), nanoseconds.try_into()) else {
            return false;
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        SystemTime::now().duration_since(changed).is_ok_and(|age| age > TICK)
    }
}

fn stamp_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".verified");
    name.into()
}

/// Whether the file's stamp vouches for this content.
fn is_verified<D: Measured>(file: &Path, expected: D) -> bool {
    let Ok(meta) = file.symlink_metadata() else { return false };
    record::read::<Stamp<D>>(&stamp_of(file))
        .is_ok_and(|stamp| stamp == Stamp::new(expected, &meta))
}

/// Sees whether a file is there and has this length.
///
/// # Errors
/// What is wrong with the file.
pub fn glance(file: &Path, size: u64) -> Result<(), Fault> {
    let meta = file.symlink_metadata()?;
    if !meta.is_file() {
        return Err(irregular());
    }
    if meta.size() != size {
        return Err(Fault::Length { expected: size, actual: meta.size() });
    }
    Ok(())
}

/// Proves that a file has this length and content, by its stamp if that still
/// fits, else by reading all of it.
///
/// # Errors
/// What is wrong with the file.
pub fn verify<D: Measured>(file: &Path, expected: D, size: u64) -> Result<(), Fault> {
    glance(file, size)?;
    verify_content(file, expected)
}

/// The same of a file whose length nobody said.
///
/// # Errors
/// What is wrong with the file.
pub fn verify_content<D: Measured>(file: &Path, expected: D) -> Result<(), Fault> {
    if !file.symlink_metadata()?.is_file() {
        return Err(irregular());
    }
    if is_verified(file, expected) {
        // A stamp vouches for the content, not for the right to read it.
        rustix::fs::access(file, rustix::fs::Access::READ_OK).map_err(io::Error::from)?;
        return Ok(());
    }
    let actual: D = measure(file)?;
    if actual != expected {
        return Err(Fault::Content { expected: expected.brief(), actual: actual.brief() });
    }
    Ok(())
}

/// Hashes a file and leaves a stamp beside it.
///
/// # Errors
/// When it cannot be read.
pub fn measure<D: Measured>(file: &Path) -> io::Result<D> {
    let open = File::open(file)?;
    let before = open.metadata()?;
    let digest = D::of_file(&open)?;
    let stamp = Stamp::new(digest, &before);
    if stamp == Stamp::new(digest, &open.metadata()?) && stamp.is_settled() {
        // Without a stamp it is only hashed again: a full disk does no harm.
        drop(record::write(&stamp_of(file), &stamp));
    }
    Ok(digest)
}

fn irregular() -> Fault {
    Fault::Unreadable(io::Error::other("it is no regular file"))
}
