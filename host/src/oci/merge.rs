//! Layers, one over the other, as one tree in memory: names, modes, owners, links,
//! and of files where their content is. Nothing of it is on the host.
//!
//! A name of a layer is followed as the guest would follow it: symbolic links on
//! its way lead within the tree, and none leads out of it, for there is nothing
//! outside. A name that begins with [`WHITEOUT`] takes away what lower layers have.

mod walk;
mod way;

use crate::seed::archive::tar::{Member, MemberKind};
use crate::seed::entry::{Mtime, NAME_BYTES_MAX, TARGET_BYTES_MAX};
use crate::seed::tree::{Attributes, Stored, Xattr, XattrSpace};
use std::collections::BTreeMap;

pub use walk::Visit;
use way::Way;

/// How many members all layers together may have. Each costs up to 700 bytes of
/// memory, also when a later one replaces it. The largest images have 600,000.
pub const MEMBERS_MAX: u64 = 2_000_000;

/// How many bytes their names, targets and attributes may have together.
pub const NAMES_MAX: u64 = 512 << 20;

/// What an extended attribute counts for in [`NAMES_MAX`] besides its bytes: it
/// takes so much memory, however short it is.
const XATTR_COST: usize = 96;

/// How many steps it may take to lay all members over one another: names gone
/// through, links followed, whiteouts' trees looked at. The largest images need
/// ten million; a hostile one could ask for any number with few bytes.
const STEPS_MAX: u64 = 300_000_000;

/// How deep directories may lie: more would be longer than a path that Linux takes.
const DEPTH_MAX: usize = 1024;

/// How many symbolic links are followed on one way, as Linux does.
const LINKS_MAX: usize = 40;

/// How many bytes the extended attributes of one file may have: what fits into
/// the block of a file system.
const XATTRS_MAX: usize = 4096;

/// What a name begins with that takes something away.
const WHITEOUT: &[u8] = b".wh.";
/// Takes away all that lower layers have in the directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Others of this beginning are AUFS's own notes.
const NOTES: &[u8] = b".wh..wh.";

/// The mode of a directory that no member is for.
const MADE_MODE: u32 = 0o755;

/// A node of a [`Merged`] tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

/// Where a file's content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// It is that of a member of a layer, counted from 0.
    Member {
        /// Which layer, counted from 1.
        layer: u32,
        /// Which member.
        ordinal: u64,
    },
    /// It is in the image already.
    Stored(Stored),
}

/// A file, a directory or a symbolic link.
#[derive(Debug)]
pub struct Node {
    /// 07777.
    pub mode: u32,
    /// When its content was last changed.
    pub mtime: Mtime,
    /// Whose it is.
    pub attributes: Attributes,
    /// What it is.
    pub body: Body,
}

/// What a node is.
#[derive(Debug)]
pub enum Body {
    /// Names, sorted as bytes.
    Directory(BTreeMap<Box<[u8]>, Child>),
    /// A file.
    File {
        /// How many bytes it has.
        size: u64,
        /// Where they are.
        content: Content,
    },
    /// A symbolic link's target.
    Symlink(Box<[u8]>),
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Child {
    /// What it names.
    pub node: NodeId,
    /// The layer that the name comes from.
    layer: u32,
}

/// Why a member cannot be in a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// `..` would lead elsewhere.
    #[error("`..` is in its name")]
    Dots,
    /// No file system takes it.
    #[error("its name, or a link's target, is longer than Linux takes or has a NUL byte")]
    Name,
    /// See [`DEPTH_MAX`].
    #[error("it lies deeper than {DEPTH_MAX} directories")]
    Deep,
    /// See [`LINKS_MAX`].
    #[error("the way to it leads through more than {LINKS_MAX} symbolic links")]
    Links,
    /// It would be in what is no directory.
    #[error("it lies below a file")]
    BelowFile,
    /// The root is a directory.
    #[error("it is in the place of the root")]
    Root,
    /// A whiteout that names nothing.
    #[error("it takes away what cannot be")]
    Whiteout,
    /// A hard link to what is not there or is a directory.
    #[error("it is a hard link to no file")]
    HardLink,
    /// See [`MEMBERS_MAX`] and [`NAMES_MAX`].
    #[error("the layers have more than {MEMBERS_MAX} members, or names too long together")]
    TooMany,
    /// See [`STEPS_MAX`].
    #[error("the layers are too tangled to be merged")]
    Tangled,
    /// See [`XATTRS_MAX`].
    #[error("its extended attributes have more than {XATTRS_MAX} bytes")]
    Xattrs,
}

