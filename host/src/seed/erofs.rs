//! Writes a tree as an EROFS image, which every kernel since 5.15 can mount.
//!
//! ```text
//! block 0   superblock: all in it follows from the rest
//! block 1   content of files, in the order in which they came
//!           `hard-links`
//!           directories' whole blocks
//!           metadata: inodes, and right behind them short targets of links,
//!           the rests of directories, addresses of chunks
//! ```
//!
//! Nothing is compressed, and no file's rest is put beside its inode: so a
//! guest that looks at every file's inode reads 64 bytes for each and no more.
//! Nothing comes from a clock or at random: the same walk makes the same bytes.

mod data;
mod directory;
mod format;
mod metadata;
mod output;
mod xattr;

use super::entry::{Bytes, Content, Entry, Kind, Mtime};
use super::tree::{NodeId, Stored, Tree};
use super::walk::Visitor;
use crate::error::{Error, ErrorKind, Result};
use format::{BLOCK, Superblock};
use output::Output;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The directory of the image that is the seed's root.
pub const TREE: &str = "tree";

/// The file of the image that says which files have several names: see
/// [`Tree::hard_links`].
pub const HARD_LINKS: &str = "hard-links";

/// An image that is being written: content now, the rest at the end.
pub struct Writer {
    file: File,
    output: Output,
    tree: Tree,
    chunks_left: data::ChunksLeft,
    bytes_stored: u64,
    what: &'static str,
}

/// What became of it.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// BLAKE3 of all blocks but the first.
    pub digest: blake3::Hash,
    /// The length of the image, without the hole behind it.
    pub length: u64,
    /// How many bytes of content the files have.
    pub content_bytes: u64,
}

impl Writer {
    /// Begins an image in an empty file.
    ///
    /// # Errors
    /// When the host's system refuses.
    pub fn new(file: File) -> Result<Self> {
        Self::of(file, "seed")
    }

    /// The same, for what messages call so.
    ///
    /// # Errors
    /// As [`Writer::new`].
    pub fn of(file: File, what: &'static str) -> Result<Self> {
        let own = file
            .try_clone()
            .map_err(|error| Error::io(format!("cannot write the {what}"), error))?;
        let output = Output::new(own, what)?;
        let tree = Tree::new(0o755, Mtime::default());
        let chunks_left = data::ChunksLeft::default();
        Ok(Self { file, output, tree, chunks_left, bytes_stored: 0, what })
    }

    /// The tree so far.
    pub fn tree(&mut self) -> &mut Tree {
        &mut self.tree
    }

    /// Stores the content of a file, for the tree to name.
    ///
    /// # Errors
    /// When it cannot be read, or the image not be written.
    pub fn store(&mut self, size: u64, content: &mut dyn Content) -> Result<Stored> {
        self.bytes_stored = self.bytes_stored.saturating_add(size);
        data::store(size, content, &mut self.chunks_left, &mut self.output)
    }

    /// Writes everything that is still missing of an image whose root is the
    /// tree's own. The file is not flushed.
    ///
    /// # Errors
    /// When the image cannot be written.
    pub fn finish_root(self) -> Result<Written> {
        self.finish_with(Tree::ROOT, b"pyro-root")
    }

    /// Writes everything that is still missing. The file is not flushed.
    ///
    /// # Errors
    /// When the image cannot be written.
    pub fn finish(mut self) -> Result<Written> {
        let table = self.tree.hard_links();
        let length = table.len() as u64;
        let mut content = Bytes(&table);
        let table = data::store(length, &mut content, &mut self.chunks_left, &mut self.output)?;
        let top = self.tree.enclose(TREE, (HARD_LINKS, table));
        self.finish_with(top, b"pyro-seed")
    }

    fn finish_with(mut self, top: NodeId, volume: &[u8; 9]) -> Result<Written> {
        let plan = metadata::Plan::new(&self.tree, top);
        let inode_count = plan.inode_count();
        let (metadata_block, root_nid) = plan.write(&mut self.output)?;
        let (digest, block_count) = self.output.finish()?;
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&digest.as_bytes()[..16]);
        // Of the form that says: made in a way of its own (RFC 9562, version 8).
        uuid[6] = 0x80 | uuid[6] & 0x0f;
        uuid[8] = 0x80 | uuid[8] & 0x3f;
        let superblock = Superblock {
            root_nid,
            inode_count,
            block_count,
            metadata_block,
            uuid,
            volume: *volume,
        };
        self.file
            .write_all_at(&superblock.block(), 0)
            .map_err(|error| Error::io(format!("cannot write the {}", self.what), error))?;
        let length = u64::from(block_count) * BLOCK as u64;
        Ok(Written { digest, length, content_bytes: self.bytes_stored })
    }
}

impl Visitor for Writer {
    fn root(&mut self, mode: u32, mtime: Mtime) -> Result<()> {
        self.tree.set_root(mode, mtime);
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, content: &mut dyn Content) -> Result<()> {
        let stored: Option<Stored> = match entry.kind {
            Kind::File { size } => Some(self.store(size, content)?),
            Kind::Directory | Kind::Symlink(_) | Kind::HardLink(_) => None,
        };
        self.tree.insert(entry, stored).map(drop)
    }
}

/// The digest of an image as [`Written`] has it.
///
/// # Errors
/// `StateCorrupt` when it is no image, or is shorter than it says.
pub fn digest_of(image: &File) -> Result<blake3::Hash> {
    let corrupt = |what: &str| Error::new(ErrorKind::StateCorrupt, format!("the seed {what}"));
    let mut first = vec![0; BLOCK];
    image
        .read_exact_at(&mut first, 0)
        .map_err(|error| corrupt("is shorter than a block").because(error))?;
    let blocks = Superblock::block_count_of(&first)
        .filter(|blocks| *blocks > 0)
        .ok_or_else(|| corrupt("is no image"))?;
    let end = u64::from(blocks) * BLOCK as u64;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; output::BATCH];
    let mut at = BLOCK as u64;
    while at < end {
        let now = usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        image
            .read_exact_at(&mut buffer[..now], at)
            .map_err(|error| corrupt("is shorter than it says").because(error))?;
        hasher.update(&buffer[..now]);
        at += now as u64;
    }
    Ok(hasher.finalize())
}
