//! Extended attributes, right behind their inode.

use crate::error::{Error, ErrorKind, Result};
use crate::seed::tree::{Xattr, XattrSpace};

/// What comes before them: no filter of names, none that are shared.
const HEADER: usize = 12;

/// What comes before each: two lengths and the kind.
const ENTRY: usize = 4;

/// They are counted in words.
const WORD: usize = 4;

const fn index(space: XattrSpace) -> u8 {
    match space {
        XattrSpace::User => 1,
        XattrSpace::Security => 6,
    }
}

fn entry_size(xattr: &Xattr) -> usize {
    (ENTRY + xattr.name.len() + xattr.value.len()).next_multiple_of(WORD)
}

/// How many bytes they take.
pub fn size(xattrs: &[Xattr]) -> usize {
    if xattrs.is_empty() { 0 } else { HEADER + xattrs.iter().map(entry_size).sum::<usize>() }
}

/// How an inode says how many there are: the words behind the header, and one.
///
/// # Errors
/// When they are too many for an inode.
pub fn count(xattrs: &[Xattr]) -> Result<u16> {
    let size = size(xattrs);
    let words = if size == 0 { 0 } else { (size - HEADER) / WORD + 1 };
    u16::try_from(words).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, "a file has too many extended attributes")
            .because(error)
    })
}

/// Appends them to metadata.
pub fn write(xattrs: &[Xattr], to: &mut Vec<u8>) {
    if xattrs.is_empty() {
        return;
    }
    to.extend_from_slice(&[0; HEADER]);
    for xattr in xattrs {
        let start = to.len();
        // Whoever makes one keeps to the lengths that fit.
        to.extend_from_slice(&[xattr.name.len() as u8, index(xattr.space)]);
        to.extend_from_slice(&(xattr.value.len() as u16).to_le_bytes());
        to.extend_from_slice(&xattr.name);
        to.extend_from_slice(&xattr.value);
        to.resize(start + entry_size(xattr), 0);
    }
}
