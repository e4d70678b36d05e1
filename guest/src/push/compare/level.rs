//! A directory of the source, and the one that it is compared with.

use crate::commit::Commits;
use crate::file::names;
use crate::file::root::NOFOLLOW;
use crate::push::plan::{Deed, Planned, Seen};
use crate::push::refused;
use crate::push::spool::Log;
use crate::work::Stop;
use pyro_protocol::ByteString;
use pyro_protocol::file::FileTime;
use rustix::fs::statat;
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// What the names of directories may take in memory at a time, in bytes. Each
/// directory may take half of what those above it have left, as in a walk: a
/// huge one is read again for each part of its names that fits.
const NAMES_MAX: usize = 2 * 1024 * 1024;

/// What a directory may take in any case. There are as many as the path of an
/// entry has names.
const NAMES_MIN: usize = 4 * 1024;

/// What the next directory may take, within these.
pub(super) fn budget(levels: &[Level]) -> usize {
    let held = levels.iter().map(|level| level.beside.budget).sum::<usize>();
    (NAMES_MAX.saturating_sub(held) / 2).max(NAMES_MIN)
}

/// A directory that entries are being compared in.
pub(super) struct Level {
    /// Below the source.
    pub(super) path: Vec<u8>,
    /// What is there; `None` when it is yet to be made.
    pub(super) directory: Option<OwnedFd>,
    pub(super) beside: Beside,
    /// `None` for the destination itself.
    pub(super) wanted: Option<Wanted>,
    /// Whether names in it may change, and with them its time.
    pub(super) changed: bool,
}

/// What a directory of the source is to be.
pub(super) struct Wanted {
    /// What was there.
    pub(super) seen: Seen,
    /// Another mode than it has.
    pub(super) mode: Option<u32>,
    /// Its time, if names in it change.
    pub(super) modified: FileTime,
}

/// The names that are there, in order, to find those that the source does not
/// have.
pub(super) struct Beside {
    directory: Option<OwnedFd>,
    /// Below the tree's root.
    path: Vec<u8>,
    names: std::vec::IntoIter<Vec<u8>>,
    next: Option<Vec<u8>>,
    last: Vec<u8>,
    more: bool,
    budget: usize,
    /// What they stage here is not the source's to delete.
    commits: Option<Arc<Commits>>,
}

impl Beside {
    pub(super) fn new(
        directory: Option<&OwnedFd>,
        path: Vec<u8>,
        budget: usize,
        commits: Option<Arc<Commits>>,
    ) -> Result<Self, Stop> {
        let directory = match directory.map(OwnedFd::try_clone).transpose() {
            Ok(directory) => directory,
            Err(error) => return Err(super::system("a directory", &error)),
        };
        let more = directory.is_some();
        let (names, last) = (Vec::new().into_iter(), Vec::new());
        Ok(Self { directory, path, names, next: None, last, more, budget, commits })
    }

    /// Goes past a name that the source has: what comes before it is deleted.
    pub(super) fn pass(
        &mut self,
        name: &[u8],
        planned: &mut Log<Planned>,
        changed: &mut bool,
    ) -> Result<(), Stop> {
        while let Some(next) = self.peek()? {
            if next.as_slice() > name {
                return Ok(());
            }
            let Some(next) = self.next.take() else { return Ok(()) };
            if next != name {
                self.delete(&next, planned, changed)?;
            }
        }
        Ok(())
    }

    /// Deletes all that is left.
    pub(super) fn rest(
        &mut self,
        planned: &mut Log<Planned>,
        changed: &mut bool,
    ) -> Result<(), Stop> {
        while self.peek()?.is_some() {
            let Some(next) = self.next.take() else { return Ok(()) };
            self.delete(&next, planned, changed)?;
        }
        Ok(())
    }

    fn delete(
        &self,
        name: &[u8],
        planned: &mut Log<Planned>,
        changed: &mut bool,
    ) -> Result<(), Stop> {
        let Some(directory) = &self.directory else { return Ok(()) };
        if self.commits.as_ref().is_some_and(|commits| commits.is_staging(name)) {
            return Ok(());
        }
        let path = match self.path.is_empty() {
            true => name.to_vec(),
            false => [self.path.as_slice(), b"/", name].concat(),
        };
        let seen = match statat(directory, name, NOFOLLOW) {
            Ok(stat) => Seen::of(Some(&stat)),
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(refused(&path, errno).into()),
        };
        *changed = true;
        let deed = Deed::Delete { is_directory: seen == Seen::Directory };
        planned.push(&Planned { path: ByteString(path), seen, deed })
    }

    fn peek(&mut self) -> Result<Option<&Vec<u8>>, Stop> {
        if self.next.is_none() {
            if self.names.len() == 0
                && self.more
                && let Some(directory) = &self.directory
            {
                let page = names::page(directory.as_fd(), &self.last, self.budget);
                let page = page.map_err(|errno| refused(&self.path, errno))?;
                (self.names, self.more) = (page.names.into_iter(), page.more);
            }
            self.next = self.names.next();
            if let Some(next) = &self.next {
                self.last.clone_from(next);
            }
        }
        Ok(self.next.as_ref())
    }
}

/// Whether a path comes after another in the order of a tree.
pub(super) fn in_order(before: &[u8], after: &[u8]) -> bool {
    let names = |path| <[u8]>::split(path, |byte| *byte == b'/');
    before.is_empty() || names(before).lt(names(after))
}
