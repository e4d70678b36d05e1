//! A tree in memory: all but the files' content, which is in the image already.

use super::entry::{Entry, Kind, Mtime, RelPath};
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeMap;

/// A node of a [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// Its place in a list by node: below [`Tree::node_count`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A file, a directory or a symbolic link, with however many names.
#[derive(Debug)]
pub struct Node {
    /// 07777.
    pub mode: u32,
    /// When its content was last changed.
    pub mtime: Mtime,
    /// How many names it has; of a directory see [`Node::link_count`].
    names: u32,
    /// Whose it is, and what else is known of it.
    pub attributes: Attributes,
    /// What it is.
    pub body: Body,
}

/// What root images know of a node besides. In a seed everything is root's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its extended attributes, each name once.
    pub xattrs: Box<[Xattr]>,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// What comes before the first point of its name.
    pub space: XattrSpace,
    /// The rest of its name: 1 to 255 bytes.
    pub name: Box<[u8]>,
    /// Its value, of at most 64 KiB.
    pub value: Box<[u8]>,
}

/// The kinds of extended attributes that images have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum XattrSpace {
    /// `user.`: programs' own.
    User,
    /// `security.`: capabilities of files.
    Security,
}

/// What a node is.
#[derive(Debug)]
pub enum Body {
    /// Names, sorted as bytes.
    Directory(BTreeMap<Box<[u8]>, NodeId>),
    /// A file.
    File(Stored),
    /// A symbolic link's target.
    Symlink(Box<[u8]>),
}

/// Where a file's content is in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its size in bytes.
    pub size: u64,
    /// Its blocks.
    pub blocks: Blocks,
}

/// The address of a chunk that is all zeros, as the image has it.
pub const HOLE: u32 = u32::MAX;

/// The blocks of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocks {
    /// One after the other from here on.
    Flat(u32),
    /// In chunks of this many blocks to the power of two, each from its own
    /// block on, or nowhere if it is all zeros.
    Chunks {
        /// The power of two.
        bits: u16,
        /// [`HOLE`] is nowhere.
        chunks: Box<[u32]>,
    },
}

impl Node {
    fn new(mode: u32, mtime: Mtime, body: Body) -> Self {
        Self { mode, mtime, names: 0, attributes: Attributes::default(), body }
    }

    /// What it holds, if it is a directory.
    #[must_use]
    pub fn children(&self) -> Option<&BTreeMap<Box<[u8]>, NodeId>> {
        match &self.body {
            Body::Directory(children) => Some(children),
            Body::File(_) | Body::Symlink(_) => None,
        }
    }
}

/// A tree of nodes.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    /// The directory that the last entry was in: the next is there too, mostly.
    last: Option<(RelPath, NodeId)>,
}

impl Tree {
    /// The root.
    pub const ROOT: NodeId = NodeId(0);

    /// A root with nothing in it.
    #[must_use]
    pub fn new(mode: u32, mtime: Mtime) -> Self {
        Self { nodes: vec![Node::new(mode, mtime, Body::Directory(BTreeMap::new()))], last: None }
    }

    /// How many nodes there are or were: those that were replaced count too.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// Changes what is known of the root itself.
    pub fn set_root(&mut self, mode: u32, mtime: Mtime) {
        self.nodes[0].mode = mode;
        self.nodes[0].mtime = mtime;
    }

    /// Puts the root into a directory of its own, beside a file that only root
    /// may read; gives that directory.
    pub fn enclose(&mut self, root: &str, file: (&str, Stored)) -> NodeId {
        let mut add = |mode, body| {
            let id = NodeId(self.nodes.len() as u32);
            let mut node = Node::new(mode, Mtime::default(), body);
            node.names = 1;
            self.nodes.push(node);
            id
        };
        let (name, stored) = file;
        let beside = add(0o400, Body::File(stored));
        let children = [(root, Self::ROOT), (name, beside)];
        add(0o700, Body::Directory(children.map(|(name, id)| (name.as_bytes().into(), id)).into()))
    }

