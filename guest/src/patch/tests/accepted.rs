//! What applies.

use super::{BACKWARD, FORWARD, Place, apply_to};
use pyro_protocol::diff::{ApplyPatch, DiffStatus};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

const TEN: &str = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n";

#[test]
fn r7_a_plain_diff_with_times_and_prose_around_it() {
    let place = Place::new(&[("src/x", TEN)]);
    let patch = "Please apply:\n\nIndex: src/x\n=====\n--- src/x\t2026-01-01 10:00:00.0 +0000\n\
                 +++ src/x\t2026-01-02 10:00:00.0 +0000\n@@ -4,3 +4,3 @@ five\n 4\n-5\n+five\n 6\n\nThanks\n";
    let applied = place.apply(patch).unwrap();
    assert_eq!((applied.total, applied.modified), (1, 1));
    assert_eq!(place.read("src/x"), TEN.replace('5', "five"));
}

#[test]
fn r7_a_mailed_patch() {
    let place = Place::new(&[("x", "a\n")]);
    let patch = "From 0123 Mon Sep 17 00:00:00 2001\nFrom: A <a@b>\nSubject: [PATCH] x\n\n---\n x | 2 +-\n \
                 1 file changed\n\ndiff --git a/x b/x\nindex 7898192..6178079 100644\n--- a/x\n+++ b/x\n\
                 @@ -1 +1 @@\n-a\n+b\n-- \n2.47.3\n\n";
    place.apply(patch).unwrap();
    assert_eq!(place.read("x"), "b\n");
}

#[test]
fn r7_a_hunk_goes_to_the_nearest_place_that_fits() {
    let moved = format!("{}{TEN}", "0\n".repeat(7));
    let place = Place::new(&[("x", &moved)]);
    place.apply("--- a/x\n+++ b/x\n@@ -4,3 +4,3 @@\n 4\n-5\n+five\n 6\n").unwrap();
    assert_eq!(place.read("x"), moved.replace('5', "five"));
    let twice = Place::new(&[("x", "a\nb\n1\n2\n3\n4\n5\n6\na\nb\n")]);
    twice.apply("--- a/x\n+++ b/x\n@@ -7,2 +7,2 @@\n a\n-b\n+c\n").unwrap();
    assert_eq!(twice.read("x"), "a\nb\n1\n2\n3\n4\n5\n6\na\nc\n");
}

#[test]
fn r7_what_models_get_wrong() {
    // Counts that are not those of the hunk.
    let place = Place::new(&[("x", TEN)]);
    place.apply("--- a/x\n+++ b/x\n@@ -4,9 +4,7 @@\n 4\n-5\n+five\n 6\n").unwrap();
    assert_eq!(place.read("x"), TEN.replace('5', "five"));
    // Too small a count, and another hunk after it.
    let place = Place::new(&[("x", TEN)]);
    place
        .apply("--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@\n-1\n+one\n 2\n@@ -9,1 +9,1 @@\n 9\n-10\n+ten\n")
        .unwrap();
    assert_eq!(place.read("x"), TEN.replace("10", "ten").replacen('1', "one", 1));
    // A blank line without its blank.
    let place = Place::new(&[("x", "a\n\nb\n")]);
    place.apply("--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n a\n\n-b\n+c\n").unwrap();
    assert_eq!(place.read("x"), "a\n\nc\n");
    // No marker where the file's end has no newline.
    let place = Place::new(&[("x", "a\nb")]);
    place.apply("--- a/x\n+++ b/x\n@@ -1,2 +1,3 @@\n a\n b\n+c\n").unwrap();
    assert_eq!(place.read("x"), "a\nb\nc\n");
    // Absolute names of the workspace.
    let place = Place::new(&[("x", "a\n")]);
    place.apply("--- /workspace/x\n+++ /workspace/x\n@@ -1 +1 @@\n-a\n+b\n").unwrap();
    assert_eq!(place.read("x"), "b\n");
}

#[test]
fn r7_lines_that_look_like_heads_are_lines() {
    let place = Place::new(&[("x", "-- old\n-- y\n++ z\n")]);
    place
        .apply("--- a/x\n+++ b/x\n@@ -1,3 +1,2 @@\n--- old\n--- y\n-++ z\n+-- new\n+diff --git a/q b/q\n")
        .unwrap();
    assert_eq!(place.read("x"), "-- new\ndiff --git a/q b/q\n");
}

