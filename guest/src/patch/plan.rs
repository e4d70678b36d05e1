//! What a patch comes to: every new content made and checked before anything
//! is changed.

use super::content::{Content, Making};
use super::names::{Resolved, resolve};
use super::parse::{Body, FilePatch, PatchKind};
use super::place::Searching;
use super::tree::{self, Leaf, Original, conflict, fault};
use super::{hunk, steps};
use crate::commit::{Commit, Commits, Slot};
use crate::git::{LINK_MODE, file_mode};
use crate::work::{Cancel, Stop};
use pyro_protocol::AgentError;
use rustix::fs::Mode;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Seek};

/// Everything that a patch touches.
pub(super) struct Plan<'a> {
    pub(super) commits: &'a Commits,
    pub(super) commit: Commit,
    pub(super) paths: BTreeMap<Vec<u8>, State>,
    patch: &'a [u8],
    reverse: bool,
    /// What some part of the patch removes or moves away, in whatever order.
    vacated: BTreeSet<Vec<u8>>,
    searching: Searching,
}

/// What is and will be at a path.
#[derive(Debug)]
pub(super) struct State {
    pub(super) original: Original,
    pub(super) now: Now,
    /// It was elsewhere.
    pub(super) is_renamed: bool,
    /// The original was removed or moved away, whatever has come since.
    pub(super) is_vacated: bool,
    /// It was moved, and is told by where it went.
    pub(super) is_moved: bool,
}

#[derive(Debug)]
pub(super) enum Now {
    Unchanged,
    Nothing,
    Made(Made),
}

/// A new content, staged.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) slot: Slot,
    mode: u32,
    /// Where it leads, if it is a link.
    target: Option<Vec<u8>>,
}

/// One part of a patch, with the direction taken out.
struct Part<'p> {
    file: &'p FilePatch,
    kind: PatchKind,
    from: Vec<u8>,
    to: Vec<u8>,
    /// Types and permissions before and after, if it says so.
    modes: (Option<u32>, Option<u32>),
}

/// What a part builds on.
struct Source {
    content: Option<Content>,
    /// Permissions and owner.
    mode: u32,
    owner: Option<(u32, u32)>,
}

impl<'a> Plan<'a> {
    /// Works out a whole patch.
    pub(super) fn make(
        commits: &'a Commits,
        commit: Commit,
        patch: &'a [u8],
        files: &[FilePatch],
        strip: Option<u32>,
        reverse: bool,
        cancel: &Cancel,
    ) -> Result<Self, Stop> {
        let paths = BTreeMap::new();
        let vacated = BTreeSet::new();
        let searching = Searching::default();
        let mut plan = Self { commits, commit, paths, patch, reverse, vacated, searching };
        let exists = |path: &[u8]| {
            crate::beneath::check(path).is_ok()
                && tree::look(commits.tree(), path).is_ok_and(|found| found != Original::Nothing)
        };
        let mut parts = Vec::new();
        for file in files {
            cancel.check()?;
            let resolved = resolve(file, strip, &exists)?;
            parts.push(plan.part(file, resolved)?);
        }
        if reverse {
            parts.reverse();
        }
        for part in &parts {
            if matches!(part.kind, PatchKind::Delete | PatchKind::Rename) {
                plan.vacated.insert(part.from.clone());
            }
        }
        for part in &parts {
            cancel.check()?;
            plan.apply(part)?;
        }
        Ok(plan)
    }

    /// Tells what would be done, and does it unless it is only to be told.
    pub(super) fn finish(
        self,
        dry_run: bool,
    ) -> Result<pyro_protocol::diff::PatchApplied, AgentError> {
        steps::finish(self, dry_run)
    }

