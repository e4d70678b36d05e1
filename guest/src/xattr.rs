//! Extended attributes.

use rustix::io::Errno;

/// The most bytes of names, and of one value, that Linux has.
const XATTR_MAX: usize = 64 * 1024;

/// The names of what a path names, itself; none where the file system has none.
pub(crate) fn names(path: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::with_capacity(256);
    match sized(&mut names, |buffer| rustix::fs::llistxattr(path, buffer)) {
        Ok(()) => Ok(split(&names).map(<[u8]>::to_vec).collect()),
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(errno) => Err(errno),
    }
}

/// One of them; `None` when it is gone.
pub(crate) fn value(path: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let mut bytes = Vec::new();
    match sized(&mut bytes, |buffer| rustix::fs::lgetxattr(path, name, buffer)) {
        Ok(()) => Ok(Some(bytes)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Names as the kernel tells them.
pub(crate) fn split(names: &[u8]) -> impl Iterator<Item = &[u8]> {
    names.split(|byte| *byte == 0).filter(|name| !name.is_empty())
}

/// Reads what may not fit at first.
pub(crate) fn sized(
    into: &mut Vec<u8>,
    read: impl Fn(&mut [u8]) -> Result<usize, Errno>,
) -> Result<(), Errno> {
    for room in [256, XATTR_MAX] {
        into.resize(room, 0);
        match read(into) {
            Err(Errno::RANGE) => {}
            length => {
                into.truncate(length?);
                return Ok(());
            }
        }
    }
    Err(Errno::RANGE)
}