#[test]
fn r7_carriage_returns_and_missing_newlines_are_kept() {
    let place = Place::new(&[("x", "a\r\nb\r\nc")]);
    place
        .apply("--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n a\r\n-b\r\n+B\r\n c\n\\ No newline at end of file\n")
        .unwrap();
    assert_eq!(place.read("x"), "a\r\nB\r\nc");
    place.apply("--- a/x\n+++ b/x\n@@ -3 +3 @@\n-c\n\\ No newline at end of file\n+c\n").unwrap();
    assert_eq!(place.read("x"), "a\r\nB\r\nc\n");
}

#[test]
fn r7_added_deleted_renamed_copied() {
    let place = Place::new(&[("gone/deep", "x\n"), ("old", TEN), ("from", "same\n")]);
    let patch = "diff --git a/gone/deep b/gone/deep\ndeleted file mode 100644\n--- a/gone/deep\n+++ /dev/null\n\
                 @@ -1 +0,0 @@\n-x\ndiff --git a/new/deep b/new/deep\nnew file mode 100755\n--- /dev/null\n\
                 +++ b/new/deep\n@@ -0,0 +1 @@\n+y\ndiff --git a/old b/moved/there\nsimilarity index 80%\n\
                 rename from old\nrename to moved/there\n--- a/old\n+++ b/moved/there\n@@ -4,3 +4,3 @@\n 4\n-5\n\
                 +five\n 6\ndiff --git a/from b/to\nsimilarity index 100%\ncopy from from\ncopy to to\n\
                 diff --git a/empty b/empty\nnew file mode 100644\nindex 0000000..e69de29\n";
    let applied = place.apply(patch).unwrap();
    let told: Vec<_> =
        applied.entries.iter().map(|entry| (entry.path.to_string(), entry.status)).collect();
    let expected = [
        ("empty", DiffStatus::Added),
        ("gone/deep", DiffStatus::Deleted),
        ("moved/there", DiffStatus::Renamed),
        ("new/deep", DiffStatus::Added),
        ("to", DiffStatus::Added),
    ];
    assert_eq!(told, expected.map(|(path, status)| (path.to_owned(), status)));
    assert_eq!(place.read("moved/there"), TEN.replace('5', "five"));
    assert_eq!((place.read("to"), place.read("from")), ("same\n".to_owned(), "same\n".to_owned()));
    assert!(!place.0.path().join("gone").exists(), "an emptied directory goes too");
    let mode = fs::metadata(place.0.path().join("new/deep")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    apply_to(place.0.path(), patch.as_bytes(), BACKWARD).unwrap();
    let all: Vec<_> = place.all().into_iter().map(|(path, _)| path).collect();
    assert_eq!(all, ["from", "gone", "gone/deep", "old"]);
}

#[test]
fn r5_the_mode_of_a_patched_file_stays() {
    let place = Place::new(&[("x", "a\n")]);
    let path = place.0.path().join("x");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    place.apply("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n").unwrap();
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(), 0o750);
    place.apply("diff --git a/x b/x\nold mode 100755\nnew mode 100644\n").unwrap();
    assert_eq!(mode(), 0o640);
    place.apply("diff --git a/x b/x\nold mode 100644\nnew mode 100755\n").unwrap();
    assert_eq!(mode(), 0o750);
}

#[test]
fn r6_links_are_changed_and_never_followed() {
    let place = Place::new(&[]);
    symlink("old", place.0.path().join("link")).unwrap();
    let patch = "diff --git a/link b/link\nindex 489b19f..3e5126c 120000\n--- a/link\n+++ b/link\n@@ -1 +1 @@\n\
                 -old\n\\ No newline at end of file\n+../../anywhere\n\\ No newline at end of file\n";
    place.apply(patch).unwrap();
    assert_eq!(place.all(), [("link".to_owned(), "../../anywhere".to_owned())]);
}

#[test]
fn r7_one_file_several_times_in_sequence() {
    let place = Place::new(&[("x", TEN)]);
    let one = "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-1\n+one\n 2\n";
    let two = "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n one\n-2\n+two\n";
    place.apply(&[one, two].concat()).unwrap();
    assert_eq!(place.read("x"), TEN.replacen("1\n2", "one\ntwo", 1));
}

