//! Along a name, as the guest would go: links lead on, and nothing leads out.

use super::{DEPTH_MAX, LINKS_MAX, Merged, Misfit, NodeId};
use crate::seed::entry::NAME_BYTES_MAX;
use std::collections::VecDeque;

/// A way through the tree.
pub(super) struct Way {
    /// What it leads through, the root left out.
    directories: Vec<NodeId>,
    left: VecDeque<Box<[u8]>>,
    links_left: usize,
}

impl Way {
    pub(super) fn new(names: &[&[u8]]) -> Self {
        let left = names.iter().map(|name| Box::from(*name)).collect();
        Self { directories: Vec::new(), left, links_left: LINKS_MAX }
    }

    pub(super) fn here(&self) -> NodeId {
        self.directories.last().copied().unwrap_or(Merged::ROOT)
    }

    /// The next name; upwards leads no further than the root.
    pub(super) fn next(&mut self) -> Option<Box<[u8]>> {
        while let Some(name) = self.left.pop_front() {
            match &*name {
                b"" | b"." => {}
                b".." => drop(self.directories.pop()),
                _ => return Some(name),
            }
        }
        None
    }

    pub(super) fn enter(&mut self, directory: NodeId) -> Result<(), Misfit> {
        // One more may be put in it.
        if self.directories.len() + 1 >= DEPTH_MAX {
            return Err(Misfit::Deep);
        }
        self.directories.push(directory);
        Ok(())
    }

    pub(super) fn follow(&mut self, target: &[u8]) -> Result<(), Misfit> {
        self.links_left = self.links_left.checked_sub(1).ok_or(Misfit::Links)?;
        if target.first() == Some(&b'/') {
            self.directories.clear();
        }
        for name in target.split(|byte| *byte == b'/').rev() {
            if name.len() > NAME_BYTES_MAX {
                return Err(Misfit::Name);
            }
            self.left.push_front(name.into());
        }
        Ok(())
    }
}
