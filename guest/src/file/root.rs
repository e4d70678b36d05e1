//! Paths beneath the workspace's directory, or beneath the top of the whole tree
//! where that is only looked at.
//!
//! The kernel resolves them (`openat2` with `RESOLVE_BENEATH`), so nothing that
//! changes meanwhile leads out. It takes every absolute symlink for one that
//! leaves; those that point below `/workspace` are unfolded here, and the
//! kernel resolves what comes out of it. From the top of the whole tree there is
//! no way out, and an absolute symlink leads there (`RESOLVE_IN_ROOT`).

use super::fault::{invalid, out_of_tree, refused};
use super::walk::Walk;
use crate::commit::Commits;
use crate::guest::WORKSPACE;
use crate::work::Cancel;
use pyro_protocol::guest_path::PATH_MAX;
use pyro_protocol::{AgentError, GuestPath};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat2, readlinkat};
use rustix::io::Errno;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// How many symlinks one path may go through, as Linux has it.
const LINKS_MAX: usize = 40;

/// How often the kernel may be asked again when something was renamed while it
/// resolved a path with `..` in it.
const RENAMES_MAX: usize = 64;

/// What paths begin at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Top {
    /// `/workspace`.
    Workspace,
    /// `/`.
    Whole,
}

/// The workspace's directory, or the top of the whole tree.
#[derive(Debug)]
pub(crate) struct Root {
    directory: OwnedFd,
    top: Top,
    pub(crate) commits: Arc<Commits>,
}

/// A path below the top: names with single slashes between, none of them `.`;
/// empty is the top itself. It may still lead out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TreePath {
    top: Top,
    below: Vec<u8>,
}

impl TreePath {
    /// Takes a path below `/workspace` as callers write it.
    pub(crate) fn new(path: &GuestPath) -> Result<Self, AgentError> {
        Self::beneath(Top::Workspace, path)
    }

    fn beneath(top: Top, path: &GuestPath) -> Result<Self, AgentError> {
        let bytes = path.as_bytes();
        match (bytes.first(), top) {
            (Some(b'/'), _) => {
                let below = below(top, bytes).ok_or_else(|| out_of_tree(path))?;
                Ok(Self::from_bytes(top, &below))
            }
            (_, Top::Workspace) => Ok(Self::from_bytes(top, bytes)),
            (_, Top::Whole) => {
                Ok(Self::from_bytes(top, &[WORKSPACE.as_bytes(), b"/", bytes].concat()))
            }
        }
    }

    fn from_bytes(top: Top, bytes: &[u8]) -> Self {
        Self { top, below: names(bytes).collect::<Vec<_>>().join(&b'/') }
    }

    /// The top itself.
    fn of_top(top: Top) -> Self {
        Self { top, below: Vec::new() }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.below
    }

    /// Whether it is the top itself.
    pub(crate) fn is_root(&self) -> bool {
        self.below.is_empty()
    }

    /// The name at its end and what is before it.
    pub(crate) fn split(&self) -> Result<(Self, Vec<u8>), AgentError> {
        let (parent, name) = match self.below.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&self.below[..at], &self.below[at + 1..]),
            None => (&[][..], self.below.as_slice()),
        };
        match name {
            b"" => Err(invalid("/workspace itself cannot be replaced, moved or deleted")),
            b".." => Err(invalid(format!("{self} ends in ..: name what is meant"))),
            name => Ok((Self { top: self.top, below: parent.to_vec() }, name.to_vec())),
        }
    }

    /// Something in this directory.
    pub(crate) fn join(&self, name: &[u8]) -> Self {
        let slash: &[u8] = if self.is_root() || name.is_empty() { b"" } else { b"/" };
        Self { top: self.top, below: [self.below.as_slice(), slash, name].concat() }
    }

    /// As the guest's programs would name it; `None` when no call could.
    pub(crate) fn absolute(&self) -> Option<GuestPath> {
        GuestPath::new([self.before(), self.below.as_slice()].concat()).ok()
    }

    /// What stands before the names in an absolute path.
    fn before(&self) -> &'static [u8] {
        match (self.top, self.is_root()) {
            (Top::Whole, _) => b"/",
            (Top::Workspace, true) => WORKSPACE.as_bytes(),
            (Top::Workspace, false) => b"/workspace/",
        }
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, below] = [self.before(), &self.below].map(String::from_utf8_lossy);
        write!(f, "{before}{below}")
    }
}

fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// What of an absolute path lies below the top.
fn below(top: Top, path: &[u8]) -> Option<Vec<u8>> {
    let mut names = names(path);
    if top == Top::Workspace && names.next()? != &WORKSPACE.as_bytes()[1..] {
        return None;
    }
    Some(names.collect::<Vec<_>>().join(&b'/'))
}

/// A name in a directory that was found beneath the root.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) parent: OwnedFd,
    pub(crate) name: Vec<u8>,
}

impl Root {
    /// Opens what stands for the top.
    pub(crate) fn open(
        top: Top,
        directory: &Path,
        commits: Arc<Commits>,
    ) -> Result<Self, AgentError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(directory, flags, Mode::empty()) {
            Ok(directory) => Ok(Self { directory, top, commits }),
            Err(errno) => Err(refused(TreePath::of_top(top), errno)),
        }
    }

    /// Takes a path as callers write it: relative to `/workspace`, or absolute.
    pub(crate) fn path(&self, path: &GuestPath) -> Result<TreePath, AgentError> {
        TreePath::beneath(self.top, path)
    }

    /// Opens what a path leads to, through symlinks within the tree.
    pub(crate) fn open_at(&self, path: &TreePath, flags: OFlags) -> Result<OwnedFd, AgentError> {
        self.resolve(path, flags).map_err(|errno| refused(path, errno))
    }

    /// Opens the directory that a path leads to.
    pub(crate) fn open_directory(&self, path: &TreePath) -> Result<OwnedFd, AgentError> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Walks the directory that a path leads to. What commits are staging at
    /// the tree's root is not to be seen.
    pub(crate) fn walk(&self, path: &TreePath, cancel: &Cancel) -> Result<Walk, AgentError> {
        let is_commits = path.is_root() && self.top == Top::Workspace;
        let commits = is_commits.then(|| self.commits.clone());
        let length = path.as_bytes().len();
        Ok(Walk::new(self.open_directory(path)?, length, commits, cancel))
    }

    /// Where a path's last name is; that itself is not looked at.
    pub(crate) fn place(&self, path: &TreePath) -> Result<Place, AgentError> {
        let (parent, name) = path.split()?;
        let parent = self
            .resolve(&parent, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|errno| refused(path, errno))?;
        Ok(Place { parent, name })
    }

    /// Where a path leads when its last name is a symlink: the path of what is
    /// no symlink, or is not there.
    pub(crate) fn target(&self, path: &TreePath) -> Result<TreePath, AgentError> {
        let mut target = path.clone();
        for _ in 0..LINKS_MAX {
            let (parent, name) = target.split()?;
            let directory = match self.resolve(&parent, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(directory) => directory,
                Err(Errno::NOENT) => return Ok(target),
                Err(errno) => return Err(refused(path, errno)),
            };
            match readlinkat(&directory, name.as_slice(), Vec::new()) {
                Ok(link) => {
                    target = follow(&parent, link.as_bytes()).ok_or_else(|| out_of_tree(path))?;
                }
                Err(Errno::INVAL | Errno::NOENT) => return Ok(target),
                Err(errno) => return Err(refused(path, errno)),
            }
        }
        Err(refused(path, Errno::LOOP))
    }

    /// The deepest directory on the way to a path that is there.
    pub(crate) fn nearest(&self, path: &TreePath) -> Result<OwnedFd, AgentError> {
        let mut ancestor = path.clone();
        while !ancestor.is_root() {
            ancestor = ancestor.split()?.0;
            match self.resolve(&ancestor, OFlags::RDONLY | OFlags::DIRECTORY) {
                Err(Errno::NOENT) => {}
                opened => return opened.map_err(|errno| refused(path, errno)),
            }
        }
        self.open_directory(&ancestor)
    }

    /// As [`Self::place`], and makes the directories on the way.
    pub(crate) fn make_place(&self, path: &TreePath) -> Result<Place, AgentError> {
        let (parent, name) = path.split()?;
        let mut reached = TreePath::of_top(self.top);
        let mut directory = self.resolve(&reached, OFlags::RDONLY | OFlags::DIRECTORY);
        for name in names(parent.as_bytes()) {
            reached = reached.join(name);
            let next = match self.resolve(&reached, OFlags::RDONLY | OFlags::DIRECTORY) {
                Err(Errno::NOENT) => {
                    let above = directory.map_err(|errno| refused(path, errno))?;
                    match mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(refused(&reached, errno)),
                    }
                    self.resolve(&reached, OFlags::RDONLY | OFlags::DIRECTORY)
                }
                next => next,
            };
            directory = next;
            if directory.is_err() {
                break;
            }
        }
        let parent = directory.map_err(|errno| refused(&reached, errno))?;
        Ok(Place { parent, name })
    }

    fn resolve(&self, path: &TreePath, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut unfolded = path.clone();
        for _ in 0..LINKS_MAX {
            match self.beneath(&unfolded, flags) {
                Err(Errno::XDEV) => unfolded = self.unfold(&unfolded)?,
                resolved => return resolved,
            }
        }
        Err(Errno::LOOP)
    }

    fn beneath(&self, path: &TreePath, flags: OFlags) -> Result<OwnedFd, Errno> {
        let bytes = if path.is_root() { b".".as_slice() } else { path.as_bytes() };
        let flags = flags | OFlags::CLOEXEC;
        let bounds = match self.top {
            Top::Workspace => ResolveFlags::BENEATH,
            Top::Whole => ResolveFlags::IN_ROOT,
        };
        let within = bounds | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RENAMES_MAX {
            match openat2(&self.directory, bytes, flags, Mode::empty(), within) {
                Err(Errno::AGAIN) => {}
                opened => return opened,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Replaces the first symlink that the kernel takes for one that leaves by
    /// what it points to, if that is below `/workspace`.
    fn unfold(&self, path: &TreePath) -> Result<TreePath, Errno> {
        let parts: Vec<_> = names(path.as_bytes()).collect();
        for end in 1..=parts.len() {
            let (walked, rest) = parts.split_at(end);
            let walked = TreePath { top: self.top, below: walked.join(&b'/') };
            match self.beneath(&walked, OFlags::PATH) {
                Err(Errno::XDEV) => {}
                Ok(_) => continue,
                Err(errno) => return Err(errno),
            }
            let link = self.beneath(&walked, OFlags::PATH | OFlags::NOFOLLOW)?;
            let target = readlinkat(&link, c"", Vec::new()).map_err(|_| Errno::XDEV)?;
            let (parent, _) = walked.split().map_err(|_| Errno::XDEV)?;
            let target = follow(&parent, target.as_bytes()).ok_or(Errno::XDEV)?;
            let unfolded = rest.iter().fold(target, |path, name| path.join(name));
            return if unfolded.as_bytes().len() > PATH_MAX {
                Err(Errno::NAMETOOLONG)
            } else {
                Ok(unfolded)
            };
        }
        // Nothing leaves any more: somebody changed it meanwhile.
        Ok(path.clone())
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Where a symlink in a directory points to, if that is below the top or
/// relative.
fn follow(directory: &TreePath, target: &[u8]) -> Option<TreePath> {
    match target.first() {
        Some(b'/') => Some(TreePath { top: directory.top, below: below(directory.top, target)? }),
        _ => {
            let joined = [directory.as_bytes(), b"/", target].concat();
            Some(TreePath::from_bytes(directory.top, &joined))
        }
    }
}

/// Not to follow a symlink at the end.
pub(crate) const NOFOLLOW: AtFlags = AtFlags::SYMLINK_NOFOLLOW;
