//! Whatever a patch's bytes are, taking it apart and applying it comes to an
//! end, and nothing is half done.

use crate::patch::{parse, place};
use proptest::collection::vec;
use proptest::prelude::*;

/// Lines that patches are made of, in any order.
fn patchlike() -> impl Strategy<Value = Vec<u8>> {
    let lines = proptest::sample::select(&[
        "diff --git a/x b/x\n",
        "diff --git \"a/\\303\\244\" b/y\n",
        "old mode 100644\n",
        "new mode 100755\n",
        "new file mode 120000\n",
        "deleted file mode 100644\n",
        "rename from x\n",
        "rename to y\n",
        "copy from x\n",
        "copy to z\n",
        "similarity index 90%\n",
        "index 0123456..89abcde 100644\n",
        "--- a/x\n",
        "+++ b/x\n",
        "+++ /dev/null\n",
        "--- \n",
        "@@ -1,3 +1,3 @@\n",
        "@@ -1 +1 @@ fn\n",
        "@@ -0,0 +1,18446744073709551615 @@\n",
        "@@ -18446744073709551615,1 +1 @@\n",
        "@@ -\n",
        " one\n",
        "-two\n",
        "+three\n",
        "\n",
        "\r\n",
        "\\ No newline at end of file\n",
        "GIT binary patch\n",
        "literal 5\n",
        "delta 18446744073709551615\n",
        "delta 3\n",
        "KcmZQzKm%g{3K##\n",
        "-- \n",
        "2.47.3\n",
        "From: A\n",
        "no newline",
    ]);
    vec(lines, 0..40).prop_map(|lines| lines.concat().into_bytes())
}

fn take_apart(patch: &[u8], file: &[u8]) {
    let Ok(files) = parse::parse(patch) else { return };
    for part in files {
        if let parse::Body::Hunks(hunks) = &part.body {
            for reverse in [false, true] {
                let mut searching = place::Searching::default();
                drop(place::apply(patch, hunks, file, reverse, &mut searching, &mut Vec::new()));
            }
        }
        if let parse::Body::Binary { forward, .. } = &part.body {
            drop(forward.apply(patch, None, &mut tempfile::tempfile().unwrap()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2048, ..Default::default() })]

    #[test]
    fn any_bytes(patch in vec(any::<u8>(), 0..300), file in vec(any::<u8>(), 0..100)) {
        take_apart(&patch, &file);
    }

    #[test]
    fn what_looks_like_a_patch(patch in patchlike(), file in "(one\n|two\n|three\n|\n){0,6}") {
        take_apart(&patch, file.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_refused_changes_nothing(patch in patchlike(), file in "(one\n|two\n|three\n|\n){0,6}") {
        let place = super::Place::new(&[("x", &file), ("y", "one\n")]);
        let before = place.all();
        if super::apply_to(place.0.path(), &patch, super::FORWARD).is_err() {
            prop_assert_eq!(place.all(), before);
        }
        let hidden = place.all().into_iter().any(|(path, _)| path.starts_with(".pyro"));
        prop_assert!(!hidden);
    }
}
