//! The kernel's own opinion of an image.

use crate::image::{assert_same, tree_of};
use crate::making::{Place, build};
use crate::random::{make, steps};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use pyro::seed::Source;
use std::process::Command;

/// How many trees; each is mounted.
const TREES: usize = 12;

#[test]
fn a_mounted_seed_is_what_was_seeded() {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap();
    if !rustix::process::geteuid().is_root() || !known.contains("\terofs\n") {
        eprintln!("skipped: only root can mount an image, and only with erofs in the kernel");
        return;
    }
    let mut runner = TestRunner::deterministic();
    for _ in 0..TREES {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        let place = Place::new();
        let top = place.path("top");
        make(&top, &steps);
        let image = place.path("seed.erofs");
        build(&Source::Directory((&top).into()), &image).unwrap();
        // In a mount namespace of its own nothing stays mounted.
        let script = r#"mount -t erofs -o loop,ro "$1" "$2" && cp -a "$2/tree" "$3""#;
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh"])
            .args([&image, &place.dir("mounted"), &place.path("copy")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_same(&tree_of(&place.path("copy")), &tree_of(&top));
    }
}
