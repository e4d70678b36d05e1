//! Which layers a diff is about, and which of their paths.

use super::layers::Layers;
use crate::beneath;
use crate::commit::Commits;
use crate::guest::{Guest, Machine};
use pyro_protocol::diff::{DIFF_PATHS_MAX, DiffScope};
use pyro_protocol::{AgentError, AgentErrorKind, GuestPath};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// What is compared.
pub(super) struct Scope {
    pub(super) layers: Layers,
    commits: Arc<Commits>,
    /// What of the layers it is about, when they are the root's and it is about
    /// an unseeded workspace, which is a directory of it.
    prefix: Vec<u8>,
    /// Only these paths, if any, as the layers have them.
    paths: Vec<Vec<u8>>,
    scope: DiffScope,
}

/// Of the root's overlay: what others are mounted on, and what the agent writes
/// itself when it gives the machine an identity.
const NOT_THE_USERS: [&[u8]; 9] = [
    b"workspace",
    b"proc",
    b"sys",
    b"dev",
    b"run",
    b"etc/hostname",
    b"etc/machine-id",
    b"etc/hosts",
    b"etc/resolv.conf",
];

/// Where an unseeded workspace is in the root.
const WORKSPACE: &[u8] = b"workspace";

impl Scope {
    pub(super) fn new(
        guest: &Guest,
        scope: DiffScope,
        paths: &[GuestPath],
    ) -> Result<Self, AgentError> {
        let commits = guest.commits()?;
        let (layers, prefix) = open(guest, scope).map_err(|error| {
            let text = format!("opening the layers: {error}");
            AgentError::new(AgentErrorKind::System, text)
        })?;
        if paths.len() > DIFF_PATHS_MAX {
            let text = format!("{} paths; at most {DIFF_PATHS_MAX}", paths.len());
            return Err(AgentError::new(AgentErrorKind::InvalidArgument, text));
        }
        let resolved = paths.iter().map(|path| resolve(path, scope));
        let paths = resolved.collect::<Result<Vec<_>, _>>()?;
        let paths = match paths.iter().any(Vec::is_empty) {
            // The whole of it is among them.
            true => Vec::new(),
            false => paths.iter().map(|path| super::layers::join(&prefix, path)).collect(),
        };
        Ok(Self { layers, commits, prefix, paths, scope })
    }

    /// Whether a path of the layers, or one below it, may be told.
    pub(super) fn is_wanted(&self, path: &[u8]) -> bool {
        let leads = |to: &[u8]| to == path || is_below(path, to) || is_below(to, path);
        !self.is_hidden(path)
            && (self.prefix.is_empty() || leads(&self.prefix))
            && (self.paths.is_empty() || self.paths.iter().any(|to| leads(to)))
    }

    /// Whether a path of the layers is to be told.
    pub(super) fn is_told(&self, path: &[u8]) -> bool {
        let covers = |from: &Vec<u8>| from == path || is_below(path, from);
        !self.is_hidden(path)
            && (self.prefix.is_empty() || is_below(path, &self.prefix))
            && (self.paths.is_empty() || self.paths.iter().any(covers))
    }

    /// A path of the layers as the caller knows it.
    pub(super) fn shown(&self, path: &[u8]) -> Vec<u8> {
        match path.strip_prefix(self.prefix.as_slice()) {
            Some(rest) => rest.strip_prefix(b"/").unwrap_or(rest).to_vec(),
            None => path.to_vec(),
        }
    }

    /// A file for what is too large to be held.
    pub(super) fn spool(&self) -> io::Result<File> {
        self.commits.spool()
    }

    /// Whether the caller named it, or what it is in, or something in it.
    fn asks_for_gits_own(&self, path: &[u8]) -> bool {
        let leads = |to: &Vec<u8>| to == path || is_below(path, to) || is_below(to, path);
        self.paths.iter().any(|asked| is_gits_own(asked) && leads(asked))
    }

