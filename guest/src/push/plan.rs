//! What a push is going to do.

use super::spool::{Numbers, Records};
use super::{refused, system};
use crate::beneath;
use crate::commit::{Commit, Commits, Slot, Step};
use crate::file::root::NOFOLLOW;
use crate::file::status;
use crate::work::Stop;
use pyro_protocol::file::FileTime;
use pyro_protocol::piece::PieceSink;
use pyro_protocol::push::{PushAction, PushChange, PushCompared, PushEnd};
use pyro_protocol::transfer::Outgoing;
use pyro_protocol::{AgentError, AgentErrorKind, ByteString, GuestPath};
use rustix::fs::{FileType, Stat, Timespec, Timestamps, UTIME_OMIT, statat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// What comparing came to.
pub(super) struct Plan {
    pub(super) commits: Arc<Commits>,
    pub(super) compared: PushCompared,
    pub(super) planned: Records<Planned>,
    /// The answers, as they are sent.
    pub(super) answers: File,
}

/// A thing to do. Paths are relative to the tree's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Planned {
    pub(super) path: ByteString,
    /// What it builds on.
    pub(super) seen: Seen,
    pub(super) deed: Deed,
}

/// What was at a path when it was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Seen {
    Nothing,
    Directory,
    /// Anything else: its type, as the system numbers it, and what of it changes
    /// when somebody writes to it.
    Other {
        file_type: u32,
        size_bytes: u64,
        modified: FileTime,
    },
}

impl Seen {
    pub(super) fn of(stat: Option<&Stat>) -> Self {
        let Some(stat) = stat else { return Self::Nothing };
        let file_type = FileType::from_raw_mode(stat.st_mode);
        match file_type.is_dir() {
            true => Self::Directory,
            false => Self::Other {
                file_type: file_type.as_raw_mode(),
                size_bytes: status::size(stat),
                modified: status::modified(stat),
            },
        }
    }

    fn at(commits: &Commits, path: &[u8]) -> rustix::io::Result<Self> {
        let looked = beneath::parent(commits.tree(), path)
            .and_then(|(parent, name)| statat(&parent, name, NOFOLLOW));
        match looked {
            Ok(stat) => Ok(Self::of(Some(&stat))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Self::Nothing),
            Err(error) => Err(error),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Deed {
    /// What is in the way goes.
    Clear(Obstacle),
    /// What the source does not have goes.
    Delete {
        is_directory: bool,
    },
    MakeDirectory {
        mode: u32,
    },
    /// The content of a file that was asked for, by its number.
    File {
        number: u64,
        was: Was,
        mode: u32,
    },
    Symlink {
        target: ByteString,
        modified: FileTime,
        was: Was,
    },
    /// One more name of a file, whose content is there or was asked for.
    HardLink {
        first: ByteString,
        asked: Option<u64>,
        was: Was,
    },
    /// Another mode of what is there.
    Mode(u32),
    /// The time of a directory, if any name in it changes. It comes after all
    /// that is in it.
    Modified(FileTime),
}

/// What is in the way of something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Obstacle {
    /// No directory.
    Name,
    /// A directory that was empty, and goes only if it still is.
    Empty,
    /// A directory with all that is in it.
    Tree,
}

/// What is there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Was {
    Nothing,
    /// Something with another content.
    Another,
    /// A file that may have the same content, with this mode.
    Alike {
        mode: u32,
    },
    /// Another name already of the file that it is to be a name of.
    Linked,
}

/// What became of a file that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    Missing,
    /// The content is there already.
    Kept,
    /// It differs; nothing was sent, because nothing will be done.
    Differs,
    Staged(Slot),
}

/// The contents that came.
pub(super) struct Staged {
    pub(super) slots: Numbers,
    pub(super) bytes_written: u64,
}

impl Given {
    pub(super) fn to_number(self) -> u64 {
        match self {
            Given::Missing => 0,
            Given::Kept => 1,
            Given::Differs => 2,
            Given::Staged(slot) => slot.number() + 3,
        }
    }
}

