//! `FileDelete`.

use super::fault::{refused, wrong_type};
use super::root::{NOFOLLOW, Root, TreePath};
use crate::commit::remove;
use crate::work::{Cancel, Stop};
use pyro_protocol::file::{FileDelete, FileDeleted};
use rustix::fs::{AtFlags, FileType, fsync, statat, unlinkat};
use rustix::io::Errno;

/// Answers `FileDelete`.
pub(super) fn run(root: &Root, call: &FileDelete, _: &Cancel) -> Result<FileDeleted, Stop> {
    let _turn = root.commits.turn()?;
    let path = TreePath::new(&call.path)?;
    let place = root.place(&path)?;
    let name = place.name.as_slice();
    let said = |errno| refused(&path, errno);
    let stat = statat(&place.parent, name, NOFOLLOW).map_err(said)?;
    let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
    let removed = match (is_directory, call.recursive) {
        (false, _) => unlinkat(&place.parent, name, AtFlags::empty()),
        (true, true) => remove::directory(&place.parent, name),
        (true, false) => match unlinkat(&place.parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let text = format!("{path} is a directory with content; delete it recursively");
                return Err(wrong_type(text).into());
            }
            removed => removed,
        },
    };
    removed.map_err(said)?;
    fsync(&place.parent).map_err(said)?;
    Ok(FileDeleted)
}