    /// Adds an entry, or puts it in the place of what was there.
    ///
    /// # Errors
    /// When its parent is no directory, its target is not there, or it would
    /// replace a directory with something in it.
    pub fn insert(&mut self, entry: &Entry, stored: Option<Stored>) -> Result<NodeId> {
        let parent = self.parent_of(&entry.path)?;
        let name = entry.path.name();
        let old = self.node(parent).children().and_then(|children| children.get(name)).copied();
        let new = match &entry.kind {
            Kind::Directory => {
                if let Some(old) = old
                    && self.node(old).children().is_some()
                {
                    let node = &mut self.nodes[old.0 as usize];
                    (node.mode, node.mtime) = (entry.mode, entry.mtime);
                    return Ok(old);
                }
                self.add(entry, Body::Directory(BTreeMap::new()))?
            }
            Kind::File { size } => {
                let stored = stored.unwrap_or(Stored { size: *size, blocks: Blocks::Flat(0) });
                self.add(entry, Body::File(stored))?
            }
            Kind::Symlink(target) => {
                self.add(entry, Body::Symlink(target.clone().into_boxed_slice()))?
            }
            Kind::HardLink(target) => self
                .find(target)
                .filter(|found| self.node(*found).children().is_none())
                .ok_or_else(|| {
                    bad(format!("`{}` is a hard link to `{target}`, no such file", entry.path))
                })?,
        };
        self.replace(parent, name, old, new, &entry.path)?;
        Ok(new)
    }

    /// Says whose a node is.
    pub fn set_attributes(&mut self, id: NodeId, attributes: Attributes) {
        self.nodes[id.index()].attributes = attributes;
    }

    fn replace(
        &mut self,
        parent: NodeId,
        name: &[u8],
        old: Option<NodeId>,
        new: NodeId,
        path: &RelPath,
    ) -> Result<()> {
        if let Some(old) = old {
            let full = self.node(old).children().is_some_and(|children| !children.is_empty());
            if full {
                return Err(bad(format!("`{path}` comes again in place of a full directory")));
            }
            // A directory that is remembered may be the one that goes.
            self.last = None;
            self.nodes[old.0 as usize].names -= 1;
        }
        self.nodes[new.0 as usize].names += 1;
        if let Body::Directory(children) = &mut self.nodes[parent.0 as usize].body {
            children.insert(name.into(), new);
        }
        Ok(())
    }

    fn add(&mut self, entry: &Entry, body: Body) -> Result<NodeId> {
        let id = u32::try_from(self.nodes.len())
            .map_err(|_| bad(format!("`{}` is one entry too many", entry.path)))?;
        self.nodes.push(Node::new(entry.mode, entry.mtime, body));
        Ok(NodeId(id))
    }

    fn parent_of(&mut self, path: &RelPath) -> Result<NodeId> {
        let Some(parent) = path.parent() else { return Ok(Self::ROOT) };
        if let Some((last, id)) = &self.last
            && *last == parent
        {
            return Ok(*id);
        }
        let id = self
            .find(&parent)
            .filter(|found| self.node(*found).children().is_some())
            .ok_or_else(|| bad(format!("`{path}` lies in `{parent}`, which is no directory")))?;
        self.last = Some((parent, id));
        Ok(id)
    }

    fn find(&self, path: &RelPath) -> Option<NodeId> {
        path.names().try_fold(Self::ROOT, |at, name| {
            self.node(at).children().and_then(|children| children.get(name)).copied()
        })
    }

    /// How many links the file system says that a node has.
    #[must_use]
    pub fn link_count(&self, id: NodeId) -> u32 {
        let node = self.node(id);
        let Some(children) = node.children() else { return node.names };
        let directories =
            children.values().filter(|child| self.node(**child).children().is_some()).count();
        u32::try_from(directories).unwrap_or(u32::MAX - 2) + 2
    }

    /// The names of all that have several: each name followed by a NUL, and
    /// another NUL after the last name of a node. Names are paths from the root
    /// without a leading slash, sorted; groups are sorted by their first name.
    #[must_use]
    pub fn hard_links(&self) -> Vec<u8> {
        let mut groups: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
        let mut waiting = vec![(Self::ROOT, Vec::new())];
        while let Some((id, path)) = waiting.pop() {
            for (name, child) in self.node(id).children().into_iter().flatten() {
                let node = self.node(*child);
                let directory = node.children().is_some();
                if !directory && node.names < 2 {
                    continue;
                }
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                let path = [&path, slash, name].concat();
                if directory {
                    waiting.push((*child, path));
                } else {
                    groups.entry(child.0).or_default().push(path);
                }
            }
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.iter_mut().for_each(|names| names.sort_unstable());
        groups.sort_unstable();
        let mut table = Vec::new();
        for name in groups.iter().flat_map(|names| names.iter().map(Some).chain([None])) {
            table.extend_from_slice(name.map_or(&[], Vec::as_slice));
            table.push(0);
        }
        table
    }
}

fn bad(what: String) -> Error {
    Error::new(ErrorKind::InvalidInput, what)
}
