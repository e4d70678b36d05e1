//! What a seed can be made from.

use super::archive;
use super::directory::{FileId, Top};
use super::git::{self, Git};
use super::walk::Walk;
use crate::config::Config;
use crate::context::Admitted;
use crate::error::{Error, ErrorKind, Result};
use rustix::fs::{FileType, OFlags, fstat};
use std::path::Path;

/// What a seed is made from. It can be walked more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nothing: an empty directory.
    Empty,
    /// A directory and all in it.
    Directory(Admitted),
    /// The members of a tar archive: plain, or compressed by gzip or zstd.
    Archive(Admitted),
    /// The git work tree that a path is in: see [`super::git`].
    Git {
        /// The program that knows which files belong to it.
        git: Git,
        /// The work tree, or a directory in it.
        path: Admitted,
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
    pub fn from_path(path: impl Into<Admitted>) -> Result<Self> {
        let path = path.into();
        let stat = path
            .open(OFlags::PATH)
            .and_then(|there| Ok(fstat(&there)?))
            .map_err(|error| Error::unreadable(path.path(), error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Ok(Self::Directory(path)),
            FileType::RegularFile => Ok(Self::Archive(path)),
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {
                let path = path.path().display();
                let message =
                    format!("cannot seed from {path}: it is neither a directory nor a file");
                Err(Error::new(ErrorKind::InvalidInput, message)
                    .hint("name a directory, or an archive: .tar, .tar.gz or .tar.zst"))
            }
        }
    }

    /// The git work tree that a path is in.
    ///
    /// # Errors
    /// When git is not installed.
    pub fn git(config: &Config, path: impl Into<Admitted>) -> Result<Self> {
        Ok(Self::Git { git: Git::find(config)?, path: path.into() })
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