/// What became of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is in the tree.
    Taken,
    /// It is nothing that a root image has: what.
    Skipped(&'static str),
}

/// Layers, one over the other.
#[derive(Debug)]
pub struct Merged {
    nodes: Vec<Node>,
    layer: u32,
    members_left: u64,
    names_left: u64,
    steps_left: u64,
}

impl Merged {
    /// The root.
    pub const ROOT: NodeId = NodeId(0);

    /// A root with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        let body = Body::Directory(BTreeMap::new());
        let attributes = Attributes::default();
        let root = Node { mode: MADE_MODE, mtime: Mtime::default(), attributes, body };
        Self {
            nodes: vec![root],
            layer: 0,
            members_left: MEMBERS_MAX,
            names_left: NAMES_MAX,
            steps_left: STEPS_MAX,
        }
    }

    /// Says that the members that follow are of the next layer; gives its number,
    /// the lowest layer's being 1.
    pub fn begin_layer(&mut self) -> u32 {
        self.layer += 1;
        self.layer
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// A node, to be changed.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// Lays a member over what is there.
    ///
    /// # Errors
    /// When it cannot be in a tree.
    pub fn apply(&mut self, member: &Member, ordinal: u64) -> Result<Applied, Misfit> {
        self.count(member)?;
        let names = names_of(&member.name)?;
        let Some((name, parents)) = names.split_last() else {
            if member.kind != MemberKind::Directory {
                return Err(Misfit::Root);
            }
            let attributes = attributes_of(member)?;
            let root = self.node_mut(Self::ROOT);
            (root.mode, root.mtime, root.attributes) = (member.mode, member.mtime, attributes);
            return Ok(Applied::Taken);
        };
        if name.starts_with(WHITEOUT) {
            return self.white_out(parents, name);
        }
        if let MemberKind::Other(what) = member.kind {
            return Ok(Applied::Skipped(what));
        }
        let parent = self.directory(parents, member.mtime)?;
        let node = match &member.kind {
            MemberKind::HardLink(target) => self.find_file(target)?,
            MemberKind::Directory => {
                if let Some(old) = self.child(parent, name)
                    && matches!(self.node(old).body, Body::Directory(_))
                {
                    let attributes = attributes_of(member)?;
                    let node = self.node_mut(old);
                    (node.mode, node.mtime, node.attributes) =
                        (member.mode, member.mtime, attributes);
                    self.name(parent, name, old);
                    return Ok(Applied::Taken);
                }
                self.add(member, Body::Directory(BTreeMap::new()))?
            }
            MemberKind::File(size) => {
                let content = Content::Member { layer: self.layer, ordinal };
                self.add(member, Body::File { size: *size, content })?
            }
            MemberKind::Symlink(target) => {
                if target.is_empty() || target.len() > TARGET_BYTES_MAX || target.contains(&0) {
                    return Err(Misfit::Name);
                }
                self.add(member, Body::Symlink(target.clone().into_boxed_slice()))?
            }
            MemberKind::Other(what) => return Ok(Applied::Skipped(what)),
        };
        self.name(parent, name, node);
        Ok(Applied::Taken)
    }

    /// Puts something of pyro's own into the place of whatever is there, root's.
    ///
    /// # Errors
    /// When the way to it leads nowhere.
    pub fn put(&mut self, path: &[u8], mode: u32, body: Body) -> Result<(), Misfit> {
        let names = names_of(path)?;
        let (name, parents) = names.split_last().ok_or(Misfit::Root)?;
        let parent = self.directory(parents, Mtime::default())?;
        let attributes = Attributes::default();
        let node = self.push(Node { mode, mtime: Mtime::default(), attributes, body })?;
        self.name(parent, name, node);
        Ok(())
    }

    /// Sees to it that a directory is there, also where a link or a file was.
    ///
    /// # Errors
    /// As [`Merged::put`].
    pub fn make_directory(&mut self, path: &[u8], mode: u32) -> Result<(), Misfit> {
        let names = names_of(path)?;
        let (name, parents) = names.split_last().ok_or(Misfit::Root)?;
        let parent = self.directory(parents, Mtime::default())?;
        match self.child(parent, name) {
            Some(old) if matches!(self.node(old).body, Body::Directory(_)) => Ok(()),
            Some(_) | None => self.put(path, mode, Body::Directory(BTreeMap::new())),
        }
    }

    /// Sees to it that a way leads to a directory, along whatever links there are.
    ///
    /// # Errors
    /// When it leads nowhere.
    pub fn lead_to(&mut self, path: &[u8]) -> Result<(), Misfit> {
        self.directory(&names_of(path)?, Mtime::default()).map(drop)
    }

    fn count(&mut self, member: &Member) -> Result<(), Misfit> {
        let target = match &member.kind {
            MemberKind::Symlink(target) | MemberKind::HardLink(target) => target.len(),
            MemberKind::Directory | MemberKind::File(_) | MemberKind::Other(_) => 0,
        };
        let xattrs: usize =
            member.xattrs.iter().map(|(name, value)| name.len() + value.len() + XATTR_COST).sum();
        let bytes = (member.name.len() + target + xattrs) as u64;
        self.members_left = self.members_left.checked_sub(1).ok_or(Misfit::TooMany)?;
        self.names_left = self.names_left.checked_sub(bytes).ok_or(Misfit::TooMany)?;
        Ok(())
    }

    fn spend(&mut self, steps: usize) -> Result<(), Misfit> {
        self.steps_left = self.steps_left.checked_sub(steps as u64).ok_or(Misfit::Tangled)?;
        Ok(())
    }

    fn add(&mut self, member: &Member, body: Body) -> Result<NodeId, Misfit> {
        // Linux knows no other mode of a symbolic link.
        let mode = if matches!(body, Body::Symlink(_)) { 0o777 } else { member.mode };
        let attributes = attributes_of(member)?;
        self.push(Node { mode, mtime: member.mtime, attributes, body })
    }

    fn push(&mut self, node: Node) -> Result<NodeId, Misfit> {
        let id = u32::try_from(self.nodes.len()).map_err(|_| Misfit::TooMany)?;
        self.nodes.push(node);
        Ok(NodeId(id))
    }

    fn children(&self, directory: NodeId) -> Option<&BTreeMap<Box<[u8]>, Child>> {
        match &self.node(directory).body {
            Body::Directory(children) => Some(children),
            Body::File { .. } | Body::Symlink(_) => None,
        }
    }

    fn children_mut(&mut self, directory: NodeId) -> Option<&mut BTreeMap<Box<[u8]>, Child>> {
        match &mut self.node_mut(directory).body {
            Body::Directory(children) => Some(children),
            Body::File { .. } | Body::Symlink(_) => None,
        }
    }

    fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        Some(self.children(directory)?.get(name)?.node)
    }

    /// Lets a name of this layer be that of a node.
    fn name(&mut self, directory: NodeId, name: &[u8], node: NodeId) {
        let child = Child { node, layer: self.layer };
        if let Some(children) = self.children_mut(directory) {
            children.insert(name.into(), child);
        }
    }

    /// Goes to a directory, along symbolic links. What is missing is made.
    fn directory(&mut self, names: &[&[u8]], mtime: Mtime) -> Result<NodeId, Misfit> {
        let mut way = Way::new(names);
        while let Some(name) = way.next() {
            let here = way.here();
            match self.child(here, &name) {
                Some(found) => self.step(&mut way, found)?,
                None => {
                    let body = Body::Directory(BTreeMap::new());
                    let attributes = Attributes::default();
                    let made = self.push(Node { mode: MADE_MODE, mtime, attributes, body })?;
                    // Each costs what a member does, though a name may make many.
                    self.members_left = self.members_left.checked_sub(1).ok_or(Misfit::TooMany)?;
                    self.name(here, &name, made);
                    way.enter(made)?;
                }
            }
        }
        Ok(way.here())
    }

    /// Goes to a directory that is there, along symbolic links.
    fn find_directory(&mut self, names: &[&[u8]]) -> Result<Option<NodeId>, Misfit> {
        let mut way = Way::new(names);
        while let Some(name) = way.next() {
            let Some(found) = self.child(way.here(), &name) else { return Ok(None) };
            self.step(&mut way, found)?;
        }
        Ok(Some(way.here()))
    }

    fn step(&mut self, way: &mut Way, found: NodeId) -> Result<(), Misfit> {
        let steps = match &self.node(found).body {
            Body::Symlink(target) => target.len(),
            Body::Directory(_) | Body::File { .. } => 1,
        };
        self.spend(steps)?;
        match &self.node(found).body {
            Body::Directory(_) => way.enter(found),
            Body::Symlink(target) => way.follow(target),
            Body::File { .. } => Err(Misfit::BelowFile),
        }
    }

    fn find_file(&mut self, target: &[u8]) -> Result<NodeId, Misfit> {
        let names = names_of(target)?;
        let (name, parents) = names.split_last().ok_or(Misfit::HardLink)?;
        let directory = self.find_directory(parents)?.ok_or(Misfit::HardLink)?;
        self.child(directory, name)
            .filter(|found| self.children(*found).is_none())
            .ok_or(Misfit::HardLink)
    }

    fn white_out(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<Applied, Misfit> {
        if name.starts_with(NOTES) && name != OPAQUE {
            return Ok(Applied::Taken);
        }
        let hidden = &name[WHITEOUT.len()..];
        if name != OPAQUE && matches!(hidden, b"" | b"." | b"..") {
            return Err(Misfit::Whiteout);
        }
        let Some(directory) = self.find_directory(parents)? else { return Ok(Applied::Taken) };
        if name == OPAQUE {
            self.purge(directory)?;
            return Ok(Applied::Taken);
        }
        let found = self.children(directory).and_then(|children| children.get(hidden)).copied();
        if let Some(child) = found
            && !self.stays(child)?
            && let Some(children) = self.children_mut(directory)
        {
            children.remove(hidden);
        }
        Ok(Applied::Taken)
    }

    /// Takes away what lower layers have in a directory; tells whether anything
    /// of this one is left in it. No deeper than [`DEPTH_MAX`].
    fn purge(&mut self, directory: NodeId) -> Result<bool, Misfit> {
        let Some(children) = self.children_mut(directory) else { return Ok(false) };
        let all = std::mem::take(children);
        self.spend(all.len())?;
        let mut kept = BTreeMap::new();
        for (name, child) in all {
            if self.stays(child)? {
                kept.insert(name, child);
            }
        }
        let any = !kept.is_empty();
        if let Some(children) = self.children_mut(directory) {
            *children = kept;
        }
        Ok(any)
    }

    /// Whether a name, or anything below it, is of this layer.
    fn stays(&mut self, child: Child) -> Result<bool, Misfit> {
        let below = self.purge(child.node)?;
        Ok(below || child.layer == self.layer)
    }
}

