//! What a seed can be made from.

use super::directory::{FileId, Top};
use super::walk::Walk;
use crate::error::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// What a seed is made from. It can be walked more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nothing: an empty directory.
    Empty,
    /// A directory and all in it.
    Directory(PathBuf),
}

impl Source {
    /// Decides by what the path leads to.
    ///
    /// # Errors
    /// When it leads nowhere, or to what is neither directory nor file.
    pub fn from_path(path: &Path) -> Result<Self> {
        let meta = path.metadata().map_err(|error| {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            let kind = if missing { ErrorKind::NotFound } else { ErrorKind::Io };
            Error::new(kind, format!("cannot seed from {}", path.display())).because(error)
        })?;
        if meta.is_dir() {
            Ok(Self::Directory(path.to_owned()))
        } else {
            Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "cannot seed from {}: it is neither a directory nor a file",
                    path.display()
                ),
            ))
        }
    }

    /// Shows everything in it. The file to avoid is left out of directories.
    ///
    /// # Errors
    /// When it cannot be read, or the visitor does not want to see more.
    pub fn walk(&self, walk: &mut Walk<'_>, avoid: Option<FileId>) -> Result<()> {
        match self {
            Source::Empty => Ok(()),
            Source::Directory(path) => {
                let mut top = Top::open(path, avoid)?;
                let (mode, mtime) = top.stat()?;
                walk.root(mode, mtime)?;
                top.walk(walk)
            }
        }
    }
}
