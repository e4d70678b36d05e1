//! Reads an image by the format's description, sharing no code with the writer.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

const BLOCK: u64 = 4096;

/// A path of a tree, relative to its root; the root's is empty.
pub type Name = Vec<u8>;

/// What can be seen of a file: mode, time, links, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub mode: u32,
    pub mtime: (i64, i64),
    pub links: u64,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Directory,
    /// Its content.
    File(Vec<u8>),
    Symlink(Vec<u8>),
}

pub type Tree = BTreeMap<Name, Seen>;

/// An open image.
pub struct Image {
    file: File,
    metadata: u64,
    root: u64,
}

pub struct Inode {
    layout: u16,
    pub mode: u32,
    pub size: u64,
    place: u32,
    mtime: (i64, i64),
    links: u32,
    uid: u32,
    behind: u64,
}

impl Image {
    /// Opens one, and lets the format's own checker look at it first.
    pub fn open(path: &Path) -> Self {
        let checked = Command::new("fsck.erofs").arg(path).output().expect("erofs-utils");
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(checked.status.success() && !said.contains("<E>"), "{said}");
        Self::open_unchecked(path)
    }

    /// Opens one that the checker cannot look at.
    pub fn open_unchecked(path: &Path) -> Self {
        let image = Self { file: File::open(path).unwrap(), metadata: 0, root: 0 };
        let block = image.bytes(1024, 128);
        assert_eq!(u32_at(&block, 0), 0xE0F5_E1E2);
        assert_eq!(block[12], 12, "blocks of 4 KiB");
        let root = u64::from(u16::from_le_bytes([block[14], block[15]]));
        Self { metadata: u64::from(u32_at(&block, 40)) * BLOCK, root, ..image }
    }

