//! Which of the files that are gone are those that are new, elsewhere.

use super::content::{self, Content};
use super::layers::{Kind, Layers, Node, Place};
use super::similar::Fingerprint;
use super::walk::Change;
use crate::git::BlobId;
use crate::work::Cancel;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;

/// A change, or two that are one.
#[derive(Debug)]
pub(super) struct Paired {
    pub(super) path: Vec<u8>,
    pub(super) old_path: Option<Vec<u8>>,
    pub(super) old: Option<Node>,
    pub(super) new: Option<Node>,
    pub(super) similarity: Option<u32>,
}

/// Up to so many files that are gone, and as many new, are read to find out
/// whether any are the same; git's limit too.
const SAME_MAX: usize = 1000;

/// The most bytes that are read for it.
const SAME_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Up to so many on each side are compared with each other for likeness.
const LIKE_MAX: usize = 100;

/// Larger files are not looked at for likeness.
const LIKE_BYTES_MAX: u64 = 256 * 1024;

/// What shares less than this is another file, in percent.
const LIKE_LEAST: u32 = 50;

impl From<Change> for Paired {
    fn from(change: Change) -> Self {
        let Change { path, old, new } = change;
        Self { path, old_path: None, old, new, similarity: None }
    }
}

/// Finds renames, and puts everything in the order of paths.
pub(super) fn pair(
    layers: &Layers,
    changes: Vec<Change>,
    spool: &dyn Fn() -> io::Result<File>,
    cancel: &Cancel,
) -> io::Result<Vec<Paired>> {
    let mut changes: Vec<_> =
        changes.into_iter().map(|change| Some(Paired::from(change))).collect();
    let candidates = |gone: bool| -> BTreeSet<usize> {
        let file = |node: &Option<Node>| {
            node.as_ref().is_some_and(|node| node.kind == Kind::File && node.size > 0)
        };
        let wanted = |change: &Option<Paired>| {
            change.as_ref().is_some_and(|Paired { old, new, .. }| match gone {
                true => file(old) && new.is_none(),
                false => file(new) && old.is_none(),
            })
        };
        (0..changes.len()).filter(|index| wanted(&changes[*index])).collect()
    };
    let (gone, new) = (candidates(true), candidates(false));
    let mut search = Search { layers, changes: &mut changes, gone, new, spool, cancel };
    search.by_origin();
    search.by_content()?;
    search.by_likeness()?;
    let mut changes: Vec<_> = changes.into_iter().flatten().collect();
    changes.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(changes)
}

struct Search<'a> {
    layers: &'a Layers,
    changes: &'a mut Vec<Option<Paired>>,
    /// What is left on either side.
    gone: BTreeSet<usize>,
    new: BTreeSet<usize>,
    spool: &'a dyn Fn() -> io::Result<File>,
    cancel: &'a Cancel,
}

