//! The patch, as git applies it.

use super::overlay::{Overlay, SeenKind, Tree, os, see};
use super::random::for_random_overlays;
use crate::diff::report;
use crate::diff::scope::Scope;
use crate::patch::tests::{BACKWARD, FORWARD, apply_to};
use crate::work::Cancel;
use crate::{Guest, LayerPaths, Phase};
use pyro_protocol::codec;
use pyro_protocol::diff::{DiffDetail, DiffEntry, DiffRecord, DiffScope, DiffSummary};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// All that a diff tells.
pub struct Told {
    pub entries: Vec<DiffEntry>,
    pub patch: Vec<u8>,
    pub summary: DiffSummary,
}

pub fn guest(overlay: &Overlay) -> std::sync::Arc<Guest> {
    let at = |name: &str| overlay.directory.path().join(name);
    drop(overlay.layers(true));
    let layers = LayerPaths {
        lower: at("seed"),
        upper: at("upper"),
        work: at("work"),
        hard_links: Some(at("hard-links")),
    };
    Guest::in_process_on_layers(overlay.live(), layers, Phase::Activated)
}

pub fn tell(overlay: &Overlay, detail: DiffDetail) -> Told {
    let guest = guest(overlay);
    let scope = Scope::new(&guest, DiffScope::Workspace, &[]).unwrap();
    let mut told = Told { entries: Vec::new(), patch: Vec::new(), summary: DiffSummary::default() };
    let mut send = |payload: Vec<u8>| {
        assert!(payload.len() <= pyro_protocol::FrameKind::Data.limit());
        for record in codec::decode::<Vec<DiffRecord>>(&payload).unwrap() {
            match record {
                DiffRecord::Entry(entry) => told.entries.push(entry),
                DiffRecord::Patch(piece) => told.patch.extend(piece.0),
            }
        }
        Ok(())
    };
    let summary = report::run(&scope, detail, &Cancel::default(), &mut send).unwrap();
    Told { summary, ..told }
}

/// What git knows of a tree.
#[derive(PartialEq, Eq)]
pub enum Known {
    File(Vec<u8>, bool),
    Link(Vec<u8>),
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Known::File(content, executable) => {
                let shown = content.escape_ascii().to_string();
                write!(f, "file {executable} {}: {shown:.60}", content.len())
            }
            Known::Link(target) => write!(f, "-> {}", target.escape_ascii()),
        }
    }
}

pub fn known(tree: &Tree) -> BTreeMap<Vec<u8>, Known> {
    let known = |(path, seen): (&Vec<u8>, &super::Seen)| {
        let known = match &seen.kind {
            SeenKind::File(content) => Known::File(content.clone(), seen.mode & 0o100 != 0),
            SeenKind::Link(target) => Known::Link(target.clone()),
            SeenKind::Directory | SeenKind::Special(..) => return None,
        };
        Some((path.clone(), known))
    };
    tree.iter().filter_map(known).collect()
}

/// Makes a tree of what git knows of it.
pub fn make(root: &Path, tree: &BTreeMap<Vec<u8>, Known>) {
    for (path, known) in tree {
        let path = root.join(os(path));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match known {
            Known::File(content, executable) => {
                fs::write(&path, content).unwrap();
                let mode = if *executable { 0o755 } else { 0o644 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
            Known::Link(target) => std::os::unix::fs::symlink(os(target), &path).unwrap(),
        }
    }
}

pub fn git_apply(root: &Path, patch: &[u8], arguments: &[&str]) {
    if patch.is_empty() {
        return;
    }
    let mut git = Command::new("git")
        .args(["apply", "--whitespace=nowarn"])
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("git is installed");
    std::io::Write::write_all(&mut git.stdin.take().unwrap(), patch).unwrap();
    let outcome = git.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&outcome.stderr);
    let patch = String::from_utf8_lossy(patch);
    assert!(outcome.status.success(), "{complaint}\nof this patch:\n{patch}");
}

#[test]
fn r7_seed_and_patch_make_the_live_tree_by_git() {
    for_random_overlays(|overlay| {
        let told = tell(overlay, DiffDetail::Patch);
        let (seed, live) = (known(&see(&overlay.seed())), known(&see(&overlay.live())));
        let place = tempfile::tempdir().unwrap();
        make(place.path(), &seed);
        git_apply(place.path(), &told.patch, &[]);
        let patch = String::from_utf8_lossy(&told.patch);
        assert_eq!(known(&see(place.path())), live, "{patch}");
        // Of a removal that it takes back, git 2.47 makes a plain file, whatever
        // mode the patch says; in its own patches too.
        let odd = ["deleted file mode 120000", "deleted file mode 100755"];
        if !odd.iter().any(|odd| patch.contains(odd)) {
            git_apply(place.path(), &told.patch, &["--reverse"]);
            assert_eq!(known(&see(place.path())), seed, "{patch}");
        }
        assert_eq!(told.summary.total, told.entries.len() as u64);
    });
}

#[test]
fn r7_seed_and_patch_make_the_live_tree_by_our_own_patch() {
    for_random_overlays(|overlay| {
        let told = tell(overlay, DiffDetail::Patch);
        let (seed, live) = (known(&see(&overlay.seed())), known(&see(&overlay.live())));
        let place = tempfile::tempdir().unwrap();
        make(place.path(), &seed);
        if told.patch.is_empty() {
            return assert_eq!(seed, live);
        }
        let patch = String::from_utf8_lossy(&told.patch);
        apply_to(place.path(), &told.patch, FORWARD).expect(&patch);
        assert_eq!(known(&see(place.path())), live, "{patch}");
        apply_to(place.path(), &told.patch, BACKWARD).expect(&patch);
        assert_eq!(known(&see(place.path())), seed, "{patch}");
    });
}
