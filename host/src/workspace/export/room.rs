//! How much an export may still write.

use crate::error::{Error, Result};
use rustix::fs::fstatvfs;
use std::io;
use std::os::fd::BorrowedFd;

/// What an export leaves free on the host's file system: a full one harms
/// everybody.
const RESERVE: u64 = 256 << 20;

/// How often the room is looked at: after so many bytes of the export, whatever
/// they belong to. Much less than the reserve.
pub(super) const STEP: u64 = 8 << 20;

const _: () = assert!(STEP * 8 < RESERVE);

/// What an entry takes besides its content: an inode, a name, a rest of a block.
const ENTRY: u64 = 4096;

/// The room that a file system has.
pub(super) struct Room<'a> {
    free: Box<dyn FnMut() -> io::Result<u64> + 'a>,
    /// Written since it was last looked at.
    written: u64,
}

impl<'a> Room<'a> {
    /// That of the file system that this is on, if there is any.
    pub(super) fn of(directory: BorrowedFd<'a>) -> Result<Self> {
        Self::with(move || {
            let room = fstatvfs(directory)?;
            Ok(room.f_bavail.saturating_mul(room.f_frsize))
        })
    }

    /// The room that somebody else tells.
    pub(super) fn with(free: impl FnMut() -> io::Result<u64> + 'a) -> Result<Self> {
        let mut room = Self { free: Box::new(free), written: 0 };
        room.look()?;
        Ok(room)
    }

    /// That of somebody who takes all.
    pub(super) fn endless() -> Self {
        Self { free: Box::new(|| Ok(u64::MAX)), written: 0 }
    }

    /// So much of a content was written.
    pub(super) fn wrote(&mut self, bytes: u64) -> Result<()> {
        self.written = self.written.saturating_add(bytes);
        if self.written < STEP {
            return Ok(());
        }
        self.written = 0;
        self.look()
    }

    /// An entry was made.
    pub(super) fn made(&mut self) -> Result<()> {
        self.wrote(ENTRY)
    }

    /// Refuses what would not fit.
    pub(super) fn holds(&mut self, bytes: u64) -> Result<()> {
        match (self.free)().map_err(refused)? {
            free if free.saturating_sub(RESERVE) < bytes => {
                Err(refused(io::ErrorKind::StorageFull.into()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn look(&mut self) -> Result<()> {
        match (self.free)().map_err(refused)? {
            0..RESERVE => Err(refused(io::ErrorKind::StorageFull.into())),
            _ => Ok(()),
        }
    }
}

fn refused(error: io::Error) -> Error {
    Error::io("cannot write the export on the host", error)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::cell::Cell;

    /// A file system that has room for so many looks.
    pub(in super::super) fn room_for(looks: &Cell<u32>) -> Room<'_> {
        let free = || {
            looks.set(looks.get().saturating_sub(1));
            Ok(if looks.get() == 0 { RESERVE - 1 } else { RESERVE })
        };
        Room::with(free).expect("some room")
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
}
