//! Reaching things in a tree that programs are changing: by a descriptor of the
//! tree's root, never through a link, never out of the tree.

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The longest path that Linux takes, without its NUL.
pub(crate) const PATH_MAX: usize = 4095;

/// The longest name in a directory.
pub(crate) const NAME_MAX: usize = 255;

const fn confined() -> ResolveFlags {
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS)
}

/// Opens what lies at a path below `tree`; the empty path is `tree` itself. No
/// part of the path may be a link, the last one neither.
pub(crate) fn open(tree: impl AsFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    open_with(tree, path, flags, Mode::empty())
}

/// [`open`], with the mode of a file that it may make.
pub(crate) fn open_with(
    tree: impl AsFd,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    loop {
        match openat2(&tree, path, flags, mode, confined()) {
            // Somebody renamed a directory on the way; the kernel wants us to
            // look again. Each time, somebody got something done.
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
}

/// Opens a directory below `tree`, for reading its entries or to start from.
pub(crate) fn directory(tree: impl AsFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    open(tree, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens the directory that holds what the path names, and says its name there.
pub(crate) fn parent(tree: impl AsFd, path: &[u8]) -> rustix::io::Result<(OwnedFd, &[u8])> {
    let (parent, name) = split(path);
    Ok((open(tree, parent, OFlags::PATH | OFlags::DIRECTORY)?, name))
}

/// A path's parent, empty at the top, and its last name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// Refuses what is no plain path from a tree's root down: names and single
/// slashes, nothing else.
pub(crate) fn check(path: &[u8]) -> io::Result<()> {
    let plain = |name: &[u8]| {
        !matches!(name, b"" | b"." | b"..") && name.len() <= NAME_MAX && !name.contains(&0)
    };
    if path.len() <= PATH_MAX && path.split(|byte| *byte == b'/').all(plain) {
        return Ok(());
    }
    let text = format!("{:?} is no path below the tree", String::from_utf8_lossy(path));
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn s8_nothing_is_reached_through_a_link_or_outside() {
        let outside = tempfile::tempdir().unwrap();
        let tree = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("file"), "").unwrap();
        symlink(outside.path(), tree.path().join("out")).unwrap();
        symlink("down", tree.path().join("in")).unwrap();
        fs::create_dir(tree.path().join("down")).unwrap();
        fs::write(tree.path().join("down/file"), "").unwrap();
        let root = fs::File::open(tree.path()).unwrap();
        let attempt = |path: &str| open(&root, path.as_bytes(), OFlags::RDONLY).map(drop);
        assert_eq!(attempt("down/file"), Ok(()));
        assert_eq!(attempt(""), Ok(()));
        assert_eq!(attempt("in"), Err(Errno::LOOP));
        assert_eq!(attempt("in/file"), Err(Errno::LOOP));
        assert_eq!(attempt("out/file"), Err(Errno::LOOP));
        assert_eq!(attempt("../x"), Err(Errno::XDEV));
        assert_eq!(attempt("/etc/passwd"), Err(Errno::XDEV));
    }

    #[test]
    fn only_plain_paths_pass() {
        let long = vec![b'a'; NAME_MAX + 1];
        let deep = [b"a/".repeat(3000).as_slice(), b"a"].concat();
        for bad in [b"".as_slice(), b"/a", b"a/", b"a//b", b"./a", b"a/..", b"a\0b", &long, &deep] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        for good in [b"a".as_slice(), b"a/b", b"...", b"a/\xff", b" "] {
            assert!(check(good).is_ok(), "{good:?}");
        }
    }
}
