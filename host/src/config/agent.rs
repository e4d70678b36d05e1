use crate::digest::Digest;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The static `pyro-agent` that is baked into images.
#[derive(Clone, PartialEq, Eq)]
pub enum AgentProgram {
    /// In a file of its own.
    File(PathBuf),
    /// In `pyro` itself.
    BuiltIn(&'static [u8]),
}

impl AgentProgram {
    /// What it hashes to.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn digest(&self) -> io::Result<Digest> {
        match self {
            Self::File(path) => Digest::of_file(path),
            Self::BuiltIn(bytes) => Ok(Digest::of(bytes)),
        }
    }

    /// Puts a copy of it somewhere.
    ///
    /// # Errors
    /// When its file cannot be read, or the copy not be written.
    pub fn copy_to(&self, to: &Path) -> io::Result<()> {
        match self {
            Self::File(path) => fs::copy(path, to).map(drop),
            Self::BuiltIn(bytes) => fs::write(to, bytes),
        }
    }
}

impl From<PathBuf> for AgentProgram {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

/// Where it is.
impl fmt::Display for AgentProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::BuiltIn(_) => f.write_str("pyro itself"),
        }
    }
}

impl fmt::Debug for AgentProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentProgram({self})")
    }
}