impl Staged {
    pub(super) fn given(&self, number: u64) -> Result<Given, Stop> {
        Ok(match self.slots.get(number)? {
            0 => Given::Missing,
            1 => Given::Kept,
            2 => Given::Differs,
            number => Given::Staged(Slot::of_number(number - 3)),
        })
    }
}

impl Plan {
    pub(super) fn compared(&self) -> PushCompared {
        self.compared
    }

    /// Sends the answers.
    pub(super) fn send_answers(&self, outgoing: &mut Outgoing) -> Result<(), Stop> {
        let mut at = 0;
        loop {
            let read = self.answers.read_at(outgoing.spare()?, at);
            match read.map_err(|error| system("reading what was spooled", &error))? {
                0 => return Ok(()),
                length => {
                    outgoing.advance(length);
                    at += length as u64;
                }
            }
        }
    }

    /// Writes the plan down as the steps of a commit.
    pub(super) fn write_down(&self, commit: &mut Commit, staged: &Staged) -> Result<(), Stop> {
        let mut planned = self.planned.read();
        let mut changed = Changed::default();
        while let Some(Planned { path: ByteString(path), deed, .. }) = planned.next()? {
            let said = format!("/workspace/{}", String::from_utf8_lossy(&path));
            let step = step(path, deed, commit, staged, &mut changed)?;
            let Some(step) = step.map_err(|error| system(&said, &error))? else { continue };
            changed.note(&step);
            commit.step(&step).map_err(|error| system(&said, &error))?;
        }
        Ok(())
    }

    /// Refuses if a program has changed what the plan builds on.
    pub(super) fn check(&self) -> Result<(), Stop> {
        let mut planned = self.planned.read();
        while let Some(Planned { path: ByteString(path), seen, .. }) = planned.next()? {
            let now = Seen::at(&self.commits, &path).map_err(|errno| refused(&path, errno))?;
            if now != seen {
                let text = format!(
                    "a program has changed /workspace/{} meanwhile; nothing was changed, push again",
                    String::from_utf8_lossy(&path)
                );
                return Err(AgentError::new(AgentErrorKind::Conflict, text).into());
            }
        }
        Ok(())
    }

    /// Tells what was done, or would be.
    pub(super) fn send_changes(
        &self,
        staged: &Staged,
        outgoing: &mut Outgoing,
    ) -> Result<PushEnd, Stop> {
        let mut end = PushEnd { bytes_written: staged.bytes_written, ..PushEnd::default() };
        let mut planned = self.planned.read();
        while let Some(Planned { path: ByteString(path), deed, .. }) = planned.next()? {
            let Some(action) = action(&deed, staged)? else { continue };
            match action {
                PushAction::Created => end.created += 1,
                PushAction::Updated => end.updated += 1,
                PushAction::Attributes => end.attributes += 1,
                PushAction::Deleted => end.deleted += 1,
            }
            if let Ok(path) = GuestPath::new([b"/workspace/", path.as_slice()].concat()) {
                outgoing.entry(&PushChange { path, action })?;
            }
        }
        Ok(end)
    }
}

/// Directories in which names have changed, and which are not left yet.
#[derive(Default)]
struct Changed(Vec<Vec<u8>>);

impl Changed {
    fn note(&mut self, step: &Step) {
        match step {
            Step::SetMode { .. } | Step::SetModified { .. } => {}
            Step::MakeDirectory { path, .. } => {
                self.push(beneath::split(path).0);
                self.push(path);
            }
            Step::Put { path, .. }
            | Step::Unlink { path }
            | Step::RemoveTree { path }
            | Step::Prune { path } => self.push(beneath::split(path).0),
        }
    }

    fn push(&mut self, directory: &[u8]) {
        if self.0.last().is_none_or(|last| last != directory) {
            self.0.push(directory.to_vec());
        }
    }

    /// Whether a directory is one; forgets it and those in it.
    fn leave(&mut self, directory: &[u8]) -> bool {
        let mut is_changed = false;
        while let Some(rest) = self.0.last().and_then(|last| last.strip_prefix(directory)) {
            match rest.first() {
                None => is_changed = true,
                Some(b'/') => {}
                Some(_) => break,
            }
            self.0.pop();
        }
        is_changed
    }
}

