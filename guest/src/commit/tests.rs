//! Commits, whole and interrupted at every step.

mod failing;

use super::apply::{Place as Places, Round};
use super::ballast::Ballast;
use super::recovery::steps_done;
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use tempfile::TempDir;

struct Place {
    tree: TempDir,
    private: TempDir,
    commits: Arc<Commits>,
}

impl Place {
    fn new() -> Self {
        let (tree, private) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = |dir: &TempDir| OwnedFd::from(File::open(dir.path()).unwrap());
        let commits = Commits::new(open(&tree), open(&private));
        Self { tree, private, commits }
    }

    /// The same place after whoever held it died.
    fn after_a_crash(&self) -> Arc<Commits> {
        let open = |dir: &TempDir| OwnedFd::from(File::open(dir.path()).unwrap());
        let commits = Commits::new(open(&self.tree), open(&self.private));
        commits.recover().unwrap();
        commits
    }

    fn write(&self, path: &str, content: &str) {
        fs::write(self.tree.path().join(path), content).unwrap();
    }

    fn contents(&self) -> BTreeMap<String, String> {
        let mut contents = BTreeMap::new();
        list(self.tree.path(), "", &mut contents);
        contents
    }

    fn is_clean(&self) -> bool {
        let staged = self.contents().into_keys().any(|name| name.starts_with(STAGING));
        !staged && fs::read_dir(self.private.path()).unwrap().next().is_none()
    }
}

fn list(directory: &Path, prefix: &str, into: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            into.insert(format!("{name}/"), String::new());
            list(&entry.path(), &format!("{name}/"), into);
        } else if kind.is_symlink() {
            into.insert(name, format!("-> {}", fs::read_link(entry.path()).unwrap().display()));
        } else {
            into.insert(name, fs::read_to_string(entry.path()).unwrap());
        }
    }
}

fn put(commit: &mut Commit, path: &str, content: &str, mode: u32) {
    let (slot, mut file) = commit.stage_file().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
    commit.step(&Step::Put { slot, path: path.into() }).unwrap();
}

/// A commit of every kind of step, and the tree it is for.
fn everything(place: &Place) -> Commit {
    place.write("old", "old");
    place.write("gone", "x");
    fs::create_dir_all(place.tree.path().join("whole/deep")).unwrap();
    place.write("whole/deep/file", "x");
    fs::create_dir_all(place.tree.path().join("empty")).unwrap();
    fs::create_dir_all(place.tree.path().join("full/x")).unwrap();
    let mut commit = place.commits.begin().unwrap();
    put(&mut commit, "old", "new", 0o755);
    commit.step(&Step::Unlink { path: b"gone".into() }).unwrap();
    commit.step(&Step::RemoveTree { path: b"whole".into() }).unwrap();
    put(&mut commit, "whole", "a file now", 0o644);
    commit.step(&Step::Prune { path: b"empty".into() }).unwrap();
    commit.step(&Step::Prune { path: b"full".into() }).unwrap();
    commit.step(&Step::MakeDirectory { path: b"made".into(), mode: 0o2750 }).unwrap();
    let slot = commit.stage_link(b"../anywhere", None).unwrap();
    commit.step(&Step::Put { slot, path: b"made/link".into() }).unwrap();
    put(&mut commit, "made/mode", "", 0o600);
    commit.step(&Step::SetMode { path: b"made/mode".into(), mode: 0o4711 }).unwrap();
    let time = rustix::fs::Timespec { tv_sec: 86_400, tv_nsec: 5 };
    commit.step(&Step::SetModified { path: b"made".into(), time }).unwrap();
    commit
}

fn check_everything(place: &Place) {
    let expected = [
        ("full/", ""),
        ("full/x/", ""),
        ("made/", ""),
        ("made/link", "-> ../anywhere"),
        ("made/mode", ""),
        ("old", "new"),
        ("whole", "a file now"),
    ];
    let expected: BTreeMap<_, _> =
        expected.into_iter().map(|(name, content)| (name.to_owned(), content.to_owned())).collect();
    assert_eq!(place.contents(), expected);
    let meta = |path: &str| fs::metadata(place.tree.path().join(path)).unwrap();
    assert_eq!(meta("old").permissions().mode() & 0o7777, 0o755);
    assert_eq!(meta("made").permissions().mode() & 0o7777, 0o2750);
    assert_eq!(meta("made/mode").permissions().mode() & 0o7777, 0o4711);
    let modified = meta("made").modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(modified, std::time::Duration::new(86_400, 5));
    assert!(place.is_clean());
}

#[test]
fn all_of_it_happens() {
    let place = Place::new();
    everything(&place).run().unwrap();
    check_everything(&place);
}

#[test]
fn none_of_it_happens_when_it_is_dropped() {
    let place = Place::new();
    let before = {
        let commit = everything(&place);
        let name = format!("{STAGING}{}", commit.id);
        assert!(place.commits.is_staging(name.as_bytes()));
        assert!(!place.commits.is_staging(b".pyro-commit-0123456789abcdef"));
        place.contents().into_iter().filter(|(name, _)| !name.starts_with(STAGING)).collect()
    };
    assert_eq!(place.contents(), before);
    assert!(place.is_clean());
}

