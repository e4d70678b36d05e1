//! What stands for a workspace's disk where there is none.

use rustix::fs::{Mode, OFlags};
use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// How often removing is tried: as often as threads may be at work, and some.
const ATTEMPTS: usize = 16;

/// A directory among the caller's temporary ones, made when it is needed and
/// removed when dropped.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Mutex<Option<PathBuf>>);

impl Scratch {
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        let mut path = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let path = match &mut *path {
            Some(path) => path,
            none => none.insert(make()?),
        };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(&*path, flags, Mode::empty())?)
    }
}

fn make() -> io::Result<PathBuf> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let name = format!("pyro-agent-{:016x}", u64::from_le_bytes(random));
    let path = std::env::temp_dir().join(name);
    DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let path = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = path {
            // A thread that is still at work in it may take a file away before
            // us. What stays at last is cleared with all temporary directories.
            let gone = |_| std::fs::remove_dir_all(&*path).is_ok() || !path.exists();
            let _ = (0..ATTEMPTS).any(gone);
        }
    }
}
