//! What a commit does, one thing after the other.

use crate::beneath;
use rustix::fs::Timespec;
use std::io::{self, Read, Write};

/// A file or link that waits in the staging directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(pub(super) u64);

impl Slot {
    /// What tells it from the commit's others.
    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    /// The one that has this number.
    pub(crate) const fn of_number(number: u64) -> Self {
        Self(number)
    }

    /// Its name in the staging directory.
    pub(super) fn name(self) -> String {
        self.0.to_string()
    }
}

/// One change of the tree. Paths are relative to the tree's root.
///
/// After a crash all steps are done again, those too that had been done, and
/// must come to the same. So one path is removed and made in the same commit
/// only to become something else: a file becomes a directory by `Unlink` and
/// `MakeDirectory`, a directory a file by `RemoveTree` and `Put`; a file that
/// becomes another file, or a link, needs `Put` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Puts what was staged at a path, in place of a file that is there.
    Put {
        /// What.
        slot: Slot,
        /// Where.
        path: Vec<u8>,
    },
    /// Removes what is there unless it is a directory.
    Unlink {
        /// Where.
        path: Vec<u8>,
    },
    /// Removes a directory, with all that is in it.
    RemoveTree {
        /// Where.
        path: Vec<u8>,
    },
    /// Removes a directory if it is there and empty.
    Prune {
        /// Where.
        path: Vec<u8>,
    },
    /// Makes a directory, unless there is one. Either has the mode then.
    MakeDirectory {
        /// Where.
        path: Vec<u8>,
        /// Permissions, with set-id and sticky bits, whatever the umask.
        mode: u32,
    },
    /// Sets the mode of a file or directory.
    SetMode {
        /// Of what.
        path: Vec<u8>,
        /// Permissions, with set-id and sticky bits.
        mode: u32,
    },
    /// Sets the time of the last modification.
    SetModified {
        /// Of what; a link's own.
        path: Vec<u8>,
        /// Since the epoch.
        time: Timespec,
    },
}

/// A step's length in the journal, without its path: tag, number, time's
/// nanoseconds, length of the path.
const HEAD: usize = 1 + 8 + 4 + 2;

/// Stands after the last step, with their number.
const END: u8 = 0;

impl Step {
    /// What it is about.
    pub(crate) fn path(&self) -> &[u8] {
        match self {
            Step::Put { path, .. }
            | Step::Unlink { path }
            | Step::RemoveTree { path }
            | Step::Prune { path }
            | Step::MakeDirectory { path, .. }
            | Step::SetMode { path, .. }
            | Step::SetModified { path, .. } => path,
        }
    }

    /// Appends it to a journal.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let (tag, number, nanoseconds) = match self {
            Step::Put { slot, .. } => (1, slot.0, 0),
            Step::Unlink { .. } => (2, 0, 0),
            Step::RemoveTree { .. } => (3, 0, 0),
            Step::Prune { .. } => (4, 0, 0),
            Step::MakeDirectory { mode, .. } => (5, u64::from(*mode), 0),
            Step::SetMode { mode, .. } => (6, u64::from(*mode), 0),
            Step::SetModified { time, .. } => {
                (7, time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0))
            }
        };
        to.write_all(&head(tag, number, nanoseconds, self.path().len()))?;
        to.write_all(self.path())
    }

    /// Reads the next one; `None` after the last.
    pub(super) fn read(from: &mut impl Read, read_so_far: u64) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEAD];
        from.read_exact(&mut bytes)?;
        let [tag, n0, n1, n2, n3, n4, n5, n6, n7, t0, t1, t2, t3, l0, l1] = bytes;
        let number = u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]);
        let nanoseconds = u32::from_le_bytes([t0, t1, t2, t3]);
        let mut path = vec![0; u16::from_le_bytes([l0, l1]).into()];
        from.read_exact(&mut path)?;
        if tag == END {
            let whole = number == read_so_far && path.is_empty();
            return if whole { Ok(None) } else { Err(damaged()) };
        }
        beneath::check(&path)?;
        let mode = || u32::try_from(number).map_err(|_| damaged());
        Ok(Some(match tag {
            1 => Step::Put { slot: Slot(number), path },
            2 => Step::Unlink { path },
            3 => Step::RemoveTree { path },
            4 => Step::Prune { path },
            5 => Step::MakeDirectory { path, mode: mode()? },
            6 => Step::SetMode { path, mode: mode()? },
            7 => {
                let (tv_sec, tv_nsec) = (number.cast_signed(), nanoseconds.into());
                Step::SetModified { path, time: Timespec { tv_sec, tv_nsec } }
            }
            _ => return Err(damaged()),
        }))
    }
}

/// What stands at a journal's end.
pub(super) fn end(steps: u64) -> [u8; HEAD] {
    head(END, steps, 0, 0)
}

fn head(tag: u8, number: u64, nanoseconds: u32, path: usize) -> [u8; HEAD] {
    let mut head = [tag; HEAD];
    head[1..9].copy_from_slice(&number.to_le_bytes());
    head[9..13].copy_from_slice(&nanoseconds.to_le_bytes());
    // Paths were checked: they are shorter than a u16 can say.
    head[13..].copy_from_slice(&u16::try_from(path).unwrap_or(u16::MAX).to_le_bytes());
    head
}

const _: () = assert!(beneath::PATH_MAX < u16::MAX as usize);

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the journal is damaged")
}