#[test]
fn r3_a_kill_before_the_decision_leaves_the_old_tree() {
    let place = Place::new();
    let mut commit = everything(&place);
    commit.journal.flush().unwrap();
    std::mem::forget(commit);
    place.after_a_crash();
    assert!(place.contents().contains_key("gone"));
    assert!(place.is_clean());
}

#[test]
fn r3_a_kill_after_any_step_is_completed_at_the_next_start() {
    for stop_after in 0..=11 {
        let place = Place::new();
        let mut commit = everything(&place);
        commit.decide().unwrap();
        // What the kill leaves: so many steps are done, the journal is there.
        let journal = place.private.path().join(super::journal(&commit.id));
        let mut journal = BufReader::new(File::open(journal).unwrap());
        assert_eq!(steps_done(&mut journal).unwrap(), 0);
        let steps: Vec<_> =
            (0..11).map(|n| Step::read(&mut journal, n).unwrap().unwrap()).collect();
        let mut some = Vec::new();
        for step in &steps[..stop_after] {
            step.write(&mut some).unwrap();
        }
        some.extend(step::end(stop_after as u64));
        let name = ballast(&commit.id);
        let ballast = Ballast::named(place.commits.private.as_fd(), &name);
        let (tree, staging) = (place.commits.tree(), commit.staging.as_fd());
        let mut places = Places { tree, staging, ballast, round: Round::First };
        assert!(apply::all(&mut some.as_slice(), 0, &mut places).unwrap().is_none());
        std::mem::forget(commit);
        place.after_a_crash();
        check_everything(&place);
        place.after_a_crash();
        check_everything(&place);
    }
}

#[test]
fn what_gets_in_the_way_keeps_nothing_else_from_happening() {
    let place = Place::new();
    let mut commit = place.commits.begin().unwrap();
    put(&mut commit, "a", "a", 0o644);
    put(&mut commit, "b", "b", 0o644);
    fs::create_dir(place.tree.path().join("a")).unwrap();
    let error = commit.run().unwrap_err();
    assert!(matches!(&error, CommitError::Interfered(failed) if failed.path == b"a"), "{error}");
    assert_eq!(AgentError::from(error).kind, AgentErrorKind::Conflict);
    assert_eq!(place.contents()["b"], "b");
    assert!(place.is_clean());
}

#[test]
fn s8_no_step_goes_through_a_link() {
    let place = Place::new();
    let outside = tempfile::tempdir().unwrap();
    let mode = || fs::metadata(outside.path()).unwrap().permissions().mode();
    let before = mode();
    fs::write(outside.path().join("file"), "mine").unwrap();
    symlink(outside.path(), place.tree.path().join("out")).unwrap();
    let path = || b"out/file".to_vec();
    let not_there = [
        Step::Unlink { path: path() },
        Step::RemoveTree { path: path() },
        Step::Prune { path: path() },
    ];
    let refused = [
        Step::MakeDirectory { path: b"out/made".into(), mode: 0o755 },
        Step::SetMode { path: path(), mode: 0 },
        Step::SetMode { path: b"out".into(), mode: 0 },
    ];
    for step in not_there.iter().chain(&refused) {
        let mut commit = place.commits.begin().unwrap();
        commit.step(step).unwrap();
        match commit.run() {
            Ok(()) => assert!(not_there.contains(step), "{step:?}"),
            Err(CommitError::Interfered(_)) => assert!(refused.contains(step), "{step:?}"),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(mode(), before);
    let mut commit = place.commits.begin().unwrap();
    for path in ["../x", "/x", "a/../../x", ""] {
        assert!(commit.step(&Step::Unlink { path: path.into() }).is_err());
    }
}

#[test]
fn a_tree_is_removed_however_deep_it_is() {
    let place = Place::new();
    let mut at = OwnedFd::from(File::open(place.tree.path()).unwrap());
    for _ in 0..3000 {
        mkdirat(&at, "d", Mode::RWXU).unwrap();
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(openat(&at, "f", flags, Mode::RUSR).unwrap());
        at = beneath::directory(&at, b"d").unwrap();
    }
    remove::directory(place.commits.tree(), b"d").unwrap();
    assert_eq!(place.contents().into_keys().collect::<Vec<_>>(), ["f"]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_journal_of_any_bytes_is_read_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes.as_slice();
        let mut read = 0;
        while let Ok(Some(step)) = Step::read(&mut bytes, read) {
            prop_assert!(beneath::check(step.path()).is_ok());
            read += 1;
        }
    }

    #[test]
    fn a_step_is_read_as_it_was_written(
        tag in 0..7_u8, number: u32, slot: u64, seconds: i64, nanoseconds in 0..1_000_000_000_u32,
        path in "[a-z]{1,9}(/[a-z]{1,9}){0,3}",
    ) {
        let path = path.into_bytes();
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
        let step = match tag {
            0 => Step::Put { slot: Slot(slot), path },
            1 => Step::Unlink { path },
            2 => Step::RemoveTree { path },
            3 => Step::Prune { path },
            4 => Step::MakeDirectory { path, mode: number },
            5 => Step::SetMode { path, mode: number },
            _ => Step::SetModified { path, time },
        };
        let mut bytes = Vec::new();
        step.write(&mut bytes)?;
        bytes.extend(step::end(1));
        let mut bytes = bytes.as_slice();
        prop_assert_eq!(Step::read(&mut bytes, 0)?, Some(step));
        prop_assert_eq!(Step::read(&mut bytes, 1)?, None);
    }
}
