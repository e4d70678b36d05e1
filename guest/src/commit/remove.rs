//! Removing a tree, however deep it is.

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

/// How many directories on the way down are held open. A deeper tree is gone
/// down again from its top, once for so many levels.
const HELD_MAX: usize = 64;

/// How often a program may get in the way, by filling again what was emptied;
/// and how often a tree is gone down again that is deeper than what is held.
const ROUNDS_MAX: u32 = 1000;

/// Removes the directory `name` in `parent`, with all that is in it; follows no
/// link. What is no directory stays.
pub(crate) fn directory(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    for _ in 0..ROUNDS_MAX {
        match unlinkat(&parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(Errno::NOTDIR) => return Ok(()),
            removed => return removed,
        }
        hollow(open(&parent, name)?)?;
    }
    Err(Errno::BUSY)
}

/// Removes what is in a directory, or at least the deepest [`HELD_MAX`] levels.
fn hollow(top: OwnedFd) -> rustix::io::Result<()> {
    let mut held = VecDeque::from([(Dir::new(top)?, Vec::new())]);
    let mut races = 0;
    while let Some((directory, _)) = held.back_mut() {
        if let Some(child) = unlink_files(directory)? {
            match open(directory.fd()?, &child) {
                Ok(opened) => held.push_back((Dir::new(opened)?, child)),
                // Gone or replaced since; the next look will tell.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => races += 1,
                Err(error) => return Err(error),
            }
            if held.len() > HELD_MAX {
                held.pop_front();
            }
            if races > ROUNDS_MAX {
                return Err(Errno::BUSY);
            }
            continue;
        }
        let Some((_, name)) = held.pop_back() else { break };
        let Some((parent, _)) = held.back() else { break };
        match unlinkat(parent.fd()?, &name, AtFlags::REMOVEDIR) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => races += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Unlinks all that can be, from where it was; the next directory that has
/// something in it.
fn unlink_files(directory: &mut Dir) -> rustix::io::Result<Option<Vec<u8>>> {
    while let Some(entry) = directory.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        match unlinkat(directory.fd()?, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(error),
        }
        match unlinkat(directory.fd()?, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name.to_vec())),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn open(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}
