//! Random programs on random seeds.

use super::check;
use super::overlay::{Op, Overlay, perform, with_mounts};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

/// How many sequences are tried, each of up to [`STEPS`] steps. `PYRO_SEQUENCES`
/// asks for more.
const SEQUENCES: u32 = 60;

const STEPS: usize = 24;

fn sequences() -> u32 {
    std::env::var("PYRO_SEQUENCES").ok().and_then(|text| text.parse().ok()).unwrap_or(SEQUENCES)
}

pub fn content() -> impl Strategy<Value = Vec<u8>> {
    let line = select(&[
        "one\n",
        "two\n",
        "three\n",
        "\n",
        "-- a\n",
        "++ b\n",
        "crlf\r\n",
        "@@ -1 +1 @@\n",
        "end",
        "diff --git a/x b/x\n",
        " blank\n",
        "\\ No newline\n",
    ]);
    prop_oneof![
        1 => Just(Vec::new()),
        4 => proptest::collection::vec(line.clone(), 1..6),
        4 => proptest::collection::vec(line, 20..40),
        1 => Just(vec!["\0binary\u{1}"]),
        1 => Just(vec!["\0"; 3000]),
    ]
    .prop_map(|lines| lines.concat().into_bytes())
}

pub fn op() -> impl Strategy<Value = Op> {
    let at = || any::<usize>();
    let name = || any::<u8>();
    let mode = select(&[0o644, 0o755, 0o600, 0o4755, 0o400, 0o1777, 0o711]);
    let target = select(&["a", "../b", "/etc/passwd", "no\nwhere", "ä"]);
    prop_oneof![
        6 => (at(), name(), content()).prop_map(|(at, name, to)| Op::Write(at, name, to)),
        3 => (at(), content()).prop_map(|(at, content)| Op::Append(at, content)),
        3 => (at(), content()).prop_map(|(at, content)| Op::Overwrite(at, content)),
        1 => (at(), any::<u8>()).prop_map(|(at, length)| Op::Truncate(at, length)),
        1 => at().prop_map(Op::Touch),
        3 => at().prop_map(Op::Remove),
        8 => (at(), at(), name()).prop_map(|(from, to, name)| Op::Rename(from, to, name)),
        1 => (at(), at()).prop_map(|(one, two)| Op::Exchange(one, two)),
        4 => (at(), name()).prop_map(|(at, name)| Op::MakeDirectory(at, name)),
        2 => (at(), mode).prop_map(|(at, mode)| Op::Chmod(at, mode)),
        1 => at().prop_map(Op::Chown),
        2 => (at(), name(), target).prop_map(|(at, name, to)| Op::Symlink(at, name, to.into())),
        3 => (at(), at(), name()).prop_map(|(from, to, name)| Op::HardLink(from, to, name)),
        2 => (at(), at(), name()).prop_map(|(from, to, name)| Op::Copy(from, to, name)),
        1 => (at(), name()).prop_map(|(at, name)| Op::Fifo(at, name)),
        1 => (at(), name()).prop_map(|(at, name)| Op::Device(at, name)),
        1 => (at(), any::<bool>()).prop_map(|(at, mark)| Op::Xattr(at, mark)),
        1 => (at(), content()).prop_map(|(at, content)| Op::FileForDirectory(at, content)),
        1 => at().prop_map(Op::DirectoryForFile),
    ]
}

/// A seed is what a first random program leaves; a second one changes it.
pub fn programs() -> impl Strategy<Value = (Vec<Op>, Vec<Op>)> {
    let seed = proptest::collection::vec(op(), 5..40);
    (seed, proptest::collection::vec(op(), 1..STEPS))
}

pub fn for_random_overlays(test: impl Fn(&Overlay) + Send + Sync) {
    with_mounts(|| {
        let config = Config { cases: sequences(), failure_persistence: None, ..Config::default() };
        let outcome = TestRunner::new(config).run(&programs(), |(seed, program)| {
            let overlay = Overlay::new();
            // What looks like the overlay's mark in a lower layer is one.
            for op in seed.iter().filter(|op| !matches!(op, Op::Xattr(_, true))) {
                perform(&overlay.seed(), op);
            }
            overlay.mount();
            for op in &program {
                perform(&overlay.live(), op);
            }
            test(&overlay);
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("{failure}");
        }
    });
}

#[test]
fn r7_the_walk_tells_what_a_comparison_of_everything_does() {
    for_random_overlays(|overlay| {
        check(overlay);
    });
}
