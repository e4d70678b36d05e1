//! Each rule of the walk by itself, and what a diff tells.

use super::git::{guest, tell};
use super::overlay::{Overlay, with_mounts};
use super::{Place, check, shown, walk};
use crate::diff::{compare, content, report};
use crate::work::{Caller, Cancel};
use pyro_protocol::diff::{DiffContent, DiffDetail, DiffStatus};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Paths told after `change`, of a seed that `seed` makes.
fn told(
    seed: impl Fn(&Path) + Send + Sync,
    change: impl Fn(&Path) + Send + Sync,
    expected: &[&str],
) {
    with_mounts(|| {
        let overlay = Overlay::new();
        seed(&overlay.seed());
        overlay.mount();
        change(&overlay.live());
        check(&overlay);
        let (changed, _) = walk(&overlay, true);
        let paths: Vec<_> =
            changed.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        assert_eq!(paths, expected);
    });
}

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn two_files(seed: &Path) {
    write(seed, "d/one", "1\n");
    write(seed, "d/sub/two", "2\n");
}

#[test]
fn r7_equal_content_is_no_change() {
    let rewrite = |live: &Path| {
        write(live, "d/one", "1\n");
        fs::set_permissions(live.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
    };
    told(two_files, rewrite, &[]);
}

#[test]
fn r7_what_came_and_went_is_no_change() {
    let come_and_go = |live: &Path| {
        write(live, "new/x", "");
        fs::remove_dir_all(live.join("new")).unwrap();
        fs::rename(live.join("d/one"), live.join("d/three")).unwrap();
        fs::rename(live.join("d/three"), live.join("d/one")).unwrap();
    };
    told(two_files, come_and_go, &[]);
}

#[test]
fn r7_a_directory_made_anew_hides_the_old_one() {
    let anew = |live: &Path| {
        fs::remove_dir_all(live.join("d")).unwrap();
        write(live, "d/one", "1\n");
    };
    told(two_files, anew, &["d/sub/two"]);
}

#[test]
fn r7_renamed_directories() {
    let sideways = |live: &Path| fs::rename(live.join("d"), live.join("e")).unwrap();
    told(two_files, sideways, &["d/one", "d/sub/two", "e/one", "e/sub/two"]);
    let upwards = |live: &Path| {
        fs::rename(live.join("d/sub"), live.join("up")).unwrap();
        write(live, "up/three", "3\n");
        fs::create_dir(live.join("d/sub")).unwrap();
    };
    told(two_files, upwards, &["d/sub/two", "up/three", "up/two"]);
    let around = |live: &Path| {
        fs::rename(live.join("d"), live.join("e")).unwrap();
        fs::rename(live.join("e"), live.join("d")).unwrap();
    };
    told(two_files, around, &[]);
}

#[test]
fn r6_all_names_of_a_file_change_with_it() {
    let seed = |seed: &Path| {
        write(seed, "a/one", "1\n");
        fs::create_dir_all(seed.join("b/deep")).unwrap();
        fs::hard_link(seed.join("a/one"), seed.join("b/deep/two")).unwrap();
        fs::hard_link(seed.join("a/one"), seed.join("b/three")).unwrap();
    };
    told(
        seed,
        |live| fs::write(live.join("a/one"), "2\n").unwrap(),
        &["a/one", "b/deep/two", "b/three"],
    );
    let elsewhere = |live: &Path| {
        fs::write(live.join("a/one"), "2\n").unwrap();
        fs::rename(live.join("b"), live.join("c")).unwrap();
    };
    told(seed, elsewhere, &["a/one", "b/deep/two", "b/three", "c/deep/two", "c/three"]);
}

#[test]
fn r6_a_tree_of_any_depth_is_walked() {
    let deep = |live: &Path| {
        let mut at =
            rustix::fs::open(live, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())
                .unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).unwrap();
            at = crate::beneath::directory(&at, b"d").unwrap();
        }
    };
    with_mounts(|| {
        let overlay = Overlay::new();
        overlay.mount();
        deep(&overlay.live());
        let told = tell(&overlay, DiffDetail::Patch);
        assert_eq!(told.summary.too_deep, 1, "what Linux does not open is counted");
    });
}

