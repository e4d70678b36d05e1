//! How a directory's names are spread over blocks.

use super::format::{BLOCK, DIRENT, FileKind, write_dirents};
use crate::seed::tree::{Body, NodeId, Tree};

/// One entry on its way into a block.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    pub name: &'a [u8],
    pub node: NodeId,
    pub kind: FileKind,
}

/// All names of a directory in the order that the kernel searches them in:
/// sorted as bytes, `.` and `..` among them.
pub fn names<'a>(tree: &'a Tree, own: NodeId, parent: NodeId) -> Vec<Name<'a>> {
    let children = tree.node(own).children();
    let mut names: Vec<Name<'a>> = children
        .into_iter()
        .flatten()
        .map(|(name, node)| Name { name, node: *node, kind: kind(&tree.node(*node).body) })
        .collect();
    for (name, node) in [(&b"."[..], own), (&b".."[..], parent)] {
        let at = names.partition_point(|other| other.name < name);
        names.insert(at, Name { name, node, kind: FileKind::Directory });
    }
    names
}

/// What a node is in the format's terms.
pub fn kind(body: &Body) -> FileKind {
    match body {
        Body::Directory(_) => FileKind::Directory,
        Body::File(_) => FileKind::Regular,
        Body::Symlink(_) => FileKind::Symlink,
    }
}

/// How large a directory is: how many blocks are before the last, and how many
/// bytes are in that.
pub fn measure(lengths: impl Iterator<Item = usize>) -> (u32, usize) {
    let mut blocks = 0;
    let mut used = 0;
    for length in lengths {
        if used + DIRENT + length > BLOCK {
            blocks += 1;
            used = 0;
        }
        used += DIRENT + length;
    }
    (blocks, used)
}

/// Writes the names, block by block; the last is not filled up.
pub fn write(names: &[Name<'_>], nid: impl Fn(NodeId) -> u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut block: Vec<(&[u8], u64, FileKind)> = Vec::new();
    let mut used = 0;
    for name in names {
        if used + DIRENT + name.name.len() > BLOCK {
            write_dirents(&block, &mut bytes);
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
            block.clear();
            used = 0;
        }
        used += DIRENT + name.name.len();
        block.push((name.name, nid(name.node), name.kind));
    }
    write_dirents(&block, &mut bytes);
    bytes
}