impl Default for Merged {
    fn default() -> Self {
        Self::new()
    }
}

/// A member's name in parts, from the root. A leading slash means the same.
fn names_of(name: &[u8]) -> Result<Vec<&[u8]>, Misfit> {
    let mut names = Vec::new();
    for name in name.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(Misfit::Dots),
            _ if name.len() > NAME_BYTES_MAX || name.contains(&0) => return Err(Misfit::Name),
            _ => names.push(name),
        }
    }
    if names.len() >= DEPTH_MAX { Err(Misfit::Deep) } else { Ok(names) }
}

/// A member's owner, and of its extended attributes those that a guest may find in
/// its base: none that the overlay over it would obey.
fn attributes_of(member: &Member) -> Result<Attributes, Misfit> {
    let (uid, gid) = member.owner;
    let mut kept = BTreeMap::<_, Box<[u8]>>::new();
    for (name, value) in &member.xattrs {
        let (space, rest) = match name.strip_prefix(b"user.") {
            Some(rest) => (XattrSpace::User, rest),
            None if name == b"security.capability" => (XattrSpace::Security, &name[9..]),
            None => continue,
        };
        if rest.is_empty() || rest.len() > NAME_BYTES_MAX || rest.contains(&0) {
            return Err(Misfit::Name);
        }
        kept.insert((space, Box::<[u8]>::from(rest)), Box::from(value.as_slice()));
    }
    let xattrs = kept.into_iter().map(|((space, name), value)| Xattr { space, name, value });
    let xattrs: Box<[Xattr]> = xattrs.collect();
    let bytes: usize = xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
    if bytes > XATTRS_MAX { Err(Misfit::Xattrs) } else { Ok(Attributes { uid, gid, xattrs }) }
}

#[cfg(test)]
mod tests;
