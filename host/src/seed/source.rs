//! What a seed can be made from.

use super::archive;
use super::directory::{FileId, Top};
use super::git::{self, Git};
use super::walk::Walk;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// What a seed is made from. It can be walked more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nothing: an empty directory.
    Empty,
    /// A directory and all in it.
    Directory(PathBuf),
    /// The members of a tar archive: plain, or compressed by gzip or zstd.
    Archive(PathBuf),
    /// The git work tree that a path is in: see [`super::git`].
    Git {
        /// The program that knows which files belong to it.
        git: Git,
        /// The work tree, or a directory in it.
        path: PathBuf,
    },
}

/// What a walk needs of the host besides the source.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// A file that is being written meanwhile: it is left out, wherever it is.
    pub avoid: Option<FileId>,
    /// A directory for what is too large for memory; nothing stays in it.
    pub scratch: &'a Path,
}

impl Source {
    /// Decides by what the path leads to.
    ///
    /// # Errors
    /// When it leads nowhere, or to what is neither directory nor file.
    pub fn from_path(path: &Path) -> Result<Self> {
        let meta = path.metadata().map_err(|error| Error::unreadable(path, error))?;
        if meta.is_dir() {
            Ok(Self::Directory(path.to_owned()))
        } else if meta.is_file() {
            Ok(Self::Archive(path.to_owned()))
        } else {
            Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "cannot seed from {}: it is neither a directory nor a file",
                    path.display()
                ),
            )
            .hint("name a directory, or an archive: .tar, .tar.gz or .tar.zst"))
        }
    }

    /// The git work tree that a path is in.
    ///
    /// # Errors
    /// When git is not installed.
    pub fn git(config: &Config, path: &Path) -> Result<Self> {
        Ok(Self::Git { git: Git::find(config)?, path: path.to_owned() })
    }

    /// Shows everything in it.
    ///
    /// # Errors
    /// When it cannot be read, or the visitor does not want to see more.
    pub fn walk(&self, walk: &mut Walk<'_>, around: Surroundings<'_>) -> Result<()> {
        match self {
            Source::Empty => Ok(()),
            Source::Directory(path) => {
                let mut top = Top::open(path, around.avoid)?;
                let (mode, mtime) = top.stat()?;
                walk.root(mode, mtime)?;
                top.walk(walk)
            }
            Source::Archive(path) => archive::walk(path, walk),
            Source::Git { git, path } => git::walk(git, path, walk, around),
        }
    }
}