    fn is_hidden(&self, path: &[u8]) -> bool {
        match self.scope {
            DiffScope::Workspace => {
                let shown = match self.prefix.is_empty() {
                    true => Some(path),
                    false => path.get(self.prefix.len() + 1..),
                };
                shown.is_some_and(|shown| self.commits.is_staging(shown))
                    || (is_gits_own(path) && !self.asks_for_gits_own(path))
            }
            DiffScope::System => {
                NOT_THE_USERS.iter().any(|not| path == *not || is_below(path, not))
            }
        }
    }
}

/// Whether a path is git's own bookkeeping. No patch can change that: git
/// refuses one that tries to.
fn is_gits_own(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|name| name == b".git")
}

/// Whether a path lies below another.
fn is_below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn open(guest: &Guest, scope: DiffScope) -> io::Result<(Layers, Vec<u8>)> {
    match (&guest.machine, scope) {
        (Machine::Virtual { .. }, scope) => {
            let disk = guest.disk().ok_or(io::ErrorKind::NotFound)?;
            let top = disk.top();
            let part = |path: &[u8]| beneath::directory(top, path);
            let of_root = || -> io::Result<Layers> {
                Ok(Layers {
                    lower: disk.base().try_clone()?,
                    upper: part(b"root/upper")?,
                    index: absent(part(b"root/work/index"))?,
                    hard_links: None,
                })
            };
            match (scope, disk.seed()) {
                (DiffScope::System, _) => Ok((of_root()?, Vec::new())),
                (DiffScope::Workspace, None) => Ok((of_root()?, WORKSPACE.to_vec())),
                (DiffScope::Workspace, Some(seed)) => {
                    let layers = Layers {
                        lower: beneath::directory(seed, b"tree")?,
                        upper: part(b"workspace/upper")?,
                        index: absent(part(b"workspace/work/index"))?,
                        hard_links: absent(table(seed))?,
                    };
                    Ok((layers, Vec::new()))
                }
            }
        }
        (Machine::InProcess { layers: Some(paths), .. }, DiffScope::Workspace) => {
            let open = |path: &Path| File::open(path).map(OwnedFd::from);
            let layers = Layers {
                lower: open(&paths.lower)?,
                upper: open(&paths.upper)?,
                index: Some(open(&paths.work.join("index"))?),
                hard_links: paths.hard_links.as_deref().map(open).transpose()?,
            };
            Ok((layers, Vec::new()))
        }
        (Machine::InProcess { .. }, DiffScope::Workspace | DiffScope::System) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this guest has none"))
        }
    }
}

fn table(seed: impl AsFd) -> rustix::io::Result<OwnedFd> {
    beneath::open(seed, b"hard-links", rustix::fs::OFlags::RDONLY)
}

fn absent(opened: rustix::io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A caller's path, relative to the scope's top; empty for all of it.
fn resolve(path: &GuestPath, scope: DiffScope) -> Result<Vec<u8>, AgentError> {
    let outside = || {
        let text = format!("{path} is not in what is compared");
        AgentError::new(AgentErrorKind::OutOfTree, text)
    };
    let bytes = path.as_bytes();
    let relative = match (scope, bytes.strip_prefix(b"/")) {
        (DiffScope::Workspace, Some(absolute)) => {
            let rest = absolute.strip_prefix(WORKSPACE).ok_or_else(outside)?;
            if !matches!(rest.first(), None | Some(b'/')) {
                return Err(outside());
            }
            rest
        }
        (DiffScope::System, Some(absolute)) => absolute,
        (DiffScope::Workspace | DiffScope::System, None) => bytes,
    };
    let names = relative.split(|byte| *byte == b'/');
    let names: Vec<_> = names.filter(|name| !matches!(*name, b"" | b".")).collect();
    if names.contains(&b"..".as_slice()) {
        return Err(outside());
    }
    Ok(names.join(&b'/'))
}
