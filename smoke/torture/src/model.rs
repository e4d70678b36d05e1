//! What a workspace may hold.
//!
//! An operation that was cut short has happened or not: so there are several
//! worlds that a workspace may be in, until a look at it tells.

use std::collections::{BTreeMap, BTreeSet};

/// The files of a workspace and what is in them.
pub type World = BTreeMap<String, String>;

/// Every world that a disk may be.
#[derive(Debug, Clone)]
pub struct Worlds(BTreeSet<World>);

impl Worlds {
    pub fn of(world: World) -> Self {
        Self(BTreeSet::from([world]))
    }

    /// It has happened.
    pub fn change(&mut self, change: impl Fn(&mut World)) {
        let after = std::mem::take(&mut self.0).into_iter().map(|mut world| {
            change(&mut world);
            world
        });
        self.0 = after.collect();
    }

    /// It may have happened.
    pub fn may_change(&mut self, change: impl Fn(&mut World)) {
        let mut changed = self.clone();
        changed.change(change);
        self.0.append(&mut changed.0);
    }

    /// It may be another.
    pub fn may_be(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// What was seen of it; false if it cannot be.
    #[must_use]
    pub fn see(&mut self, seen: &World) -> bool {
        let possible = self.0.contains(seen);
        if possible {
            *self = Self::of(seen.clone());
        }
        possible
    }

    pub fn told(&self) -> String {
        let worlds: Vec<_> = self.0.iter().map(|world| format!("{world:?}")).collect();
        worlds.join(" or ")
    }
}

/// Whether something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    Yes,
    Perhaps,
}

/// A workspace as it may be.
#[derive(Debug, Clone)]
pub struct Workspace {
    pub name: String,
    pub there: There,
    pub now: Worlds,
    pub baseline: World,
    pub snapshots: BTreeMap<String, (There, Worlds)>,
}

impl Workspace {
    pub fn new(name: String, there: There, now: Worlds, baseline: World) -> Self {
        Self { name, there, now, baseline, snapshots: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(files: &[(&str, &str)]) -> World {
        files.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
    }

    #[test]
    fn what_was_cut_short_has_happened_once_or_not_at_all() {
        let append = |world: &mut World| world.entry("log".to_owned()).or_default().push('x');
        let mut worlds = Worlds::of(world(&[("log", "x")]));
        worlds.may_change(append);
        assert!(!worlds.clone().see(&world(&[("log", "xxx")])), "twice");
        assert!(worlds.clone().see(&world(&[("log", "x")])));
        assert!(worlds.see(&world(&[("log", "xx")])));
        assert!(!worlds.see(&world(&[("log", "x")])), "it was seen to have happened");
    }
}
