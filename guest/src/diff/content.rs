//! Contents as a patch needs them: read once, so that what is told of a file
//! that is being written fits together.

use super::compare::fill;
use super::layers::{Kind, Layers, Node, Place};
use crate::git::{BlobHasher, BlobId};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek, Write};

/// Up to this size contents are held in memory, and compared line by line.
pub(super) const TEXT_MAX: u64 = 2 * 1024 * 1024;

/// What is larger is told of and left out of the patch.
pub(super) const CONTENT_MAX: u64 = 64 * 1024 * 1024;

/// Large contents are read by so many bytes at a time.
const CHUNK: usize = 64 * 1024;

/// What a file has in it, or a link leads to.
pub(super) enum Content {
    /// Up to [`TEXT_MAX`].
    Held(Vec<u8>, BlobId),
    /// Up to [`CONTENT_MAX`], in a file that nobody changes any more.
    Large(File, u64, BlobId),
    /// More than that, or there is no room on the disk to settle it.
    Unread,
}

impl Content {
    pub(super) fn id(&self) -> Option<BlobId> {
        match self {
            Content::Held(_, id) | Content::Large(_, _, id) => Some(*id),
            Content::Unread => None,
        }
    }

    pub(super) fn held(&self) -> Option<&[u8]> {
        match self {
            Content::Held(bytes, _) => Some(bytes),
            Content::Large(..) | Content::Unread => None,
        }
    }
}

/// Reads the content of a file or link; `None` when it is gone meanwhile, or
/// has none. Large ones that may change are copied to a file from `spool`.
pub(super) fn load(
    layers: &Layers,
    node: &Node,
    spool: &dyn Fn() -> io::Result<File>,
) -> io::Result<Option<Content>> {
    match load_now(layers, node, spool) {
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE | Errno::INVAL) => {
                Ok(None)
            }
            _ => Err(error),
        },
        loaded => loaded,
    }
}

fn load_now(
    layers: &Layers,
    node: &Node,
    spool: &dyn Fn() -> io::Result<File>,
) -> io::Result<Option<Content>> {
    match node.kind {
        Kind::Symlink => Ok(Some(held(layers.link(&node.place)?))),
        Kind::Directory | Kind::Special(..) => Ok(None),
        Kind::File => {
            let mut file = layers.file(&node.place)?;
            let mut bytes = Vec::new();
            // One that has grown meanwhile is taken as it is now.
            (&file).take(TEXT_MAX + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 <= TEXT_MAX {
                return Ok(Some(held(bytes)));
            }
            drop(bytes);
            if file.metadata()?.len() > CONTENT_MAX {
                return Ok(Some(Content::Unread));
            }
            file.rewind()?;
            let settled = match node.place {
                Place::Lower(_) => Ok(file),
                Place::Upper(_) | Place::Index(_) => spool().and_then(|spool| copy(file, spool)),
            };
            match settled {
                Ok(settled) => Ok(Some(large(settled)?)),
                // All else is worth being told on a full disk too.
                Err(error) if is_full(&error) => Ok(Some(Content::Unread)),
                Err(error) => Err(error),
            }
        }
    }
}

/// Whether it is the disk that has no more room.
pub(super) fn is_full(error: &io::Error) -> bool {
    [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&error.kind())
}

fn held(bytes: Vec<u8>) -> Content {
    let id = BlobId::of(&bytes);
    Content::Held(bytes, id)
}

fn copy(from: File, mut to: File) -> io::Result<File> {
    io::copy(&mut from.take(CONTENT_MAX + 1), &mut to)?;
    to.flush()?;
    to.rewind()?;
    Ok(to)
}

fn large(mut file: File) -> io::Result<Content> {
    let size = file.metadata()?.len();
    if size > CONTENT_MAX {
        return Ok(Content::Unread);
    }
    let mut hasher = BlobHasher::new(size);
    let mut chunk = vec![0; CHUNK];
    loop {
        match fill(&mut file, &mut chunk)? {
            0 => break,
            filled => hasher.update(&chunk[..filled]),
        }
    }
    file.rewind()?;
    Ok(Content::Large(file, size, hasher.finish()))
}
