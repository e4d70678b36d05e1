//! Whether two nodes are the same to whoever looks at them.

use super::layers::{Kind, Layers, Node, Place};
use super::xattr;
use crate::work::Cancel;
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;

/// Files are compared by so many bytes at a time.
const CHUNK: usize = 64 * 1024;

/// Whether a node is what it was. When it vanishes while we look, it is: what
/// comes after us is not for us to tell.
pub(super) fn same(
    layers: &Layers,
    old: &Node,
    new: &Node,
    cancel: &Cancel,
) -> rustix::io::Result<bool> {
    match same_now(layers, old, new, cancel) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE) => Ok(true),
        same => same,
    }
}

fn same_now(layers: &Layers, old: &Node, new: &Node, cancel: &Cancel) -> rustix::io::Result<bool> {
    if old.place == new.place {
        return Ok(true);
    }
    if old.kind != new.kind || (old.mode, old.owner) != (new.mode, new.owner) {
        return Ok(false);
    }
    let one_inode = old.inode == new.inode && matches!(new.place, Place::Lower(_));
    let same_content = one_inode
        || match old.kind {
            Kind::File => same_bytes(layers, old, new, cancel)?,
            Kind::Symlink => layers.link(&old.place)? == layers.link(&new.place)?,
            Kind::Directory | Kind::Special(..) => true,
        };
    Ok(same_content
        && (one_inode || xattr::all(layers, &old.place)? == xattr::all(layers, &new.place)?))
}

/// Whether two files have the same content.
fn same_bytes(
    layers: &Layers,
    old: &Node,
    new: &Node,
    cancel: &Cancel,
) -> rustix::io::Result<bool> {
    if old.size != new.size {
        return Ok(false);
    }
    let (mut old, mut new) = (layers.file(&old.place)?, layers.file(&new.place)?);
    let (mut was, mut is) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        cancel.check_errno()?;
        let (had, has) = (fill(&mut old, &mut was)?, fill(&mut new, &mut is)?);
        if was[..had] != is[..has] {
            return Ok(false);
        }
        if had == 0 {
            return Ok(true);
        }
    }
}

/// Reads until there is no room or nothing more.
pub(super) fn fill(file: &mut File, into: &mut [u8]) -> rustix::io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read(&mut into[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
    Ok(filled)
}
