//! The layers that an overlay is made of, and what lies at a place in them.

use crate::beneath;
use rustix::fs::{FileType, OFlags, readlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One overlay's layers. They are read only; the overlay may be mounted and in
/// use meanwhile.
#[derive(Debug)]
pub(crate) struct Layers {
    /// The lower layer's root: what there was before.
    pub(crate) lower: OwnedFd,
    /// The upper layer's root.
    pub(crate) upper: OwnedFd,
    /// `index` in the work directory, if the overlay has one.
    pub(crate) index: Option<OwnedFd>,
    /// Which names of the lower layer share a file: groups of names from the
    /// root down, each name ended by a NUL and each group by one more. Without
    /// it they are looked for, when the index shows that it matters.
    pub(crate) hard_links: Option<OwnedFd>,
}

/// A place in a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A path in the lower layer.
    Lower(Vec<u8>),
    /// A path in the upper layer.
    Upper(Vec<u8>),
    /// A name in the index.
    Index(Vec<u8>),
}

/// What there is at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
    /// Permissions, with set-id and sticky bits.
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) size: u64,
    /// Of the file in its layer.
    pub(crate) inode: u64,
    pub(crate) links: u32,
}

/// What kind of thing a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    /// A pipe, a socket, or a device with this number.
    Special(u32, u64),
}

impl Layers {
    /// The directory and the path in it that a place means.
    fn locate<'a>(&'a self, place: &'a Place) -> rustix::io::Result<(BorrowedFd<'a>, &'a [u8])> {
        match place {
            Place::Lower(path) => Ok((self.lower.as_fd(), path)),
            Place::Upper(path) => Ok((self.upper.as_fd(), path)),
            Place::Index(name) => {
                let index = self.index.as_ref().ok_or(Errno::NOENT)?;
                Ok((index.as_fd(), name))
            }
        }
    }

    /// Opens what is at a place without touching it.
    pub(crate) fn path(&self, place: &Place) -> rustix::io::Result<OwnedFd> {
        let (layer, path) = self.locate(place)?;
        beneath::open(layer, path, OFlags::PATH)
    }

    /// Opens a directory.
    pub(crate) fn directory(&self, place: &Place) -> rustix::io::Result<OwnedFd> {
        let (layer, path) = self.locate(place)?;
        beneath::directory(layer, path)
    }

    /// Opens a regular file.
    pub(crate) fn file(&self, place: &Place) -> rustix::io::Result<File> {
        let (layer, path) = self.locate(place)?;
        // What has become a pipe meanwhile must not keep us waiting.
        let file = beneath::open(layer, path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let stat = rustix::fs::fstat(&file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(File::from(file)),
            FileType::Directory
            | FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Err(Errno::NOENT),
        }
    }

    /// Reads a link.
    pub(crate) fn link(&self, place: &Place) -> rustix::io::Result<Vec<u8>> {
        let opened = self.path(place)?;
        Ok(readlinkat(&opened, "", Vec::new())?.into_bytes())
    }

    /// What is at a place; `None` when nothing is, or a whiteout.
    pub(crate) fn node(&self, place: Place) -> rustix::io::Result<Found> {
        let opened = match self.path(&place) {
            // The last is a name too long to be anywhere.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => {
                return Ok(Found::Nothing);
            }
            opened => opened?,
        };
        let stat = rustix::fs::fstat(&opened)?;
        let special = || Kind::Special(stat.st_mode & libc::S_IFMT, stat.st_rdev);
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice if stat.st_rdev == 0 && !matches!(place, Place::Lower(_)) => {
                return Ok(Found::Whiteout);
            }
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => special(),
        };
        Ok(Found::Node(Node {
            place,
            kind,
            mode: stat.st_mode & 0o7777,
            owner: (stat.st_uid, stat.st_gid),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            inode: stat.st_ino,
            links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        }))
    }
}

/// The answer to a look at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// The mark that hides what the lower layer has.
    Whiteout,
    Node(Node),
}

impl Found {
    pub(crate) fn node(self) -> Option<Node> {
        match self {
            Found::Node(node) => Some(node),
            Found::Nothing | Found::Whiteout => None,
        }
    }
}

impl Node {
    pub(crate) fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }
}

/// A path one name further down.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}
