//! Where every inode is, and what it says.

use super::directory::{kind, measure, names, write as write_names};
use super::format::{BLOCK, INODE, Inode, Layout, SLOT};
use super::output::Output;
use super::xattr;
use crate::error::{Error, ErrorKind, Result};
use crate::seed::tree::{Attributes, Blocks, Body, Node, NodeId, Tree};
use std::collections::HashMap;

/// Where the first inode is, in slots: number 0 would say that there is none.
const FIRST_NID: u64 = 2;

/// That a node has no place (yet).
const NOWHERE: u64 = u64::MAX;

/// What belongs to an inode besides itself.
struct Extent {
    /// Whole blocks elsewhere.
    blocks: u32,
    /// Its extended attributes' bytes, right behind it.
    xattrs: usize,
    /// Bytes right behind those.
    behind: usize,
    /// They must be in the block that the inode is in.
    together: bool,
}

impl Extent {
    /// That of so many bytes in whole blocks and the rest, behind the inode if
    /// it fits.
    fn of(blocks: u32, xattrs: usize, rest: usize) -> Self {
        if INODE + xattrs + rest <= BLOCK {
            Self { blocks, xattrs, behind: rest, together: true }
        } else {
            Self { blocks: blocks + 1, xattrs, behind: 0, together: false }
        }
    }

    fn of_node(node: &Node) -> Self {
        let xattrs = xattr::size(&node.attributes.xattrs);
        match &node.body {
            Body::Directory(children) => {
                // `.` and `..` come before most names but not before all: where
                // they stand among them decides what fits into a block.
                let dots = [&b"."[..], b".."];
                let mut dots = dots.into_iter().peekable();
                let mut children = children.keys().map(|name| &**name).peekable();
                let (blocks, rest) = measure(std::iter::from_fn(|| {
                    let dot_first = match (dots.peek(), children.peek()) {
                        (Some(dot), Some(child)) => *dot < *child,
                        (dot, None) => dot.is_some(),
                        (None, Some(_)) => false,
                    };
                    if dot_first { dots.next() } else { children.next() }.map(<[u8]>::len)
                }));
                Self::of(blocks, xattrs, rest)
            }
            Body::Symlink(target) => Self::of(0, xattrs, target.len()),
            Body::File(stored) => {
                let behind = match &stored.blocks {
                    Blocks::Flat(_) => 0,
                    Blocks::Chunks { chunks, .. } => 4 * chunks.len(),
                };
                Self { blocks: 0, xattrs, behind, together: false }
            }
        }
    }
}

/// A place for every inode.
pub struct Plan<'a> {
    tree: &'a Tree,
    /// By node.
    nids: Vec<u64>,
    /// The directory that a directory is in.
    parents: HashMap<NodeId, NodeId>,
    /// In the order in which they lie.
    order: Vec<NodeId>,
    /// Where the next goes, in bytes from the beginning of the metadata.
    at: u64,
}

impl<'a> Plan<'a> {
    /// Gives every node below the top one a place: a directory, then all in it
    /// that is no directory, then its directories.
    pub fn new(tree: &'a Tree, top: NodeId) -> Self {
        let mut plan = Self {
            tree,
            nids: vec![NOWHERE; tree.node_count()],
            parents: HashMap::from([(top, top)]),
            order: Vec::with_capacity(tree.node_count()),
            at: FIRST_NID * SLOT as u64,
        };
        let mut waiting = vec![top];
        while let Some(directory) = waiting.pop() {
            plan.place(directory);
            let mut below = Vec::new();
            for child in tree.node(directory).children().into_iter().flat_map(|all| all.values()) {
                if tree.node(*child).children().is_some() {
                    plan.parents.insert(*child, directory);
                    below.push(*child);
                } else if plan.nid(*child) == NOWHERE {
                    plan.place(*child);
                }
            }
            waiting.extend(below.into_iter().rev());
        }
        plan
    }

