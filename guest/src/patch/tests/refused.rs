//! What does not apply, and what is said about it.

use super::Place;
use pyro_protocol::AgentErrorKind;
use std::os::unix::fs::symlink;

const GOOD: &str = "--- a/good\n+++ b/good\n@@ -1 +1 @@\n-a\n+b\n";

fn with_good(patch: &str) -> String {
    format!("{GOOD}{patch}")
}

#[test]
fn r7_all_or_nothing_and_why_not() {
    let place = Place::new(&[("good", "a\n"), ("x", "1\n2\n3\n")]);
    let (kind, why) =
        place.refusal(&with_good("--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n 1\n-zwei\n+two\n 3\n"));
    assert_eq!(kind, AgentErrorKind::Conflict);
    for part in
        ["x: hunk 1", "line 8 of the patch", "line 2 is \"2\"", "\"zwei\"", "nothing was changed"]
    {
        assert!(why.contains(part), "{why}");
    }
    let (_, why) = place.refusal(&with_good("--- a/absent\n+++ b/absent\n@@ -1 +1 @@\n-a\n+b\n"));
    assert!(why.contains("absent: it is not there"), "{why}");
    let (_, why) = place.refusal(&with_good("--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+a\n"));
    assert!(why.contains("x: it is there already"), "{why}");
    let (_, why) = place.refusal(&with_good("--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-1\n"));
    assert!(why.contains("would be left"), "{why}");
    let (_, why) = place.refusal("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-0\n+1\n 2\n");
    assert!(why.contains("there already"), "{why}");
}

#[test]
fn r7_nothing_is_a_file_and_a_directory() {
    let place = Place::new(&[]);
    std::fs::create_dir_all(place.0.path().join("d/sub")).unwrap();
    let (kind, why) = place.refusal(
        "--- /dev/null\n+++ b/d\n@@ -0,0 +1 @@\n+a\n--- /dev/null\n+++ b/d/sub/x\n@@ -0,0 +1 @@\n+a\n",
    );
    assert_eq!(kind, AgentErrorKind::Conflict);
    assert!(why.contains("d: the patch makes it a file and a directory"), "{why}");
}

#[test]
fn s8_nothing_beyond_a_link() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("x"), "a\n").unwrap();
    let place = Place::new(&[("good", "a\n")]);
    symlink("nowhere", place.0.path().join("out")).unwrap();
    symlink("good", place.0.path().join("file")).unwrap();
    let hunk = "@@ -1 +1 @@\n-a\n+b\n";
    let (_, why) = place.refusal(&with_good(&format!("--- a/out/x\n+++ b/out/x\n{hunk}")));
    assert!(why.contains("beyond a symbolic link"), "{why}");
    let (_, why) = place.refusal(&with_good(&format!("--- a/file\n+++ b/file\n{hunk}")));
    assert!(why.contains("it is a symbolic link"), "{why}");
    std::fs::remove_file(place.0.path().join("out")).unwrap();
    symlink(outside.path(), place.0.path().join("out")).unwrap();
    let (_, why) = place.refusal("--- /dev/null\n+++ b/out/new\n@@ -0,0 +1 @@\n+a\n");
    assert!(why.contains("beyond a symbolic link"), "{why}");
    // A link that the patch itself makes leads nowhere either.
    let patch = "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc\n\
                 \\ No newline at end of file\n--- /dev/null\n+++ b/l/x\n@@ -0,0 +1 @@\n+a\n";
    let (kind, _) = place.refusal(patch);
    assert_eq!(kind, AgentErrorKind::Conflict);
    let (kind, _) = place.refusal("--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n");
    assert_eq!(kind, AgentErrorKind::OutOfTree);
    assert_eq!(std::fs::read_to_string(outside.path().join("x")).unwrap(), "a\n");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn r7_what_is_no_patch_is_said_to_be_none() {
    let place = Place::new(&[("x", "a\n")]);
    for (text, part) in [
        ("", "the patch is empty"),
        ("\n \n", "the patch is empty"),
        ("hello\n", "no patch in the text"),
        ("\0\u{1}", "no patch in the text"),
        ("--- a/x\n+++ b/x\n@@ -x +y @@\n-a\n", "line 3 of the patch"),
        ("--- a/x\n+++ b/x\n@@ -1 +1 @@\n", "line 3 of the patch"),
        ("diff --git a/x b/x\nBinary files a/x and b/x differ\n", "git diff --binary"),
        ("diff --git a/x b/x\nindex 1..2\nGIT binary patch\nliteral 3\n!\n\n", "no base 85"),
    ] {
        let (kind, why) = place.refusal(text);
        assert_eq!(kind, AgentErrorKind::InvalidArgument, "{text}");
        assert!(why.contains(part), "{text}: {why}");
    }
}

#[test]
fn r7_a_directory_gives_way_only_when_the_patch_empties_it() {
    let place = Place::new(&[("d/one", "a\n"), ("d/two", "a\n")]);
    let one = "--- a/d/one\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n";
    let two = "--- a/d/two\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n";
    let file = "--- /dev/null\n+++ b/d\n@@ -0,0 +1 @@\n+a\n";
    let (_, why) = place.refusal(&[one, file].concat());
    assert!(why.contains("d: it is a directory that has d/two in it"), "{why}");
    place.apply(&[file, one, two].concat()).unwrap();
    assert_eq!(place.all(), [("d".to_owned(), "a\n".to_owned())]);
}

#[test]
fn s4_a_patch_of_too_many_parts_is_refused() {
    let place = Place::new(&[]);
    let hunks = format!("--- a/x\n+++ b/x\n{}", "@@ -1 +1 @@\n-a\n+b\n".repeat(1_000_000));
    let (kind, why) = place.refusal(&hunks);
    assert_eq!(kind, AgentErrorKind::InvalidArgument);
    assert!(why.contains("split it"), "{why}");
    let name = "n".repeat(1024 * 1024);
    let (_, why) = place.refusal(&format!("--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n-a\n+b\n"));
    assert!(why.contains("longer than any path"), "{why}");
}

#[test]
fn s4_a_search_that_takes_too_long_is_given_up() {
    // At each place of the file almost all of the hunk fits.
    let line = "a".repeat(1000);
    let file = format!("{line}\n").repeat(8000);
    let old = format!(" {line}\n").repeat(4000);
    let place = Place::new(&[("x", &file)]);
    let patch = format!("--- a/x\n+++ b/x\n@@ -1,4001 +1,4000 @@\n{old}-b\n");
    let (kind, why) = place.refusal(&patch);
    assert_eq!(kind, AgentErrorKind::Conflict);
    assert!(why.contains("too much to search"), "{why}");
}