#[test]
fn r7_times_of_the_epoch_stand_for_no_file() {
    let place = Place::new(&[("gone", "x\n")]);
    let patch = "--- a/gone\t2026-01-01 00:00:00 +0000\n+++ b/gone\t1970-01-01 00:00:00 +0000\n@@ -1 +0,0 @@\n\
                 -x\n--- a/new\t1970-01-01 00:00:00 +0000\n+++ b/new\t2026-01-01 00:00:00 +0000\n\
                 @@ -0,0 +1 @@\n+y\n";
    place.apply(patch).unwrap();
    assert_eq!(place.all(), [("new".to_owned(), "y\n".to_owned())]);
}

#[test]
fn a_dry_run_changes_nothing() {
    let place = Place::new(&[("x", "a\n")]);
    let patch = b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n";
    let applied = apply_to(place.0.path(), patch, ApplyPatch { dry_run: true, ..FORWARD }).unwrap();
    assert_eq!((applied.total, place.read("x").as_str()), (1, "a\n"));
}

#[test]
fn r7_a_directory_becomes_a_link() {
    let place = Place::new(&[("d/deep/x", "a\n")]);
    let patch = "diff --git a/d b/d\nnew file mode 120000\n--- /dev/null\n+++ b/d\n@@ -0,0 +1 @@\n+there\n\
                 \\ No newline at end of file\n--- a/d/deep/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n";
    place.apply(patch).unwrap();
    assert_eq!(place.all(), [("d".to_owned(), "there".to_owned())]);
    apply_to(place.0.path(), patch.as_bytes(), BACKWARD).unwrap();
    assert_eq!(place.read("d/deep/x"), "a\n");
}

#[test]
fn r7_a_directory_of_directories_becomes_a_file() {
    let place = Place::new(&[("d/x", "a\n"), ("d/deep/er/y", "a\n")]);
    std::fs::create_dir(place.0.path().join("d/empty")).unwrap();
    let gone = |path: &str| format!("--- a/{path}\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n");
    let made = "--- /dev/null\n+++ b/d\n@@ -0,0 +1 @@\n+file\n";
    place.apply(&format!("{}{}{made}", gone("d/x"), gone("d/deep/er/y"))).unwrap();
    assert_eq!(place.all(), [("d".to_owned(), "file\n".to_owned())]);
}

#[test]
fn r7_the_patchs_own_last_newline_may_be_lost() {
    let place = Place::new(&[("x", "a\nb\n"), ("y", "a\nb\n")]);
    place.apply("--- a/x\n+++ b/x\n@@ -1,2 +1,3 @@\n a\n b\n+c").unwrap();
    assert_eq!(place.read("x"), "a\nb\nc\n");
    place.apply("--- a/y\n+++ b/y\n@@ -1,2 +1,2 @@\n-a\n+c\n b").unwrap();
    assert_eq!(place.read("y"), "c\nb\n");
    place
        .apply("--- a/y\n+++ b/y\n@@ -1,2 +1,2 @@\n c\n-b\n+d\n\\ No newline at end of file")
        .unwrap();
    assert_eq!(place.read("y"), "c\nd");
}

#[test]
fn r7_a_hunk_goes_to_the_nearest_place_above_or_below() {
    let lines = |marked: usize| -> String {
        (0..100).map(|line| if line == marked { "x\n" } else { "-\n" }).collect()
    };
    for said in [1, 20, 50, 80, 100, 4_000_000_000_u32] {
        let place = Place::new(&[("f", &lines(49))]);
        place.apply(&format!("--- a/f\n+++ b/f\n@@ -{said} +{said} @@\n-x\n+y\n")).unwrap();
        assert_eq!(place.read("f"), lines(49).replace('x', "y"), "{said}");
    }
    let place = Place::new(&[("f", "x\n-\n-\nx\n-\nx\n")]);
    place.apply("--- a/f\n+++ b/f\n@@ -3 +3 @@\n-x\n+y\n").unwrap();
    assert_eq!(place.read("f"), "x\n-\n-\ny\n-\nx\n");
}
