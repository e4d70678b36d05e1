//! What programs and the system do to a commit.

use super::*;
use crate::diff::tests::overlay::{mount_layers, with_mounts};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Something of a size that only root can limit.
fn tmpfs(at: &Path, options: &str) {
    let options = std::ffi::CString::new(options).unwrap();
    mount("tmpfs", at, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).unwrap();
}

fn remount(at: &Path, flags: MountFlags) {
    mount_remount(at, flags, "").unwrap();
}

/// A commit that is decided and can be carried out only when `m` can be written.
fn stuck(place: &Place) -> Commit {
    let m = place.tree.path().join("m");
    fs::create_dir(&m).unwrap();
    tmpfs(&m, "size=64k");
    place.write("m/file", "x");
    place.write("gone", "old");
    let mut commit = place.commits.begin().unwrap();
    commit.step(&Step::Unlink { path: b"gone".into() }).unwrap();
    commit.step(&Step::SetMode { path: b"m/file".into(), mode: 0o700 }).unwrap();
    put(&mut commit, "new", "new", 0o644);
    commit.decide().unwrap();
    remount(&m, MountFlags::RDONLY);
    commit
}

fn check_completed(place: &Place) {
    assert_eq!(place.contents()["new"], "new");
    assert_eq!(fs::metadata(place.tree.path().join("m/file")).unwrap().mode() & 0o7777, 0o700);
    assert!(place.is_clean());
}

#[test]
fn r3_what_the_system_fails_midway_is_completed_before_the_next_change() {
    with_mounts(|| {
        let place = Place::new();
        let commit = stuck(&place);
        let name = format!("{STAGING}{}", commit.id);
        let error = commit.finish().unwrap_err();
        assert!(matches!(error, CommitError::Midway(_)), "{error}");
        let text = AgentError::from(error).message;
        assert!(text.contains("m/file: Read-only file system"), "{text}");
        assert!(place.tree.path().join(&name).exists());
        assert!(place.commits.is_staging(name.as_bytes()));
        assert!(place.commits.turn().is_err());
        // What a program has made since is not undone.
        place.write("gone", "again");
        remount(&place.tree.path().join("m"), MountFlags::empty());
        drop(place.commits.turn().unwrap());
        assert_eq!(place.contents()["gone"], "again");
        check_completed(&place);
        drop(place.commits.turn().unwrap());
    });
}

#[test]
fn r3_what_cannot_be_completed_at_a_start_stays_hidden_until_it_can() {
    with_mounts(|| {
        let place = Place::new();
        let commit = stuck(&place);
        let name = format!("{STAGING}{}", commit.id);
        std::mem::forget(commit);
        let commits = place.after_a_crash();
        assert!(commits.is_staging(name.as_bytes()));
        assert!(commits.turn().is_err());
        remount(&place.tree.path().join("m"), MountFlags::empty());
        drop(commits.turn().unwrap());
        assert!(!commits.is_staging(name.as_bytes()));
        check_completed(&place);
    });
}

#[test]
fn r3_a_directory_made_right_before_a_kill_gets_its_mode() {
    let place = Place::new();
    let mut commit = everything(&place);
    commit.decide().unwrap();
    mkdirat(place.commits.tree(), "made", Mode::RWXU).unwrap();
    std::mem::forget(commit);
    place.after_a_crash();
    check_everything(&place);
}

#[test]
fn what_was_staged_and_is_removed_is_not_taken_for_done() {
    let staging = |commit: &Commit| format!("{STAGING}{}", commit.id);
    // Before it is decided, some of it or all.
    for what in ["0", ""] {
        let place = Place::new();
        let commit = everything(&place);
        let path = place.tree.path().join(staging(&commit)).join(what);
        if what.is_empty() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        let error = commit.run().unwrap_err();
        assert!(matches!(error, CommitError::Before(_)), "{error}");
        assert_eq!(AgentError::from(error).kind, AgentErrorKind::Conflict);
        assert_eq!(place.contents()["gone"], "x");
        assert!(place.is_clean());
    }
    // In the instant after.
    let place = Place::new();
    let mut commit = everything(&place);
    commit.decide().unwrap();
    fs::remove_dir_all(place.tree.path().join(staging(&commit))).unwrap();
    let error = commit.finish().unwrap_err();
    assert!(matches!(error, CommitError::Before(_)), "{error}");
    assert_eq!(place.contents()["gone"], "x");
    assert!(place.is_clean());
    let place = Place::new();
    let mut commit = everything(&place);
    commit.decide().unwrap();
    fs::remove_file(place.tree.path().join(staging(&commit)).join("0")).unwrap();
    let error = commit.finish().unwrap_err();
    assert!(matches!(&error, CommitError::Interfered(failed) if failed.path == b"old"), "{error}");
    assert!(!place.contents().contains_key("gone"));
    assert!(place.is_clean());
}

