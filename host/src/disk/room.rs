//! How much may still be written on a file system of the host's.

use crate::error::{Error, ErrorKind, Result};
use rustix::fs::fstatvfs;
use std::io;
use std::os::fd::BorrowedFd;

/// What is left free on the host's file system: a full one harms everybody, and
/// guests first, whose disks are holes that it promised to fill.
const RESERVE: u64 = 256 << 20;

/// How often the room is looked at: after so many bytes, whatever they belong to.
/// Much less than the reserve.
pub(crate) const STEP: u64 = 8 << 20;

const _: () = assert!(STEP * 8 < RESERVE);

/// What an entry takes besides its content: an inode, a name, a rest of a block.
const ENTRY: u64 = 4096;

/// What takes the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taker {
    /// What is taken out of a workspace.
    Export,
    /// A copy of a workspace's disk, among the workspaces.
    DiskCopy,
    /// A guest's memory, to begin others with.
    Template,
}

/// The room that a file system has.
pub(crate) struct Room<'a> {
    taker: Taker,
    free: Box<dyn FnMut() -> io::Result<u64> + 'a>,
    /// Written since it was last looked at.
    written: u64,
}

impl<'a> Room<'a> {
    /// That of the file system that this is on, if there is any.
    ///
    /// # Errors
    /// `DiskFull`, as from all that looks.
    pub(crate) fn of(file: BorrowedFd<'a>, taker: Taker) -> Result<Self> {
        let mut room = Self::with(taker, free_beside(file));
        room.look()?;
        Ok(room)
    }

    /// The same where so many bytes fit.
    ///
    /// # Errors
    /// `DiskFull`, which says how many and how many are free.
    pub(crate) fn for_bytes(file: BorrowedFd<'a>, taker: Taker, bytes: u64) -> Result<Self> {
        let mut room = Self::with(taker, free_beside(file));
        room.holds(bytes)?;
        Ok(room)
    }

    fn with(taker: Taker, free: impl FnMut() -> io::Result<u64> + 'a) -> Self {
        Self { taker, free: Box::new(free), written: 0 }
    }

    /// That of somebody who takes all.
    pub(crate) fn endless() -> Self {
        Self { taker: Taker::Export, free: Box::new(|| Ok(u64::MAX)), written: 0 }
    }

    /// So much of a content was written.
    pub(crate) fn wrote(&mut self, bytes: u64) -> Result<()> {
        self.written = self.written.saturating_add(bytes);
        if self.written < STEP {
            return Ok(());
        }
        self.written = 0;
        self.look()
    }

    /// An entry was made.
    pub(crate) fn made(&mut self) -> Result<()> {
        self.wrote(ENTRY)
    }

    /// Refuses what would not fit.
    fn holds(&mut self, bytes: u64) -> Result<()> {
        match self.free()? {
            free if free.saturating_sub(RESERVE) < bytes => {
                Err(self.taker.refused(&format!("it takes {bytes} bytes"), free))
            }
            _ => Ok(()),
        }
    }

    /// Refuses to go on when the reserve is all there is.
    pub(crate) fn look(&mut self) -> Result<()> {
        match self.free()? {
            free @ 0..RESERVE => Err(self.taker.refused("the disk is full", free)),
            _ => Ok(()),
        }
    }

    fn free(&mut self) -> Result<u64> {
        (self.free)().map_err(|error| Error::io(self.taker.failed(), error))
    }
}

/// What is free on the file system of a file.
fn free_beside<'a>(file: BorrowedFd<'a>) -> impl FnMut() -> io::Result<u64> + 'a {
    move || {
        let room = fstatvfs(file)?;
        Ok(room.f_bavail.saturating_mul(room.f_frsize))
    }
}

impl Taker {
    const fn failed(self) -> &'static str {
        match self {
            Self::Export => "cannot write the export on the host",
            Self::DiskCopy => "cannot copy the workspace's disk",
            Self::Template => "cannot save a guest",
        }
    }

    fn refused(self, why: &str, free: u64) -> Error {
        let message = format!(
            "{}: {why}, and of the {free} bytes that are free there {RESERVE} stay free",
            self.failed()
        );
        Error::new(ErrorKind::DiskFull, message).hint(match self {
            Self::Export => "free some space, or name an output on a larger disk",
            Self::DiskCopy => {
                "free some space, as with `pyro workspace snapshot delete` or `pyro env prune`; \
                 on XFS or Btrfs a copy takes next to none"
            }
            Self::Template => "free some space, as with `pyro env prune`",
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    /// A file system that has room for so many looks.
    pub(crate) fn room_for(looks: &Cell<u32>) -> Room<'_> {
        let free = || {
            looks.set(looks.get().saturating_sub(1));
            Ok(if looks.get() == 0 { RESERVE - 1 } else { RESERVE })
        };
        let mut room = Room::with(Taker::Export, free);
        room.look().expect("some room");
        room
    }

    #[test]
    fn s4_many_small_contents_are_looked_at_like_a_large_one() {
        let looks = Cell::new(5);
        let mut room = room_for(&looks);
        let mut wrote = 0;
        while room.wrote(STEP - 1).is_ok() {
            wrote += 1;
        }
        assert_eq!(wrote, 7, "every other time");
        let looks = Cell::new(3);
        let mut room = room_for(&looks);
        let made = (0..u64::MAX).take_while(|_| room.made().is_ok()).count() as u64;
        assert_eq!(made, 2 * STEP / ENTRY - 1);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_how_much_there_is() {
        let free = Cell::new(RESERVE + 1000);
        let mut room = Room::with(Taker::DiskCopy, || Ok(free.get()));
        room.holds(1000).expect("it fits");
        let error = room.holds(1001).expect_err("one byte too much");
        assert_eq!(error.kind(), ErrorKind::DiskFull);
        for told in ["takes 1001 bytes", &format!("the {} bytes", RESERVE + 1000)] {
            assert!(error.message().contains(told), "{told}: {error}");
        }
        assert!(error.next_step().is_some_and(|hint| hint.contains("snapshot delete")));
        // Somebody else fills it meanwhile.
        room.wrote(STEP).expect("there is some");
        free.set(RESERVE - 1);
        room.wrote(STEP - 1).expect("not looked at");
        assert_eq!(room.wrote(1).expect_err("the reserve").kind(), ErrorKind::DiskFull);
    }
}