#[test]
fn r7_what_a_diff_tells() {
    with_mounts(|| {
        let overlay = Overlay::new();
        let lines: String = (0..100).map(|number| format!("line {number}\n")).collect();
        write(&overlay.seed(), "moved", &lines);
        write(&overlay.seed(), "mode", "x\n");
        write(&overlay.seed(), "dir/inside", "x\n");
        write(&overlay.seed(), "becomes", "x\n");
        overlay.mount();
        let live = overlay.live();
        fs::rename(live.join("moved"), live.join("there")).unwrap();
        write(&live, "there", &lines.replace("line 7\n", "line seven\n"));
        fs::set_permissions(live.join("mode"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(live.join("dir"), live.join("folder")).unwrap();
        fs::remove_file(live.join("becomes")).unwrap();
        symlink("x", live.join("becomes")).unwrap();
        fs::create_dir(live.join("empty")).unwrap();
        // Sparse: it takes no room.
        File::create(live.join("large")).unwrap().set_len(65 << 20).unwrap();
        let told = tell(&overlay, DiffDetail::Patch);
        let entries: Vec<_> = told
            .entries
            .iter()
            .map(|entry| (entry.path.to_string(), entry.status, entry.content))
            .collect();
        let text = |insertions, deletions| DiffContent::Text { insertions, deletions };
        let expected = [
            ("becomes", DiffStatus::TypeChanged, text(1, 1)),
            ("empty", DiffStatus::Added, DiffContent::Unchanged),
            ("folder/inside", DiffStatus::Renamed, DiffContent::Unchanged),
            ("large", DiffStatus::Added, DiffContent::Omitted),
            ("mode", DiffStatus::Modified, DiffContent::Unchanged),
            ("there", DiffStatus::Renamed, text(1, 1)),
        ];
        assert_eq!(
            entries,
            expected.map(|(path, status, content)| (path.to_owned(), status, content))
        );
        let patch = String::from_utf8(told.patch).unwrap();
        for part in [
            "old mode 100644\nnew mode 100755\n",
            "similarity index 100%\nrename from dir/inside\nrename to folder/inside\n",
            "rename from moved\nrename to there\n",
            "-line 7\n+line seven\n",
        ] {
            assert!(patch.contains(part), "{patch}");
        }
        assert!(!patch.contains("large") && !patch.contains("empty"), "{patch}");
        let (total, omitted) = (told.summary.total, told.summary.omitted);
        assert_eq!((total, omitted), (6, 1));
    });
}

#[test]
fn p7_a_walk_costs_what_has_changed_whatever_the_size_of_the_tree() {
    with_mounts(|| {
        let visited = |files: usize| {
            let overlay = Overlay::new();
            for number in 0..files {
                write(&overlay.seed(), &format!("d{}/f{number}", number % 10), "x\n");
            }
            overlay.mount();
            write(&overlay.live(), "d3/f3", "y\n");
            let (changed, walked) = walk(&overlay, true);
            assert_eq!(shown(&changed).len(), 1);
            walked.visited
        };
        let few = visited(20);
        assert_eq!(few, visited(2000));
        assert!(few <= 2, "{few} nodes were looked at");
    });
}

#[test]
fn p4_a_comparison_ends_in_the_middle_of_a_file_when_nobody_waits() {
    with_mounts(|| {
        let overlay = Overlay::new();
        // Of one size and holes alone: they are the same to the last byte.
        for layer in ["seed", "upper"] {
            let path = overlay.directory.path().join(layer).join("huge");
            File::create(path).unwrap().set_len(1 << 36).unwrap();
        }
        overlay.mount();
        let layers = overlay.layers(false);
        let node = |place| layers.node(place).unwrap().node().unwrap();
        let old = node(Place::Lower(b"huge".to_vec()));
        let new = node(Place::Upper(b"huge".to_vec()));
        let caller = Caller::default();
        let cancel = caller.cancel();
        drop(caller);
        let same = compare::same(&layers, &old, &new, &cancel);
        assert_eq!(same, Err(rustix::io::Errno::CANCELED));
    });
}

#[test]
fn r7_a_full_disk_leaves_out_what_it_has_no_room_for() {
    with_mounts(|| {
        let overlay = Overlay::new();
        overlay.mount();
        let large = vec![b'x'; usize::try_from(content::TEXT_MAX).unwrap() + 1];
        fs::write(overlay.live().join("large"), large).unwrap();
        let layers = overlay.layers(false);
        let node = layers.node(Place::Upper(b"large".to_vec())).unwrap().node().unwrap();
        let full = || Err(std::io::ErrorKind::StorageFull.into());
        let loaded = content::load(&layers, &node, &full).unwrap();
        assert!(matches!(loaded, Some(content::Content::Unread)));
    });
}

#[test]
fn r7_a_file_without_lines_has_no_sides_in_a_patch() {
    with_mounts(|| {
        let overlay = Overlay::new();
        write(&overlay.seed(), "gone", "");
        overlay.mount();
        fs::remove_file(overlay.live().join("gone")).unwrap();
        write(&overlay.live(), "new", "");
        let patch = String::from_utf8(tell(&overlay, DiffDetail::Patch).patch).unwrap();
        let head = "diff --git a/gone b/gone\ndeleted file mode 100644\nindex e69de29..0000000\n\
                    diff --git a/new b/new\nnew file mode 100644\nindex 0000000..e69de29\n";
        assert_eq!(patch, head);
    });
}

#[test]
fn what_a_commit_stages_is_not_told() {
    with_mounts(|| {
        let overlay = Overlay::new();
        overlay.mount();
        let guest = guest(&overlay);
        let mut commit = guest.commits().unwrap().begin().unwrap();
        commit.stage_file().unwrap();
        let scope =
            super::super::scope::Scope::new(&guest, pyro_protocol::diff::DiffScope::Workspace, &[]);
        let mut frames = 0;
        let mut send = |_| {
            frames += 1;
            Ok(())
        };
        let cancel = Cancel::default();
        report::run(&scope.unwrap(), DiffDetail::Patch, &cancel, &mut send).unwrap();
        assert_eq!(frames, 0);
    });
}