#[test]
fn a_rehearsal_leaves_the_tree_alone() {
    let place = Place::new();
    let before = fs::metadata(place.tree.path()).unwrap().modified().unwrap();
    let mut commit = place.commits.rehearse().unwrap();
    let (slot, mut file) = commit.stage_file().unwrap();
    file.write_all(b"x").unwrap();
    assert_eq!(io::read_to_string(commit.staged_file(slot).unwrap()).unwrap(), "x");
    assert!(place.contents().is_empty());
    std::mem::forget(commit);
    place.after_a_crash();
    assert!(place.is_clean());
    assert_eq!(fs::metadata(place.tree.path()).unwrap().modified().unwrap(), before);
}

/// A workspace as in a guest, with a disk of its own.
struct Workspace {
    directory: TempDir,
    commits: Arc<Commits>,
}

impl Workspace {
    fn new(seed: impl FnOnce(&Path), disk: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["seed", "disk", "live"] {
            fs::create_dir(at(name)).unwrap();
        }
        seed(&at("seed"));
        tmpfs(&at("disk"), disk);
        for name in ["disk/upper", "disk/work", "disk/private"] {
            fs::create_dir(at(name)).unwrap();
        }
        mount_layers(&at("seed"), &at("disk/upper"), &at("disk/work"), &at("live"));
        let open = |name: &str| OwnedFd::from(File::open(at(name)).unwrap());
        let commits = Commits::new(open("live"), open("disk/private"));
        Self { directory, commits }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn upper(&self) -> Vec<String> {
        let mut listed = BTreeMap::new();
        list_names(&self.at("disk/upper"), "", &mut listed);
        listed.into_keys().collect()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        for name in ["live", "disk"] {
            // Left to the namespace's end.
            let _ = unmount(self.at(name), UnmountFlags::DETACH);
        }
    }
}

fn list_names(directory: &Path, prefix: &str, into: &mut BTreeMap<String, ()>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            list_names(&entry.path(), &format!("{name}/"), into);
        }
        into.insert(name, ());
    }
}

#[test]
fn r3_what_the_disk_has_no_room_to_copy_up_is_refused_before_anything_is_done() {
    with_mounts(|| {
        let seed = |seed: &Path| {
            fs::write(seed.join("large"), vec![1; 4 << 20]).unwrap();
            fs::hard_link(seed.join("large"), seed.join("linked")).unwrap();
            fs::write(seed.join("small"), "x").unwrap();
        };
        let workspace = Workspace::new(seed, "size=2m");
        let large = [
            Step::SetMode { path: b"large".into(), mode: 0o700 },
            // Its other name keeps the content.
            Step::Unlink { path: b"linked".into() },
        ];
        for step in large {
            let mut commit = workspace.commits.begin().unwrap();
            commit.step(&Step::Unlink { path: b"small".into() }).unwrap();
            let error = commit.step(&step).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{step:?}");
        }
        assert_eq!(fs::read(workspace.at("live/small")).unwrap(), b"x");
        assert_eq!(fs::read(workspace.at("live/linked")).unwrap().len(), 4 << 20);
        assert!(workspace.upper().is_empty(), "{:?}", workspace.upper());
    });
}

#[test]
fn r3_removing_many_names_takes_no_room() {
    with_mounts(|| {
        let seed = |seed: &Path| {
            for directory in 0..2 {
                fs::create_dir(seed.join(format!("d{directory}"))).unwrap();
                for file in 0..500 {
                    fs::write(seed.join(format!("d{directory}/{file}")), "x").unwrap();
                }
            }
        };
        let workspace = Workspace::new(seed, "size=8m,nr_inodes=60");
        let mut commit = workspace.commits.begin().unwrap();
        for directory in ["d0", "d1"] {
            commit.step(&Step::RemoveTree { path: directory.into() }).unwrap();
        }
        let (slot, _) = commit.stage_file().unwrap();
        commit.step(&Step::Put { slot, path: b"d1".into() }).unwrap();
        commit.run().unwrap();
        assert!(!workspace.at("live/d0").exists());
        assert!(workspace.at("live/d1").is_file());
        // What there was no room to remove is hidden, and removed when there is.
        let staged = || {
            let names =
                fs::read_dir(workspace.at("live")).unwrap().map(|it| it.unwrap().file_name());
            names.filter(|name| name != "d1").collect::<Vec<_>>()
        };
        assert!(!staged().is_empty());
        assert!(staged().iter().all(|name| workspace.commits.is_staging(name.as_encoded_bytes())));
        mount_remount(workspace.at("disk"), MountFlags::empty(), "nr_inodes=10000").unwrap();
        workspace.commits.recover().unwrap();
        assert!(staged().is_empty());
        assert_eq!(fs::read_dir(workspace.at("disk/private")).unwrap().count(), 0);
    });
}
