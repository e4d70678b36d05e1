//! `FileMove`.

use super::fault::{invalid, refused};
use super::root::{NOFOLLOW, Root, TreePath};
use crate::work::{Cancel, Stop};
use pyro_protocol::file::{FileMove, FileMoved};
use pyro_protocol::{AgentError, AgentErrorKind};
use rustix::fs::{RenameFlags, fsync, renameat_with, statat};
use rustix::io::Errno;

/// Answers `FileMove`.
pub(super) fn run(root: &Root, call: &FileMove, _: &Cancel) -> Result<FileMoved, Stop> {
    let (from, to) = (TreePath::new(&call.from)?, TreePath::new(&call.to)?);
    let source = root.place(&from)?;
    // Before any directory is made for it.
    statat(&source.parent, source.name.as_slice(), NOFOLLOW)
        .map_err(|errno| refused(&from, errno))?;
    let target = root.make_place(&to)?;
    let flags = if call.replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    let renamed = renameat_with(
        &source.parent,
        source.name.as_slice(),
        &target.parent,
        target.name.as_slice(),
        flags,
    );
    match renamed {
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