    fn bytes(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    fn inode(&self, nid: u64) -> Inode {
        let at = self.metadata + nid * 32;
        let bytes = self.bytes(at, 64);
        let format = u16::from_le_bytes([bytes[0], bytes[1]]);
        assert_eq!(format & 1, 1, "an extended inode");
        Inode {
            layout: format >> 1,
            mode: u32::from(u16::from_le_bytes([bytes[4], bytes[5]])),
            size: u64_at(&bytes, 8),
            place: u32_at(&bytes, 16),
            uid: u32_at(&bytes, 24),
            mtime: (u64_at(&bytes, 32).cast_signed(), i64::from(u32_at(&bytes, 40))),
            links: u32_at(&bytes, 44),
            behind: at + 64,
        }
    }

    pub fn content(&self, inode: &Inode) -> Vec<u8> {
        let size = usize::try_from(inode.size).unwrap();
        let plain = u64::from(inode.place) * BLOCK;
        match inode.layout {
            0 => self.bytes(plain, size),
            2 => {
                let whole = size - size % 4096;
                let rest = size - whole;
                assert!(inode.behind % BLOCK + rest as u64 <= BLOCK, "a rest leaves its block");
                let before = if whole > 0 { self.bytes(plain, whole) } else { Vec::new() };
                [before, self.bytes(inode.behind, rest)].concat()
            }
            4 => {
                let chunk = 4096_usize << (inode.place & 31);
                let mut content = Vec::new();
                while content.len() < size {
                    let index = (content.len() / chunk) as u64;
                    let block = u32_at(&self.bytes(inode.behind + 4 * index, 4), 0);
                    let length = chunk.min(size - content.len());
                    content.extend(match block {
                        u32::MAX => vec![0; length],
                        block => self.bytes(u64::from(block) * BLOCK, length),
                    });
                }
                content
            }
            layout => panic!("layout {layout}"),
        }
    }

    /// The entries of a directory, which must be in order.
    fn entries(&self, inode: &Inode) -> Vec<(Name, u64, u8)> {
        let content = self.content(inode);
        let mut entries: Vec<(Name, u64, u8)> = Vec::new();
        for block in content.chunks(4096) {
            let offset = |index: usize| {
                usize::from(u16::from_le_bytes([block[12 * index + 8], block[12 * index + 9]]))
            };
            let count = offset(0) / 12;
            for index in 0..count {
                let end = if index + 1 < count { offset(index + 1) } else { block.len() };
                let name = block[offset(index)..end].split(|byte| *byte == 0).next().unwrap();
                entries.push((name.to_vec(), u64_at(block, 12 * index), block[12 * index + 10]));
            }
        }
        assert!(entries.is_sorted_by(|a, b| a.0 < b.0), "names are out of order");
        entries
    }

    /// The inode of a path from the image's own root.
    pub fn find(&self, path: &str) -> Inode {
        let mut nid = self.root;
        for name in path.split('/') {
            let entries = self.entries(&self.inode(nid));
            nid = entries.iter().find(|entry| entry.0 == name.as_bytes()).unwrap().1;
        }
        self.inode(nid)
    }

    /// Everything in the seed, and that the table of hard links is right.
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let mut nids: BTreeMap<u64, Vec<Name>> = BTreeMap::new();
        let entries = self.entries(&self.inode(self.root));
        let top = entries.iter().find(|entry| entry.0 == b"tree").unwrap().1;
        let mut waiting = vec![(top, self.root, Name::new())];
        while let Some((nid, parent, path)) = waiting.pop() {
            let inode = self.inode(nid);
            assert_eq!(inode.uid, 0);
            let what = match inode.mode & 0o170_000 {
                0o040_000 => {
                    let entries = self.entries(&inode);
                    for (name, child, _) in &entries {
                        match &name[..] {
                            b"." => assert_eq!(*child, nid),
                            b".." => assert_eq!(*child, parent),
                            name => {
                                let slash = if path.is_empty() { "" } else { "/" };
                                let path = [&path, slash.as_bytes(), name].concat();
                                waiting.push((*child, nid, path));
                            }
                        }
                    }
                    let directories = entries.iter().filter(|entry| entry.2 == 2).count();
                    assert_eq!(inode.links as usize, directories, "`.` and `..` count");
                    What::Directory
                }
                0o100_000 => What::File(self.content(&inode)),
                0o120_000 => What::Symlink(self.content(&inode)),
                mode => panic!("mode {mode:o}"),
            };
            if what != What::Directory {
                nids.entry(nid).or_default().push(path.clone());
            }
            let links = u64::from(inode.links);
            tree.insert(path, Seen { mode: inode.mode & 0o7777, mtime: inode.mtime, links, what });
        }
        let mut groups: Vec<_> = nids.into_values().filter(|names| names.len() > 1).collect();
        groups.iter_mut().for_each(|names| names.sort());
        groups.sort();
        let mut table = Vec::new();
        for names in groups {
            names.iter().for_each(|name| table.extend([&name[..], b"\0"].concat()));
            table.push(0);
        }
        assert_eq!(self.content(&self.find("hard-links")), table);
        tree
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// What a directory of the host holds, in the same terms. Directories have as
/// many links as they have directories in them; files as many as are in it.
pub fn tree_of(top: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut names: BTreeMap<(u64, u64), Vec<Name>> = BTreeMap::new();
    let mut waiting = vec![(top.to_owned(), Name::new())];
    while let Some((path, name)) = waiting.pop() {
        let meta = path.symlink_metadata().unwrap();
        let mut links = 0;
        let what = if meta.is_dir() {
            links = 2;
            for entry in fs::read_dir(&path).unwrap() {
                let entry = entry.unwrap();
                links += u64::from(entry.file_type().unwrap().is_dir());
                let slash = if name.is_empty() { "" } else { "/" };
                let below = [&name, slash.as_bytes(), entry.file_name().as_bytes()].concat();
                waiting.push((entry.path(), below));
            }
            What::Directory
        } else if meta.is_symlink() {
            What::Symlink(fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
        } else {
            What::File(fs::read(&path).unwrap())
        };
        if !meta.is_dir() {
            names.entry((meta.dev(), meta.ino())).or_default().push(name.clone());
        }
        let mtime = (meta.mtime(), meta.mtime_nsec());
        let mode = meta.permissions().mode() & 0o7777;
        tree.insert(name, Seen { mode, mtime, links, what });
    }
    for group in names.into_values() {
        let links = group.len() as u64;
        group.iter().for_each(|name| tree.get_mut(name).unwrap().links = links);
    }
    tree
}

/// Fails with the first difference, not with two whole trees.
pub fn assert_same(found: &Tree, expected: &Tree) {
    for (name, seen) in expected {
        let shown = String::from_utf8_lossy(name);
        assert_eq!(found.get(name), Some(seen), "`{shown}`");
    }
    let more: Vec<_> = found.keys().filter(|name| !expected.contains_key(*name)).collect();
    assert!(more.is_empty(), "{more:?}");
}