/// A planned thing as a step, if anything is to be done for it. The outer error
/// is ours, the inner the path's.
fn step(
    path: Vec<u8>,
    deed: Deed,
    commit: &mut Commit,
    staged: &Staged,
    changed: &mut Changed,
) -> Result<io::Result<Option<Step>>, Stop> {
    let slot = match deed {
        Deed::Clear(Obstacle::Tree) | Deed::Delete { is_directory: true } => {
            return Ok(Ok(Some(Step::RemoveTree { path })));
        }
        Deed::Clear(Obstacle::Name) | Deed::Delete { is_directory: false } => {
            return Ok(Ok(Some(Step::Unlink { path })));
        }
        Deed::Clear(Obstacle::Empty) => return Ok(Ok(Some(Step::Prune { path }))),
        Deed::MakeDirectory { mode } => return Ok(Ok(Some(Step::MakeDirectory { path, mode }))),
        Deed::Mode(mode) => return Ok(Ok(Some(Step::SetMode { path, mode }))),
        Deed::Modified(time) => {
            let (is_changed, time) = (changed.leave(&path), timespec(time));
            return Ok(Ok(is_changed.then_some(Step::SetModified { path, time })));
        }
        Deed::File { number, was, mode } => match staged.given(number)? {
            Given::Staged(slot) => Ok(slot),
            Given::Kept if was.has_another(mode) => {
                return Ok(Ok(Some(Step::SetMode { path, mode })));
            }
            Given::Missing | Given::Kept | Given::Differs => return Ok(Ok(None)),
        },
        Deed::Symlink { target, modified, .. } => {
            commit.stage_link(&target.0, Some(timespec(modified)))
        }
        Deed::HardLink { first, asked, was } => {
            match asked.map(|number| staged.given(number)).transpose()? {
                Some(Given::Staged(slot)) => commit.stage_hard_link(slot),
                None | Some(Given::Missing | Given::Kept | Given::Differs) => {
                    if was == Was::Linked {
                        return Ok(Ok(None));
                    }
                    commit.stage_existing(&first.0)
                }
            }
        }
    };
    Ok(slot.map(|slot| Some(Step::Put { slot, path })))
}

impl Was {
    /// Whether what may stay has another mode than it is to have.
    fn has_another(self, mode: u32) -> bool {
        match self {
            Was::Alike { mode: old } => old != mode,
            Was::Nothing | Was::Another | Was::Linked => false,
        }
    }
}

fn action(deed: &Deed, staged: &Staged) -> Result<Option<PushAction>, Stop> {
    let made = |was: &Was| match was {
        Was::Nothing => PushAction::Created,
        Was::Another | Was::Alike { .. } | Was::Linked => PushAction::Updated,
    };
    Ok(match deed {
        Deed::Delete { .. } => Some(PushAction::Deleted),
        Deed::MakeDirectory { .. } => Some(PushAction::Created),
        Deed::Symlink { was, .. } => Some(made(was)),
        Deed::Mode(_) => Some(PushAction::Attributes),
        Deed::Clear(_) | Deed::Modified(_) => None,
        Deed::File { number, was, mode } => match staged.given(*number)? {
            Given::Staged(_) | Given::Differs => Some(made(was)),
            Given::Kept if was.has_another(*mode) => Some(PushAction::Attributes),
            Given::Kept | Given::Missing => None,
        },
        Deed::HardLink { asked, was, .. } => {
            let given = asked.map(|number| staged.given(number)).transpose()?;
            let is_kept = matches!(given, None | Some(Given::Kept | Given::Missing));
            (!is_kept || *was != Was::Linked).then(|| made(was))
        }
    })
}

pub(super) fn timespec(time: FileTime) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() }
}

/// The time of an open file.
pub(super) fn set_modified(file: &File, time: FileTime) -> io::Result<()> {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access: omit, last_modification: timespec(time) };
    Ok(rustix::fs::futimens(file, &times)?)
}