impl Search<'_> {
    /// What the overlay shows from elsewhere in the lower layer has come from
    /// there: a directory was renamed, and this was not even opened.
    fn by_origin(&mut self) {
        let gone: BTreeMap<Vec<u8>, usize> = self
            .gone
            .iter()
            .filter_map(|index| Some((self.path(*index)?.to_vec(), *index)))
            .collect();
        for new in self.new.clone() {
            let origin = match self.side(new).map(|node| &node.place) {
                Some(Place::Lower(origin)) => gone.get(origin).copied(),
                Some(Place::Upper(_) | Place::Index(_)) | None => None,
            };
            if let Some(old) = origin {
                self.join(old, new, 100);
            }
        }
    }

    /// What has the same content is the same, the one of the same name first.
    fn by_content(&mut self) -> io::Result<()> {
        if self.gone.len() > SAME_MAX || self.new.len() > SAME_MAX {
            return Ok(());
        }
        let mut sizes: HashMap<u64, Vec<usize>> = HashMap::new();
        for index in self.gone.clone() {
            if let Some(size) = self.side(index).map(|node| node.size) {
                sizes.entry(size).or_default().push(index);
            }
        }
        let mut ids: HashMap<usize, Option<BlobId>> = HashMap::new();
        let mut room = SAME_BYTES_MAX;
        for new in self.new.clone() {
            let Some(size) = self.side(new).map(|node| node.size) else { continue };
            let Some(old) = sizes.get(&size).cloned() else { continue };
            let mut same = Vec::new();
            let Some(id) = self.id(new, &mut ids, &mut room)? else { continue };
            for old in old {
                if self.gone.contains(&old) && self.id(old, &mut ids, &mut room)? == Some(id) {
                    same.push(old);
                }
            }
            let name = |index: usize| self.path(index).map(|path| crate::beneath::split(path).1);
            let best = same.iter().find(|old| name(**old) == name(new)).or(same.first());
            if let Some(old) = best.copied() {
                self.join(old, new, 100);
            }
        }
        Ok(())
    }

    /// What has much in common is the same, what has most first.
    fn by_likeness(&mut self) -> io::Result<()> {
        if self.gone.len() > LIKE_MAX || self.new.len() > LIKE_MAX {
            return Ok(());
        }
        let (gone, new) = (self.fingerprints(&self.gone)?, self.fingerprints(&self.new)?);
        let mut scores = Vec::new();
        for (new, new_print) in &new {
            self.cancel.check_errno()?;
            for (old, old_print) in &gone {
                let score = old_print.likeness(new_print);
                if score >= LIKE_LEAST {
                    scores.push((score, *old, *new));
                }
            }
        }
        scores.sort_by_key(|(score, old, new)| (std::cmp::Reverse(*score), *old, *new));
        for (score, old, new) in scores {
            if self.gone.contains(&old) && self.new.contains(&new) {
                self.join(old, new, score);
            }
        }
        Ok(())
    }

    fn fingerprints(&self, of: &BTreeSet<usize>) -> io::Result<Vec<(usize, Fingerprint)>> {
        let mut prints = Vec::new();
        for index in of {
            self.cancel.check_errno()?;
            let Some(node) = self.side(*index).filter(|node| node.size <= LIKE_BYTES_MAX) else {
                continue;
            };
            if let Some(Content::Held(bytes, _)) = content::load(self.layers, node, self.spool)? {
                prints.extend(Fingerprint::of(&bytes).map(|print| (*index, print)));
            }
        }
        Ok(prints)
    }

    fn id(
        &self,
        index: usize,
        ids: &mut HashMap<usize, Option<BlobId>>,
        room: &mut u64,
    ) -> io::Result<Option<BlobId>> {
        if let Some(id) = ids.get(&index) {
            return Ok(*id);
        }
        self.cancel.check_errno()?;
        let id = match self.side(index) {
            Some(node) if node.size <= *room => {
                *room -= node.size;
                content::load(self.layers, node, self.spool)?.and_then(|content| content.id())
            }
            Some(_) | None => None,
        };
        ids.insert(index, id);
        Ok(id)
    }

    /// Makes one change of two.
    fn join(&mut self, old: usize, new: usize, similarity: u32) {
        self.gone.remove(&old);
        self.new.remove(&new);
        let gone = self.changes.get_mut(old).and_then(Option::take);
        if let (Some(gone), Some(Some(new))) = (gone, self.changes.get_mut(new)) {
            new.old_path = Some(gone.path);
            new.old = gone.old;
            new.similarity = Some(similarity);
        }
    }

    fn path(&self, index: usize) -> Option<&[u8]> {
        Some(&self.changes.get(index)?.as_ref()?.path)
    }

    /// The one side that a candidate has.
    fn side(&self, index: usize) -> Option<&Node> {
        let change = self.changes.get(index)?.as_ref()?;
        change.new.as_ref().or(change.old.as_ref())
    }
}
