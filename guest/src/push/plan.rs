//! What a push is going to do.

use super::spool::{Numbers, Records};
use super::system;
use crate::commit::{Commit, Commits, Slot, Step};
use crate::work::Stop;
use pyro_protocol::file::FileTime;
use pyro_protocol::piece::PieceSink;
use pyro_protocol::push::{PushAction, PushChange, PushCompared, PushEnd};
use pyro_protocol::transfer::Outgoing;
use pyro_protocol::{ByteString, GuestPath};
use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};
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
    pub(super) deed: Deed,
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
        modified: FileTime,
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
    /// Another mode or time of what is there.
    Attributes {
        mode: Option<u32>,
        modified: Option<FileTime>,
        is_told: bool,
    },
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
    /// A file that may have the same content, with this mode and time.
    Alike {
        mode: u32,
        modified: FileTime,
    },
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
        while let Some(Planned { path: ByteString(path), deed }) = planned.next()? {
            let said = format!("/workspace/{}", String::from_utf8_lossy(&path));
            let steps = steps(path, deed, commit, staged)?;
            for step in steps.map_err(|error| system(&said, &error))? {
                commit.step(&step).map_err(|error| system(&said, &error))?;
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
        while let Some(Planned { path: ByteString(path), deed }) = planned.next()? {
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

/// A planned thing as steps. The outer error is ours, the inner the path's.
fn steps(
    path: Vec<u8>,
    deed: Deed,
    commit: &mut Commit,
    staged: &Staged,
) -> Result<io::Result<Vec<Step>>, Stop> {
    Ok(match deed {
        Deed::Clear(Obstacle::Tree) | Deed::Delete { is_directory: true } => {
            Ok(vec![Step::RemoveTree { path }])
        }
        Deed::Clear(Obstacle::Name) | Deed::Delete { is_directory: false } => {
            Ok(vec![Step::Unlink { path }])
        }
        Deed::Clear(Obstacle::Empty) => Ok(vec![Step::Prune { path }]),
        Deed::MakeDirectory { mode } => Ok(vec![Step::MakeDirectory { path, mode }]),
        Deed::File { number, was, mode, modified } => match staged.given(number)? {
            Given::Staged(slot) => Ok(vec![Step::Put { slot, path }]),
            Given::Kept => {
                let is_same = |was| was == Was::Alike { mode, modified };
                let change = Deed::attributes(was, mode, modified);
                Ok(if is_same(was) { Vec::new() } else { change_steps(path, change) })
            }
            Given::Missing | Given::Differs => Ok(Vec::new()),
        },
        Deed::Symlink { target, modified, .. } => commit.stage_link(&target.0).map(|slot| {
            vec![
                Step::Put { slot, path: path.clone() },
                Step::SetModified { path, time: timespec(modified) },
            ]
        }),
        Deed::HardLink { first, asked, .. } => {
            let given = asked.map(|number| staged.given(number)).transpose()?;
            let slot = match given {
                Some(Given::Staged(slot)) => commit.stage_hard_link(slot),
                None | Some(Given::Missing | Given::Kept | Given::Differs) => {
                    commit.stage_existing(&first.0)
                }
            };
            slot.map(|slot| vec![Step::Put { slot, path }])
        }
        Deed::Attributes { mode, modified, .. } => Ok(change_steps(path, (mode, modified))),
    })
}

impl Deed {
    /// What of mode and time is to change.
    pub(super) fn attributes(
        was: Was,
        mode: u32,
        modified: FileTime,
    ) -> (Option<u32>, Option<FileTime>) {
        match was {
            Was::Nothing | Was::Another => (Some(mode), Some(modified)),
            Was::Alike { mode: old, modified: then } => {
                ((old != mode).then_some(mode), (then != modified).then_some(modified))
            }
        }
    }
}

fn change_steps(path: Vec<u8>, change: (Option<u32>, Option<FileTime>)) -> Vec<Step> {
    let (mode, modified) = change;
    let mode = mode.map(|mode| Step::SetMode { path: path.clone(), mode });
    let modified = modified.map(|time| Step::SetModified { path, time: timespec(time) });
    mode.into_iter().chain(modified).collect()
}

fn action(deed: &Deed, staged: &Staged) -> Result<Option<PushAction>, Stop> {
    let made = |was: &Was| match was {
        Was::Nothing => PushAction::Created,
        Was::Another | Was::Alike { .. } => PushAction::Updated,
    };
    Ok(match deed {
        Deed::Delete { .. } => Some(PushAction::Deleted),
        Deed::MakeDirectory { .. } => Some(PushAction::Created),
        Deed::Symlink { was, .. } | Deed::HardLink { was, .. } => Some(made(was)),
        Deed::Attributes { is_told: true, .. } => Some(PushAction::Attributes),
        Deed::Clear(_) | Deed::Attributes { is_told: false, .. } => None,
        Deed::File { number, was, mode, modified } => match staged.given(*number)? {
            Given::Staged(_) | Given::Differs => Some(made(was)),
            Given::Kept if Deed::attributes(*was, *mode, *modified) != (None, None) => {
                Some(PushAction::Attributes)
            }
            Given::Kept | Given::Missing => None,
        },
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
