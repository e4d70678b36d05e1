//! `FileList`.

use super::fault::{invalid, refused};
use super::root::{Root, TreePath};
use super::status;
use super::walk::Entered;
use crate::beneath;
use crate::work::{Cancel, Stop};
use pyro_protocol::file::{FileEntry, FileList, FileListed, FileType, PAGE_MAX};
use pyro_protocol::{AgentError, GuestPath};
use rustix::io::Errno;

/// What an encoded entry takes beside its two strings.
const ENTRY_OVERHEAD: usize = 64;

/// Answers `FileList`.
pub(super) fn run(root: &Root, call: &FileList, cancel: &Cancel) -> Result<FileListed, Stop> {
    let path = root.path(&call.path)?;
    let itself = status::look(root, &path)?;
    if itself.file_type != FileType::Directory {
        let entries = if call.after.is_none() { vec![itself] } else { Vec::new() };
        return Ok(FileListed { entries, next: None, too_deep: 0 });
    }
    let mut walk = root.walk(&path, cancel)?;
    if let Some(after) = &call.after {
        let after = below(&path, after)?;
        if call.recursive { walk.skip_to(after) } else { walk.skip_past(after) }
    }
    let (mut listed, mut held) = (Vec::<FileEntry>::new(), 0);
    let mut too_deep = 0;
    while let Some(name) = walk.next()? {
        let entry = match status::at(walk.directory(), &name, &path.join(walk.path())) {
            Ok(Some(entry)) => entry,
            Ok(None) => {
                too_deep += 1;
                continue;
            }
            // It was there a moment ago.
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(refused(path.join(walk.path()), errno).into()),
        };
        let size = entry.path.as_bytes().len()
            + entry.link_target.as_ref().map_or(0, |target| target.0.len())
            + ENTRY_OVERHEAD;
        if !listed.is_empty() && (held + size > PAGE_MAX || listed.len() >= call.limit as usize) {
            let next = listed.last().map(|last| last.path.clone());
            return Ok(FileListed { entries: listed, next, too_deep });
        }
        held += size;
        if call.recursive && entry.file_type == FileType::Directory {
            match walk.enter() {
                Entered::Yes | Entered::Gone | Entered::Unreadable(_) => {}
                Entered::TooDeep => too_deep += 1,
            }
        }
        listed.push(entry);
    }
    Ok(FileListed { entries: listed, next: None, too_deep })
}

/// A cursor as a path below where the walk begins.
pub(super) fn below<'a>(path: &TreePath, after: &'a GuestPath) -> Result<&'a [u8], AgentError> {
    let beginning = path.absolute().map(|path| path.as_bytes().to_vec()).unwrap_or_default();
    let beginning = beginning.strip_suffix(b"/").unwrap_or(&beginning);
    after
        .as_bytes()
        .strip_prefix(beginning)
        .and_then(|rest| rest.strip_prefix(b"/"))
        // A walk opens name by name: with `..` it would lead out.
        .filter(|rest| beneath::check(rest).is_ok())
        .ok_or_else(|| invalid(format!("the cursor {after} is not below {path}")))
}