    fn part<'p>(&self, file: &'p FilePatch, names: Resolved) -> Result<Part<'p>, AgentError> {
        let nameless = || conflict(b"", "a part of the patch has no name");
        let Resolved { old, new } = names;
        let modes = (file.old_mode, file.new_mode);
        let (old, new, modes) = match self.reverse {
            false => (old, new, modes),
            true => (new, old, (modes.1, modes.0)),
        };
        let kind = match (file.kind, self.reverse) {
            (kind, false) | (kind @ (PatchKind::Modify | PatchKind::Rename), true) => kind,
            (PatchKind::Create, true) => PatchKind::Delete,
            (PatchKind::Delete, true) => PatchKind::Create,
            (PatchKind::Copy, true) => PatchKind::Delete,
        };
        let (from, to) = match kind {
            PatchKind::Create => (new.clone(), new),
            PatchKind::Delete => (old.clone(), old),
            PatchKind::Modify => (new.clone().or(old.clone()), new.or(old)),
            PatchKind::Rename | PatchKind::Copy => (old, new),
        };
        let (from, to) = (from.ok_or_else(nameless)?, to.ok_or_else(nameless)?);
        Ok(Part { file, kind, from, to, modes })
    }

    fn apply(&mut self, part: &Part<'_>) -> Result<(), AgentError> {
        for mode in [part.modes.0, part.modes.1].into_iter().flatten() {
            if !matches!(mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFLNK) {
                return Err(conflict(
                    &part.to,
                    format!("mode {mode:o} is neither a file's nor a link's"),
                ));
            }
        }
        let kind = self.effective_kind(part)?;
        let source = match kind {
            PatchKind::Create => Source { content: None, mode: 0o644, owner: None },
            PatchKind::Modify | PatchKind::Delete | PatchKind::Rename | PatchKind::Copy => {
                self.source(part, kind)?
            }
        };
        if matches!(kind, PatchKind::Create | PatchKind::Rename | PatchKind::Copy) {
            self.check_free(&part.to)?;
        }
        let made = self.content(part, kind, source)?;
        match (kind, made) {
            (PatchKind::Delete, _) => self.vacate(&part.from)?,
            (PatchKind::Rename, Some(made)) => {
                self.vacate(&part.from)?;
                self.state(&part.from)?.is_moved = true;
                let state = self.state(&part.to)?;
                (state.now, state.is_renamed) = (Now::Made(made), true);
            }
            (PatchKind::Create | PatchKind::Modify | PatchKind::Copy, Some(made)) => {
                self.state(&part.to)?.now = Now::Made(made);
            }
            (PatchKind::Create | PatchKind::Modify | PatchKind::Copy | PatchKind::Rename, None) => {
            }
        }
        Ok(())
    }

    /// A plain diff may say by a time, or by a head without lines, that there
    /// was no file, or is none any more.
    fn effective_kind(&mut self, part: &Part<'_>) -> Result<PatchKind, AgentError> {
        let epoch =
            |name: &Option<super::parse::Name>| name.as_ref().is_some_and(|name| name.is_epoch);
        let (old, new) = (epoch(&part.file.old), epoch(&part.file.new));
        let (old, new) = if self.reverse { (new, old) } else { (old, new) };
        if part.kind != PatchKind::Modify {
            return Ok(part.kind);
        }
        let is_there = self.is_there(&part.to)?;
        let from_nothing = match &part.file.body {
            Body::Hunks(hunks) => match hunks.as_slice() {
                [only] => only.lines(self.patch).all(|line| {
                    line.mark == if self.reverse { hunk::Mark::Old } else { hunk::Mark::New }
                }),
                _ => false,
            },
            Body::Nothing | Body::Binary { .. } | Body::WithoutContent => false,
        };
        Ok(match (old || from_nothing, new) {
            (true, _) if !is_there => PatchKind::Create,
            (_, true) => PatchKind::Delete,
            (true | false, false) => PatchKind::Modify,
        })
    }

    /// What a part changes, moves, copies or removes.
    fn source(&mut self, part: &Part<'_>, kind: PatchKind) -> Result<Source, AgentError> {
        let tree = self.commits.tree();
        // Moves and copies are of what was there before the patch, as git's are;
        // and a removal is not of what the patch itself has put there.
        let of_original = match kind {
            PatchKind::Rename | PatchKind::Copy => true,
            PatchKind::Delete => self.vacated.contains(&part.from),
            PatchKind::Modify | PatchKind::Create => false,
        };
        let path = part.from.clone();
        let state = self.state(&path)?;
        let use_original =
            of_original && matches!(state.original, Original::Leaf(_)) && !state.is_vacated;
        let (content, mode, owner) = match (&state.now, &state.original) {
            (Now::Made(made), _) if !use_original => {
                let made = made.clone();
                let content = match made.target {
                    Some(target) => Ok(Content::Link(target)),
                    None => self.commit.staged_file(made.slot).map(Content::File),
                };
                (content, made.mode, None)
            }
            (Now::Nothing, _) if !use_original => {
                return Err(conflict(&path, "the patch itself has removed it before"));
            }
            (_, Original::Leaf(leaf)) => {
                let content = match leaf.is_link {
                    true => tree::link(tree, &path).map(Content::Link)?,
                    false => Content::File(tree::open(tree, &path)?),
                };
                (Ok(content), leaf.mode, Some(leaf.owner))
            }
            (_, Original::Nothing) => return Err(conflict(&path, self.absence(&path)?)),
            (_, Original::Directory) => return Err(conflict(&path, "it is a directory")),
            (_, Original::Special) => return Err(conflict(&path, "it is no file")),
        };
        let content = content.map_err(|error| fault(&path, &error))?;
        let is_link = matches!(content, Content::Link(_));
        let said = part.modes.0.or(part.modes.1);
        match said
            .map_or(is_link.then_some(false), |mode| Some(mode & libc::S_IFMT == libc::S_IFLNK))
        {
            Some(wanted) if wanted != is_link => {
                let why = if is_link { "it is a symbolic link" } else { "it is no symbolic link" };
                Err(conflict(&path, why))
            }
            Some(_) | None => Ok(Source { content: Some(content), mode, owner }),
        }
    }

    /// Why there is nothing at a path.
    fn absence(&mut self, path: &[u8]) -> Result<&'static str, AgentError> {
        let mut above = crate::beneath::split(path).0.to_vec();
        while !above.is_empty() {
            match tree::look(self.commits.tree(), &above)? {
                Original::Leaf(Leaf { is_link: true, .. }) => {
                    return Ok("it is beyond a symbolic link");
                }
                Original::Leaf(_) | Original::Nothing | Original::Directory | Original::Special => {
                }
            }
            above = crate::beneath::split(&above).0.to_vec();
        }
        Ok("it is not there")
    }

    /// A new file's place must be free, or become so by the patch.
    fn check_free(&mut self, path: &[u8]) -> Result<(), AgentError> {
        let is_vacated = self.vacated.contains(path);
        let state = self.state(path)?;
        let is_free = match (&state.now, &state.original) {
            (Now::Made(_), _) => false,
            (Now::Nothing, _) => true,
            // What is in a directory may yet be removed; `steps` looks again.
            (Now::Unchanged, Original::Nothing | Original::Directory) => true,
            (Now::Unchanged, Original::Leaf(_)) => is_vacated,
            (Now::Unchanged, Original::Special) => false,
        };
        if is_free { Ok(()) } else { Err(conflict(path, "it is there already")) }
    }

    fn vacate(&mut self, path: &[u8]) -> Result<(), AgentError> {
        let state = self.state(path)?;
        let made_instead = matches!(state.now, Now::Made(_))
            && !state.is_vacated
            && matches!(state.original, Original::Leaf(_));
        state.is_vacated = true;
        // What the patch has put there in its place stays.
        if !made_instead || !self.vacated.contains(path) {
            self.state(path)?.now = Now::Nothing;
        }
        Ok(())
    }

    /// The new content, staged; nothing for a removal.
    fn content(
        &mut self,
        part: &Part<'_>,
        kind: PatchKind,
        mut source: Source,
    ) -> Result<Option<Made>, AgentError> {
        let path = &part.to;
        let becomes_link = match part.modes.1.or(part.modes.0) {
            Some(mode) => mode == LINK_MODE,
            None => matches!(source.content, Some(Content::Link(_))),
        };
        let (slot, mut staged) = self.commit.stage_file().map_err(|error| fault(path, &error))?;
        let making = Making {
            patch: self.patch,
            reverse: self.reverse,
            part: part.file,
            from: &part.from,
            to: path,
            commits: self.commits,
        };
        making.write(&mut source.content, &mut self.searching, &mut staged)?;
        let wrong = |error: io::Error| fault(path, &error);
        let size = staged.metadata().map_err(wrong)?.len();
        if kind == PatchKind::Delete {
            return match size {
                0 => Ok(None),
                // The reverse of a copy says only what was changed in it.
                _ if part.file.kind == PatchKind::Copy => Ok(None),
                left => {
                    Err(conflict(path, format!("{left} bytes would be left of what is removed")))
                }
            };
        }
        let mode = wanted_mode(part, source.mode);
        staged.rewind().map_err(wrong)?;
        if becomes_link {
            let target = tree::read(&staged, path)?;
            if target.is_empty() || target.contains(&0) {
                return Err(conflict(path, "a link cannot lead nowhere"));
            }
            let slot = self.commit.stage_link(&target, None).map_err(wrong)?;
            return Ok(Some(Made { slot, mode: 0o777, target: Some(target) }));
        }
        if let Some((user, group)) = source.owner {
            std::os::unix::fs::fchown(&staged, Some(user), Some(group)).map_err(wrong)?;
        }
        rustix::fs::fchmod(&staged, Mode::from_raw_mode(mode))
            .map_err(|error| wrong(error.into()))?;
        Ok(Some(Made { slot, mode, target: None }))
    }

    fn is_there(&mut self, path: &[u8]) -> Result<bool, AgentError> {
        let state = self.state(path)?;
        Ok(match (&state.now, &state.original) {
            (Now::Made(_), _) => true,
            (Now::Nothing, _) | (Now::Unchanged, Original::Nothing) => false,
            (Now::Unchanged, Original::Leaf(_) | Original::Directory | Original::Special) => true,
        })
    }

    fn state(&mut self, path: &[u8]) -> Result<&mut State, AgentError> {
        if !self.paths.contains_key(path) {
            let original = tree::look(self.commits.tree(), path)?;
            let state = State {
                original,
                now: Now::Unchanged,
                is_renamed: false,
                is_vacated: false,
                is_moved: false,
            };
            self.paths.insert(path.to_vec(), state);
        }
        self.paths.get_mut(path).ok_or_else(|| conflict(path, "it is not there"))
    }
}

/// The permissions of what a part makes: the old ones, except that git's bit
/// for a program is set or cleared where the patch says so.
fn wanted_mode(part: &Part<'_>, old: u32) -> u32 {
    match part.modes {
        (before, Some(mode)) if before != Some(mode) => match file_mode(mode) & 0o100 {
            0 => old & !0o111,
            _ => old | (old & 0o444) >> 2,
        },
        (None | Some(_), None | Some(_)) => old,
    }
}
