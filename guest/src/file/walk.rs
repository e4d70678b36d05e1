//! The tree below a directory, in order, with bounded memory.

use super::names;
use crate::commit::Commits;
use crate::work::{Cancel, Stop};
use pyro_protocol::guest_path::PATH_MAX;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Directories within one another that a walk enters: it holds each one open.
pub(crate) const DEPTH_MAX: usize = 256;

/// The names that a walk holds, in bytes. Each directory may take half of what
/// those above it have left.
const NAMES_MAX: usize = 2 * 1024 * 1024;

/// What a directory may take in any case.
const NAMES_MIN: usize = 4 * 1024;

/// The longest path below the workspace's that can still be told.
const RELATIVE_MAX: usize = PATH_MAX - "/workspace/".len();

/// A walk: every name after the start, each directory right before what is in
/// it, unless it is not [entered](Walk::enter).
#[derive(Debug)]
pub(crate) struct Walk {
    levels: Vec<Level>,
    /// The path of the last name, below where the walk began.
    path: Vec<u8>,
    /// How long paths may become.
    path_max: usize,
    /// What they stage where the walk began is passed over.
    commits: Option<Arc<Commits>>,
    cancel: Cancel,
}

#[derive(Debug)]
struct Level {
    directory: OwnedFd,
    /// How much of the path is this directory's own.
    path_len: usize,
    names: std::vec::IntoIter<Vec<u8>>,
    more: bool,
    /// The last name that was given.
    last: Vec<u8>,
    budget: usize,
}

impl Level {
    fn next(&mut self) -> Result<Option<Vec<u8>>, Errno> {
        if self.names.len() == 0 && self.more {
            let page = names::page(self.directory.as_fd(), &self.last, self.budget)?;
            (self.names, self.more) = (page.names.into_iter(), page.more);
        }
        let name = self.names.next();
        if let Some(name) = &name {
            self.last.clone_from(name);
        }
        Ok(name)
    }
}

/// Whether a directory was entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entered {
    Yes,
    /// It is gone, or is no directory any more.
    Gone,
    /// It cannot be looked into.
    Unreadable(Errno),
    /// What is in it has no path that could be told, or lies too deep.
    TooDeep,
}

impl Walk {
    /// Walks a directory whose own path below the workspace has this length.
    pub(crate) fn new(
        directory: OwnedFd,
        path_len: usize,
        commits: Option<Arc<Commits>>,
        cancel: &Cancel,
    ) -> Self {
        let path_max = RELATIVE_MAX.saturating_sub(path_len + 1);
        let (levels, path, cancel) = (Vec::new(), Vec::new(), cancel.clone());
        let mut walk = Self { levels, path, path_max, commits, cancel };
        walk.push(directory, Vec::new());
        walk
    }

    /// Goes on after a name where it began, without what is in it.
    pub(crate) fn skip_past(&mut self, name: &[u8]) {
        if let Some(level) = self.levels.last_mut() {
            level.last = name.to_vec();
        }
    }

    /// Goes on after a path that it, or another walk, came by.
    pub(crate) fn skip_to(&mut self, after: &[u8]) {
        for name in after.split(|byte| *byte == b'/') {
            self.skip_past(name);
            self.set_name(name);
            if self.enter() != Entered::Yes {
                return;
            }
        }
    }

    fn push(&mut self, directory: OwnedFd, last: Vec<u8>) {
        let held = self.levels.iter().map(|level| level.budget).sum::<usize>();
        let budget = (NAMES_MAX.saturating_sub(held) / 2).max(NAMES_MIN);
        self.levels.push(Level {
            directory,
            path_len: self.path.len(),
            names: Vec::new().into_iter(),
            more: true,
            last,
            budget,
        });
    }

    fn set_name(&mut self, name: &[u8]) {
        let path_len = self.levels.last().map_or(0, |level| level.path_len);
        self.path.truncate(path_len);
        if path_len > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }

    /// The next name; [`Self::path`] is its path. `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, Stop> {
        loop {
            self.cancel.check()?;
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            match level.next() {
                Ok(Some(name)) => {
                    let is_first = self.levels.len() == 1;
                    let staged = |commits: &Arc<Commits>| commits.is_staging(&name);
                    if is_first && self.commits.as_ref().is_some_and(staged) {
                        continue;
                    }
                    self.set_name(&name);
                    return Ok(Some(name));
                }
                // A directory that vanished has nothing more.
                Ok(None) | Err(Errno::NOENT) => {
                    self.path.truncate(level.path_len);
                    if self.levels.len() == 1 {
                        return Ok(None);
                    }
                    self.levels.pop();
                }
                Err(errno) => {
                    let path = String::from_utf8_lossy(&self.path);
                    return Err(super::fault::refused(path, errno).into());
                }
            }
        }
    }

    /// The path of the last name, below where the walk began.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The directory that the last name is in.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        let level = self.levels.last().expect("the first level stays");
        level.directory.as_fd()
    }

    /// Goes into the directory that has the last name.
    pub(crate) fn enter(&mut self) -> Entered {
        if self.levels.len() >= DEPTH_MAX || self.path.len() >= self.path_max {
            return Entered::TooDeep;
        }
        let name = match self.path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => &self.path[at + 1..],
            None => &self.path,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(self.directory(), name, flags, Mode::empty()) {
            Ok(directory) => {
                self.push(directory, Vec::new());
                Entered::Yes
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Entered::Gone,
            Err(errno) => Entered::Unreadable(errno),
        }
    }
}
