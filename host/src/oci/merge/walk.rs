//! Through a merged tree, name by name.

use super::{Body, Content, Merged, Node, NodeId};
use crate::seed::entry::{BadPath, RelPath};
use std::collections::HashMap;

/// A name on the way, and what it names.
#[derive(Debug)]
pub struct Visit<'a> {
    /// Where it is.
    pub path: RelPath,
    /// What it names.
    pub node: &'a Node,
    /// The name by which the same was visited before.
    pub first: Option<RelPath>,
}

impl Merged {
    /// Visits everything below the root, a directory before what is in it.
    ///
    /// # Errors
    /// When a path is longer than Linux takes, and what the visitor says.
    pub fn visit<E>(&self, mut visitor: impl FnMut(Visit<'_>) -> Result<(), E>) -> Result<(), E>
    where
        E: From<BadPath>,
    {
        let mut seen: HashMap<NodeId, RelPath> = HashMap::new();
        let mut waiting = vec![(Self::ROOT, None::<RelPath>)];
        while let Some((directory, path)) = waiting.pop() {
            let mut below = Vec::new();
            for (name, child) in self.children(directory).into_iter().flatten() {
                let path = RelPath::below(path.as_ref(), name)?;
                let node = self.node(child.node);
                let first = match node.body {
                    Body::Directory(_) => {
                        below.push((child.node, Some(path.clone())));
                        None
                    }
                    Body::File { .. } | Body::Symlink(_) => {
                        let first = seen.get(&child.node).cloned();
                        if first.is_none() {
                            seen.insert(child.node, path.clone());
                        }
                        first
                    }
                };
                visitor(Visit { path, node, first })?;
            }
            waiting.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// Which members of a layer there is a use for: their numbers, and the node.
    #[must_use]
    pub fn wanted(&self, of_layer: u32) -> HashMap<u64, NodeId> {
        let mut wanted = HashMap::new();
        let mut waiting = vec![Self::ROOT];
        while let Some(directory) = waiting.pop() {
            for child in self.children(directory).into_iter().flat_map(|all| all.values()) {
                match &self.node(child.node).body {
                    Body::Directory(_) => waiting.push(child.node),
                    Body::File { content: Content::Member { layer, ordinal }, .. } => {
                        if *layer == of_layer {
                            wanted.insert(*ordinal, child.node);
                        }
                    }
                    Body::File { content: Content::Stored(_), .. } | Body::Symlink(_) => {}
                }
            }
        }
        wanted
    }

    /// How many bytes the files have that are in it, each counted once for each
    /// of its names.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        let mut bytes = 0_u64;
        let mut waiting = vec![Self::ROOT];
        while let Some(directory) = waiting.pop() {
            for child in self.children(directory).into_iter().flat_map(|all| all.values()) {
                match &self.node(child.node).body {
                    Body::Directory(_) => waiting.push(child.node),
                    Body::File { size, .. } => bytes = bytes.saturating_add(*size),
                    Body::Symlink(_) => {}
                }
            }
        }
        bytes
    }
}
