//! Extended attributes, as the overlay shows them.

use super::layers::{Layers, Place};
use crate::xattr::{sized, split};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

/// The overlay's own marks.
const MARKS: &[u8] = b"trusted.overlay.";

/// What a program named like a mark is kept under this name.
const ESCAPED: &[u8] = b"trusted.overlay.overlay.";

/// One mark of the overlay's; `None` when there is none.
pub(super) fn mark(
    layers: &Layers,
    place: &Place,
    name: &str,
) -> rustix::io::Result<Option<Vec<u8>>> {
    let opened = layers.path(place)?;
    value(&opened, format!("trusted.overlay.{name}").as_bytes())
}

/// All attributes but the overlay's own.
pub(super) fn all(
    layers: &Layers,
    place: &Place,
) -> rustix::io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let opened = layers.path(place)?;
    let mut names = Vec::with_capacity(256);
    match sized(&mut names, |buffer| rustix::fs::listxattr(at(&opened), buffer)) {
        Err(Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        listed => listed?,
    }
    let mut all = BTreeMap::new();
    for name in split(&names) {
        let shown = match (name.strip_prefix(ESCAPED), name.strip_prefix(MARKS)) {
            (Some(rest), _) => [MARKS, rest].concat(),
            (None, Some(_)) => continue,
            (None, None) => name.to_vec(),
        };
        if let Some(value) = value(&opened, name)? {
            all.insert(shown, value);
        }
    }
    Ok(all)
}

fn value(opened: &OwnedFd, name: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match sized(&mut bytes, |buffer| rustix::fs::getxattr(at(opened), name, buffer)) {
        Ok(()) => Ok(Some(bytes)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A name for what an O_PATH descriptor holds; attributes cannot be read through
/// the descriptor itself. A link's are not its target's: there is nothing to
/// follow behind this name.
fn at(opened: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", opened.as_raw_fd())
}