    fn place(&mut self, id: NodeId) {
        let extent = Extent::of_node(self.tree.node(id));
        let behind = extent.xattrs + extent.behind;
        let needed = if extent.together { INODE + behind } else { INODE };
        let mut at = self.at.next_multiple_of(SLOT as u64);
        let block = BLOCK as u64;
        if at % block + needed as u64 > block {
            at = at.next_multiple_of(block);
        }
        self.nids[id.index()] = at / SLOT as u64;
        self.order.push(id);
        self.at = at + (INODE + behind) as u64;
    }

    fn nid(&self, id: NodeId) -> u64 {
        self.nids[id.index()]
    }

    /// How many inodes there are.
    #[must_use]
    pub fn inode_count(&self) -> u64 {
        self.order.len() as u64
    }

    /// Writes directories' blocks, then the metadata, and tells in which block
    /// that begins, and the number of the root in it.
    ///
    /// # Errors
    /// When the image cannot be written, or is full.
    pub fn write(&self, output: &mut Output) -> Result<(u32, u16)> {
        let mut blocks = HashMap::new();
        for id in &self.order {
            let extent = Extent::of_node(self.tree.node(*id));
            if extent.blocks > 0 {
                blocks.insert(*id, output.position()?);
                let content = self.content(*id);
                let end = content.len().min(extent.blocks as usize * BLOCK);
                output.append(&content[..end])?;
                output.align();
            }
        }
        let start = output.position()?;
        let mut at = 0;
        let mut metadata = Vec::new();
        for (index, id) in self.order.iter().enumerate() {
            let place = usize::try_from(self.nid(*id) * SLOT as u64 - at)
                .map_err(|error| Error::new(ErrorKind::Internal, "a gap").because(error))?;
            metadata.resize(place, 0);
            self.write_inode(*id, index, blocks.get(id).copied(), &mut metadata)?;
            output.append(&metadata)?;
            at += metadata.len() as u64;
            metadata.clear();
        }
        output.position()?;
        let first = self.order.first().map_or(FIRST_NID, |top| self.nid(*top));
        let root = u16::try_from(first)
            .map_err(|error| Error::new(ErrorKind::Internal, "the root is far").because(error))?;
        Ok((start, root))
    }

    fn write_inode(
        &self,
        id: NodeId,
        index: usize,
        block: Option<u32>,
        to: &mut Vec<u8>,
    ) -> Result<()> {
        let node = self.tree.node(id);
        let extent = Extent::of_node(node);
        let block = block.unwrap_or(0);
        let layout = |together| if together { Layout::Inline(block) } else { Layout::Plain(block) };
        let behind;
        let (size, layout) = match &node.body {
            Body::File(stored) => match &stored.blocks {
                Blocks::Flat(first) => {
                    behind = Vec::new();
                    (stored.size, Layout::Plain(*first))
                }
                Blocks::Chunks { bits, chunks } => {
                    behind = chunks.iter().flat_map(|chunk| chunk.to_le_bytes()).collect();
                    (stored.size, Layout::Chunks(*bits))
                }
            },
            Body::Directory(_) | Body::Symlink(_) => {
                let content = self.content(id);
                behind = content[content.len() - extent.behind..].to_vec();
                (content.len() as u64, layout(extent.together))
            }
        };
        let number = u32::try_from(index + 1)
            .map_err(|error| Error::new(ErrorKind::Internal, "too many inodes").because(error))?;
        let link_count = self.tree.link_count(id);
        let kind = kind(&node.body);
        let (mode, mtime) = (node.mode, node.mtime);
        let Attributes { uid, gid, xattrs } = &node.attributes;
        let (uid, gid, xattr_count) = (*uid, *gid, xattr::count(xattrs)?);
        Inode { kind, mode, mtime, size, layout, number, link_count, uid, gid, xattr_count }
            .write(to);
        xattr::write(xattrs, to);
        to.extend_from_slice(&behind);
        Ok(())
    }

    /// The content of a directory or a symbolic link.
    fn content(&self, id: NodeId) -> Vec<u8> {
        match &self.tree.node(id).body {
            Body::Directory(_) => {
                let parent = self.parents.get(&id).copied().unwrap_or(id);
                write_names(&names(self.tree, id, parent), |id| self.nid(id))
            }
            Body::Symlink(target) => target.to_vec(),
            Body::File(_) => Vec::new(),
        }
    }
}
