//! Making seeds, and trees to make them of.

use crate::image::{Image, Tree};
use pyro::Result;
use pyro::seed::{self, Built, Source};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A place for a test's own files.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A new directory.
    pub fn dir(&self, name: &str) -> PathBuf {
        fs::create_dir_all(self.path(name)).unwrap();
        self.path(name)
    }

    /// A new file.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// Makes a seed, and reads it back.
    pub fn seed(&self, source: &Source) -> (Built, Tree) {
        let image = self.path("seed.erofs");
        drop(fs::remove_file(&image));
        let built = build(source, &image).unwrap_or_else(|error| panic!("{}", error.chain()));
        assert_eq!(seed::digest_of(&image).unwrap(), built.digest);
        assert_eq!(image.metadata().unwrap().len(), seed::SEED_DEVICE_BYTES);
        (built, Image::open(&image).tree())
    }

    /// The same from a path.
    pub fn seed_path(&self, path: &Path) -> (Built, Tree) {
        self.seed(&Source::from_path(path).unwrap())
    }

    /// Why no seed can be made of a path.
    pub fn refusal(&self, path: &Path) -> pyro::Error {
        let image = self.path("refused.erofs");
        drop(fs::remove_file(&image));
        let made = Source::from_path(path).and_then(|source| build(&source, &image));
        made.expect_err("no seed")
    }
}

pub fn build(source: &Source, image: &Path) -> Result<Built> {
    seed::build(source, image, &CancellationToken::new())
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

pub fn set_mtime(path: &Path, secs: i64, nanos: u32) {
    let time = Timespec { tv_sec: secs, tv_nsec: i64::from(nanos) };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
