//! `FileDelete`.

use super::fault::{refused, wrong_type};
use super::root::{NOFOLLOW, Root, TreePath};
use super::walk::{Entered, Walk};
use crate::work::{Cancel, Stop};
use pyro_protocol::file::{FileDelete, FileDeleted};
use pyro_protocol::{AgentError, AgentErrorKind};
use rustix::fs::{AtFlags, Mode, OFlags, fsync, openat, statat, unlinkat};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// Answers `FileDelete`.
pub(super) fn run(root: &Root, call: &FileDelete, cancel: &Cancel) -> Result<FileDeleted, Stop> {
    let path = TreePath::new(&call.path)?;
    let place = root.place(&path)?;
    let name = place.name.as_slice();
    let said = |errno| refused(&path, errno);
    let stat = statat(&place.parent, name, NOFOLLOW).map_err(said)?;
    let mut count = 1;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
        if call.recursive {
            let directory = open(&place.parent, name).map_err(said)?;
            count += empty(directory, &path, cancel)?;
        }
        match unlinkat(&place.parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) if !call.recursive => {
                let text = format!("{path} is a directory with content; delete it recursively");
                return Err(wrong_type(text).into());
            }
            removed => removed.map_err(said)?,
        }
    } else {
        unlinkat(&place.parent, name, AtFlags::empty()).map_err(said)?;
    }
    fsync(&place.parent).map_err(said)?;
    Ok(FileDeleted { count })
}

/// Removes all that is in a directory; how many that were. What is put into it
/// meanwhile makes it fail.
fn empty(directory: OwnedFd, path: &TreePath, cancel: &Cancel) -> Result<u64, Stop> {
    let mut walk = Walk::new(directory, path.as_bytes().len(), cancel);
    // The directories the walk is in, to be removed once it is out of them.
    let mut emptied: Vec<Vec<u8>> = Vec::new();
    let mut count = 0;
    loop {
        let name = walk.next()?;
        while emptied.len() >= walk.depth() {
            let Some(left) = emptied.pop() else { break };
            remove(walk.directory_above(emptied.len()), &left, AtFlags::REMOVEDIR, path)?;
            count += 1;
        }
        let Some(name) = name else { return Ok(count) };
        match unlinkat(walk.directory(), name.as_slice(), AtFlags::empty()) {
            Ok(()) => count += 1,
            Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => match walk.enter() {
                Entered::Yes => emptied.push(name),
                Entered::Gone => {}
                Entered::Unreadable => {
                    return Err(refused(path.join(walk.path()), Errno::ACCESS).into());
                }
                Entered::TooDeep => return Err(too_deep(path).into()),
            },
            Err(errno) => return Err(refused(path.join(walk.path()), errno).into()),
        }
    }
}

fn remove(
    directory: impl AsFd,
    name: &[u8],
    flags: AtFlags,
    path: &TreePath,
) -> Result<(), AgentError> {
    match unlinkat(directory, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(refused(path.join(name), errno)),
    }
}

fn too_deep(path: &TreePath) -> AgentError {
    let text = format!("{path} is nested too deeply; delete it by a command in the workspace");
    AgentError::new(AgentErrorKind::TooLarge, text)
}

fn open(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}
