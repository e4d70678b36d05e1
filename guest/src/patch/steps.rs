//! From a plan to a commit.

use super::plan::{Now, Plan, State};
use super::tree::{self, Original, conflict, fault};
use crate::beneath::{self, split};
use crate::commit::Step;
use crate::diff::layers::join;
use pyro_protocol::diff::{DiffStatus, PATCHED_MAX, PatchApplied, Patched};
use pyro_protocol::{AgentError, GuestPath};
use rustix::fs::Dir;
use std::collections::{BTreeMap, BTreeSet};

/// How much may lie in a directory that a file is to replace.
const IN_THE_WAY_MAX: usize = 100_000;

pub(super) fn finish(plan: Plan<'_>, dry_run: bool) -> Result<PatchApplied, AgentError> {
    let applied = told(&plan.paths);
    let Plan { commits, mut commit, paths, .. } = plan;
    let tree = commits.tree();
    let mut steps = Steps::default();
    for (path, state) in &paths {
        match &state.now {
            Now::Unchanged => {}
            Now::Nothing => {
                if state.original != Original::Nothing {
                    steps.unlink.push(Step::Unlink { path: path.clone() });
                    steps.emptied(path);
                }
            }
            Now::Made(made) => {
                if state.original == Original::Directory {
                    steps.hollow.extend(check_emptied(tree, path, &paths)?);
                }
                steps.directories_for(tree, path, &paths)?;
                steps.put.push(Step::Put { slot: made.slot, path: path.clone() });
            }
        }
    }
    if dry_run {
        return Ok(applied);
    }
    steps
        .in_order()
        .try_for_each(|step| commit.step(&step).map_err(|error| fault(step.path(), &error)))?;
    for (path, state) in &paths {
        if tree::look(tree, path)? != state.original {
            return Err(conflict(path, "a program has changed it meanwhile"));
        }
        if matches!(state.now, Now::Made(_)) && state.original == Original::Directory {
            check_emptied(tree, path, &paths)?;
        }
    }
    commit.run()?;
    Ok(applied)
}

/// A commit's steps, by kind.
#[derive(Default)]
struct Steps {
    unlink: Vec<Step>,
    /// Directories where files are to be, and those in them: empty by then.
    hollow: BTreeSet<Vec<u8>>,
    /// Parents come first in the order of paths.
    make: BTreeSet<Vec<u8>>,
    put: Vec<Step>,
    prune: BTreeSet<Vec<u8>>,
}

impl Steps {
    /// What something was removed from goes too if nothing is left in it.
    fn emptied(&mut self, path: &[u8]) {
        let mut above = split(path).0;
        while !above.is_empty() && self.prune.insert(above.to_vec()) {
            above = split(above).0;
        }
    }

    /// A file's directories are made unless they are there. What is there and
    /// no directory must be about to go.
    fn directories_for(
        &mut self,
        tree: std::os::fd::BorrowedFd<'_>,
        path: &[u8],
        paths: &BTreeMap<Vec<u8>, State>,
    ) -> Result<(), AgentError> {
        let now = |above: &[u8]| paths.get(above).map(|state| &state.now);
        let mut above = split(path).0;
        while !above.is_empty() {
            if matches!(now(above), Some(Now::Made(_))) {
                return Err(conflict(above, "the patch makes it a file and a directory"));
            }
            above = split(above).0;
        }
        let mut above = split(path).0;
        while !above.is_empty() && !self.make.contains(above) {
            match (tree::look(tree, above)?, now(above)) {
                (Original::Directory, _) => return Ok(()),
                (Original::Nothing, _) | (Original::Leaf(_), Some(Now::Nothing)) => {
                    self.make.insert(above.to_vec());
                }
                (Original::Leaf(leaf), _) if leaf.is_link => {
                    return Err(conflict(path, "it is beyond a symbolic link"));
                }
                (Original::Leaf(_) | Original::Special, _) => {
                    let why = format!("{} is no directory", tree::shown(above));
                    return Err(conflict(path, why));
                }
            }
            above = split(above).0;
        }
        Ok(())
    }

    /// Removals make room, directories come before what is in them, and what is
    /// empty at the end goes last, the deepest first.
    fn in_order(self) -> impl Iterator<Item = Step> {
        let prune =
            |paths: BTreeSet<Vec<u8>>| paths.into_iter().rev().map(|path| Step::Prune { path });
        let make = self.make.into_iter().map(|path| Step::MakeDirectory { path, mode: 0o755 });
        let room = self.unlink.into_iter().chain(prune(self.hollow));
        room.chain(make).chain(self.put).chain(prune(self.prune))
    }
}

/// A directory that becomes a file must hold nothing but what the patch removes.
/// It, and the directories in it.
fn check_emptied(
    tree: std::os::fd::BorrowedFd<'_>,
    path: &[u8],
    paths: &BTreeMap<Vec<u8>, State>,
) -> Result<Vec<Vec<u8>>, AgentError> {
    let mut pending = vec![path.to_vec()];
    let mut found = Vec::new();
    let mut seen = 0;
    while let Some(directory) = pending.pop() {
        let wrong = |error: rustix::io::Errno| fault(&directory, &error.into());
        let opened = beneath::directory(tree, &directory).map_err(wrong)?;
        for entry in Dir::read_from(&opened).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let child = join(&directory, name);
            let goes = matches!(paths.get(&child), Some(State { now: Now::Nothing, .. }));
            match tree::look(tree, &child)? {
                Original::Directory => pending.push(child),
                _ if goes => {}
                Original::Nothing => {}
                Original::Leaf(_) | Original::Special => {
                    let why = format!("it is a directory that has {} in it", tree::shown(&child));
                    return Err(conflict(path, why));
                }
            }
            seen += 1;
            if seen > IN_THE_WAY_MAX {
                return Err(conflict(path, "it is a directory with too much in it"));
            }
        }
        found.push(directory);
    }
    Ok(found)
}

fn told(paths: &BTreeMap<Vec<u8>, State>) -> PatchApplied {
    let mut applied = PatchApplied {
        entries: Vec::new(),
        total: 0,
        added: 0,
        modified: 0,
        deleted: 0,
        renamed: 0,
    };
    for (path, state) in paths {
        let (status, count) = match (&state.now, &state.original) {
            (Now::Unchanged, _) | (Now::Nothing, Original::Nothing) => continue,
            // Where it went tells of it.
            (Now::Nothing, _) if state.is_moved => continue,
            (Now::Nothing, _) => (DiffStatus::Deleted, &mut applied.deleted),
            (Now::Made(_), Original::Nothing) if state.is_renamed => {
                (DiffStatus::Renamed, &mut applied.renamed)
            }
            (Now::Made(_), Original::Nothing) => (DiffStatus::Added, &mut applied.added),
            (Now::Made(_), _) => (DiffStatus::Modified, &mut applied.modified),
        };
        *count += 1;
        applied.total += 1;
        if let (true, Ok(path)) =
            (applied.entries.len() < PATCHED_MAX, GuestPath::new(path.clone()))
        {
            applied.entries.push(Patched { path, status });
        }
    }
    applied
}
