//! What the kernel calls `struct erofs_*`: bytes on the disk, little endian.
//! Source: Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h of Linux.

use crate::seed::entry::Mtime;

/// The size of a block, the only one that every kernel of the architecture
/// takes.
pub const BLOCK: usize = 4096;

/// Where the superblock begins.
const SUPERBLOCK_AT: usize = 1024;

const MAGIC: u32 = 0xE0F5_E1E2;
const COMPAT_CHECKSUM: u32 = 1;
const COMPAT_MTIME: u32 = 2;
const INCOMPAT_CHUNKED_FILE: u32 = 4;

/// The size of an inode in its extended form.
pub const INODE: usize = 64;

/// What inode numbers count.
pub const SLOT: usize = 32;

/// The size of a directory entry without its name.
pub const DIRENT: usize = 12;

/// What a node is, in an inode and in a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Regular,
    Directory,
    Symlink,
}

impl FileKind {
    const fn mode(self) -> u32 {
        match self {
            FileKind::Regular => 0o100_000,
            FileKind::Directory => 0o040_000,
            FileKind::Symlink => 0o120_000,
        }
    }

    const fn dirent(self) -> u8 {
        match self {
            FileKind::Regular => 1,
            FileKind::Directory => 2,
            FileKind::Symlink => 7,
        }
    }
}

/// Where an inode's data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// In whole blocks from here on.
    Plain(u32),
    /// In whole blocks from here on, and the rest right behind the inode.
    Inline(u32),
    /// In chunks of this many blocks to the power of two; their addresses are
    /// right behind the inode.
    Chunks(u16),
}

/// One inode.
pub struct Inode {
    pub kind: FileKind,
    pub mode: u32,
    pub mtime: Mtime,
    pub size: u64,
    pub layout: Layout,
    /// For programs that take 32 bits of it.
    pub number: u32,
    pub link_count: u32,
    pub uid: u32,
    pub gid: u32,
    /// How many words of 4 bytes its extended attributes have, counted as
    /// [`super::xattr::count`] does.
    pub xattr_count: u16,
}

impl Inode {
    /// Appends it to metadata.
    pub fn write(&self, to: &mut Vec<u8>) {
        let (layout, place) = match self.layout {
            Layout::Plain(block) => (0_u16, block),
            Layout::Inline(block) => (2, block),
            Layout::Chunks(bits) => (4, u32::from(bits)),
        };
        let extended = 1;
        // The rest of these are bits that a mode has no more than 16 of.
        let mode = (self.kind.mode() | (self.mode & 0o7777)) as u16;
        to.extend_from_slice(&(layout << 1 | extended).to_le_bytes());
        to.extend_from_slice(&self.xattr_count.to_le_bytes());
        to.extend_from_slice(&mode.to_le_bytes());
        to.extend_from_slice(&0_u16.to_le_bytes());
        to.extend_from_slice(&self.size.to_le_bytes());
        to.extend_from_slice(&place.to_le_bytes());
        to.extend_from_slice(&self.number.to_le_bytes());
        to.extend_from_slice(&self.uid.to_le_bytes());
        to.extend_from_slice(&self.gid.to_le_bytes());
        to.extend_from_slice(&self.mtime.secs.to_le_bytes());
        to.extend_from_slice(&self.mtime.nanos.to_le_bytes());
        to.extend_from_slice(&self.link_count.to_le_bytes());
        to.extend_from_slice(&[0; 16]);
    }
}

/// Appends one block's directory entries, filled up with zeros. An entry is a
/// name, the number of its inode and what it is.
pub fn write_dirents(entries: &[(&[u8], u64, FileKind)], to: &mut Vec<u8>) {
    let mut name_at = entries.len() * DIRENT;
    for (name, nid, kind) in entries {
        to.extend_from_slice(&nid.to_le_bytes());
        // Below the size of a block.
        to.extend_from_slice(&(name_at as u16).to_le_bytes());
        to.extend_from_slice(&[kind.dirent(), 0]);
        name_at += name.len();
    }
    entries.iter().for_each(|(name, ..)| to.extend_from_slice(name));
}

/// What the superblock says.
pub struct Superblock {
    pub root_nid: u16,
    pub inode_count: u64,
    pub block_count: u32,
    pub metadata_block: u32,
    pub uuid: [u8; 16],
    pub volume: [u8; 9],
}

impl Superblock {
    /// The image's first block.
    #[must_use]
    pub fn block(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(128);
        fields.extend_from_slice(&MAGIC.to_le_bytes());
        fields.extend_from_slice(&0_u32.to_le_bytes());
        fields.extend_from_slice(&(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        fields.extend_from_slice(&[BLOCK.trailing_zeros() as u8, 0]);
        fields.extend_from_slice(&self.root_nid.to_le_bytes());
        fields.extend_from_slice(&self.inode_count.to_le_bytes());
        // When it was made: equal seeds are equal images.
        fields.extend_from_slice(&[0; 12]);
        fields.extend_from_slice(&self.block_count.to_le_bytes());
        fields.extend_from_slice(&self.metadata_block.to_le_bytes());
        fields.extend_from_slice(&0_u32.to_le_bytes());
        fields.extend_from_slice(&self.uuid);
        fields.extend_from_slice(&self.volume);
        fields.extend_from_slice(&[0; 7]);
        fields.extend_from_slice(&INCOMPAT_CHUNKED_FILE.to_le_bytes());
        fields.resize(128, 0);
        let mut block = vec![0; BLOCK];
        block[SUPERBLOCK_AT..SUPERBLOCK_AT + fields.len()].copy_from_slice(&fields);
        let checksum = crc32c(&block[SUPERBLOCK_AT..]);
        block[SUPERBLOCK_AT + 4..SUPERBLOCK_AT + 8].copy_from_slice(&checksum.to_le_bytes());
        block
    }

    /// How many blocks an image says that it has; `None` if it is none of ours.
    #[must_use]
    pub fn block_count_of(first: &[u8]) -> Option<u32> {
        let field = |at: usize| {
            let bytes = first.get(SUPERBLOCK_AT + at..SUPERBLOCK_AT + at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        if field(0)? != MAGIC {
            return None;
        }
        field(36)
    }
}

/// CRC-32C as the kernel starts and ends it: from all ones, not inverted.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // The check value of CRC-32C is inverted at the end.
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn a_superblock_says_how_long_the_image_is() {
        let superblock = Superblock {
            root_nid: 2,
            inode_count: 3,
            block_count: 77,
            metadata_block: 5,
            uuid: [9; 16],
            volume: *b"pyro-seed",
        };
        assert_eq!(Superblock::block_count_of(&superblock.block()), Some(77));
        assert_eq!(Superblock::block_count_of(&[0; BLOCK]), None);
        assert_eq!(Superblock::block_count_of(b"short"), None);
    }
}
