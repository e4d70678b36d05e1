//! The walk against a comparison of everything, on real overlays.

mod git;
pub(crate) mod overlay;
mod random;
mod rules;

use super::layers::{Kind, Node, Place};
use super::walk::{Change, Walk, Walked};
use crate::work::Cancel;
use overlay::{Overlay, Seen, SeenKind, see};
use std::collections::BTreeMap;

/// What changed, by path: what kind of thing there was and is.
type Changed = BTreeMap<Vec<u8>, (Option<Kind>, Option<Kind>)>;

fn walk(overlay: &Overlay, table: bool) -> (Changed, Walked) {
    let layers = overlay.layers(table);
    let mut changed = Changed::new();
    let sink = |change: Change| {
        let kind = |node: Option<Node>| node.map(|node| node.kind);
        let told = changed.insert(change.path.clone(), (kind(change.old), kind(change.new)));
        assert!(told.is_none(), "told twice: {:?}", String::from_utf8_lossy(&change.path));
        Ok(())
    };
    let cancel = Cancel::default();
    let walk = Walk { layers: &layers, wanted: &|_| true, cancel: &cancel, sink };
    let walked = walk.run().unwrap();
    (changed, walked)
}

/// The same by looking at everything.
fn compare_all(overlay: &Overlay) -> Changed {
    let (seed, live) = (see(&overlay.seed()), see(&overlay.live()));
    let mut changed = Changed::new();
    let empty = |tree: &overlay::Tree, path: &[u8]| {
        let prefix = [path, b"/"].concat();
        !tree.range(prefix.clone()..).next().is_some_and(|(next, _)| next.starts_with(&prefix))
    };
    let paths: std::collections::BTreeSet<_> = seed.keys().chain(live.keys()).collect();
    for path in paths {
        let (old, new) = (seed.get(path), live.get(path));
        let is_implied = match (old, new) {
            (Some(node), None) => node.kind == SeenKind::Directory && !empty(&seed, path),
            (None, Some(node)) => node.kind == SeenKind::Directory && !empty(&live, path),
            (Some(_), Some(_)) | (None, None) => false,
        };
        if old != new && !is_implied {
            changed.insert(path.clone(), (old.map(kind), new.map(kind)));
        }
    }
    changed
}

fn kind(seen: &Seen) -> Kind {
    match &seen.kind {
        SeenKind::File(_) => Kind::File,
        SeenKind::Directory => Kind::Directory,
        SeenKind::Link(_) => Kind::Symlink,
        SeenKind::Special(kind, device) => Kind::Special(*kind, *device),
    }
}

/// The walk tells what a comparison of everything does.
fn check(overlay: &Overlay) -> Walked {
    let expected = compare_all(overlay);
    let (changed, walked) = walk(overlay, true);
    assert_eq!(shown(&changed), shown(&expected));
    let (changed, _) = walk(overlay, false);
    assert_eq!(shown(&changed), shown(&expected), "without a table");
    walked
}

fn shown(changed: &Changed) -> Vec<String> {
    changed
        .iter()
        .map(|(path, kinds)| format!("{} {kinds:?}", String::from_utf8_lossy(path)))
        .collect()
}
