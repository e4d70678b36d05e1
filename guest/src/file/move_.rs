//! `FileMove`.

use super::fault::{invalid, refused};
use super::root::{NOFOLLOW, Place, Root, TreePath};
use crate::work::{Cancel, Stop};
use pyro_protocol::file::{FileMove, FileMoved};
use pyro_protocol::{AgentError, AgentErrorKind};
use rustix::fs::{AtFlags, RenameFlags, Stat, fstat, fsync, renameat_with, statat, unlinkat};
use rustix::io::Errno;

/// Answers `FileMove`.
pub(super) fn run(root: &Root, call: &FileMove, _: &Cancel) -> Result<FileMoved, Stop> {
    let _turn = root.commits.turn()?;
    let (from, to) = (TreePath::new(&call.from)?, TreePath::new(&call.to)?);
    let source = root.place(&from)?;
    // Before any directory is made for it.
    let moved = statat(&source.parent, source.name.as_slice(), NOFOLLOW)
        .map_err(|errno| refused(&from, errno))?;
    let target = root.make_place(&to)?;
    let is_linked = is_other_name(&source, &target, &moved).map_err(|errno| refused(&to, errno))?;
    let flags = if call.replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    let renamed = renameat_with(
        &source.parent,
        source.name.as_slice(),
        &target.parent,
        target.name.as_slice(),
        flags,
    );
    match renamed {
        // Between two names of one file a rename does nothing.
        Ok(()) if is_linked => {
            let unlinked = unlinkat(&source.parent, source.name.as_slice(), AtFlags::empty());
            unlinked.map_err(|errno| refused(&from, errno))?;
        }
        Ok(()) => {}
        Err(Errno::NOENT) => return Err(refused(&from, Errno::NOENT).into()),
        Err(Errno::INVAL) => {
            return Err(invalid(format!("{from} cannot be moved into itself, to {to}")).into());
        }
        Err(Errno::XDEV) => {
            let text = format!("{to} is on another file system than {from}");
            return Err(AgentError::new(AgentErrorKind::System, text).into());
        }
        Err(errno) => return Err(refused(&to, errno).into()),
    }
    for (place, path) in [(&target, &to), (&source, &from)] {
        fsync(&place.parent).map_err(|errno| refused(path, errno))?;
    }
    Ok(FileMoved)
}

/// Whether the target is the source's file under another name.
fn is_other_name(source: &Place, target: &Place, moved: &Stat) -> Result<bool, Errno> {
    let identity = |stat: &Stat| (stat.st_dev, stat.st_ino);
    let there = match statat(&target.parent, target.name.as_slice(), NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(errno),
    };
    let is_same_place = source.name == target.name
        && identity(&fstat(&source.parent)?) == identity(&fstat(&target.parent)?);
    Ok(identity(&there) == identity(moved) && !is_same_place)
}
