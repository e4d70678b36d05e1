//! Random trees, as directories and as archives, read back and compared.

use crate::image::{assert_same, tree_of};
use crate::making::{Place, set_mode, set_mtime};
use proptest::collection::vec;
use proptest::prelude::*;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, Clone)]
pub enum Thing {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    /// Another name of a file made before, if there is one.
    Link(usize),
}

/// One step: in which of the directories made before, its name, what, and how.
#[derive(Debug, Clone)]
pub struct Step {
    within: usize,
    name: Vec<u8>,
    thing: Thing,
    mode: u32,
    mtime: (i64, u32),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => prop::sample::select(&b"ab.-_ \n!"[..]),
        1 => (1_u8..=255).prop_filter("no slash", |byte| *byte != b'/'),
    ];
    let short = vec(byte.clone(), 1..12);
    let long = vec(byte, 200..=255);
    let name = prop_oneof![9 => short, 1 => long];
    name.prop_filter("a name", |name| name != b"." && name != b"..")
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    // Runs of one byte, often of zeros, so that there are chunks to leave out.
    let run =
        (prop_oneof![Just(0_u8), any::<u8>()], prop_oneof![0..100_usize, 60_000..140_000_usize]);
    vec(run, 0..4).prop_map(|runs| {
        runs.into_iter().flat_map(|(byte, count)| std::iter::repeat_n(byte, count)).collect()
    })
}

fn thing() -> impl Strategy<Value = Thing> {
    let target = prop_oneof![vec(1_u8..=255, 1..40), vec(1_u8..=255, 4000..4095)];
    prop_oneof![
        3 => Just(Thing::Directory),
        4 => content().prop_map(Thing::File),
        2 => target.prop_map(Thing::Symlink),
        2 => any::<usize>().prop_map(Thing::Link),
    ]
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mtime = (-2_000_000_000_i64..8_000_000_000, 0_u32..1_000_000_000);
    let step = (any::<usize>(), name(), thing(), 0_u32..0o10000, mtime);
    let step = step.prop_map(|(within, name, thing, mode, mtime)| {
        let readable = match thing {
            Thing::Directory => 0o700,
            Thing::File(_) | Thing::Symlink(_) | Thing::Link(_) => 0o400,
        };
        Step { within, name, thing, mode: mode | readable, mtime }
    });
    vec(step, 0..40)
}

/// Makes the tree; steps whose name is taken are left out.
pub fn make(top: &Path, steps: &[Step]) {
    fs::create_dir(top).unwrap();
    let mut directories: Vec<(PathBuf, u32, (i64, u32))> = vec![(top.to_owned(), 0o755, (5, 5))];
    let mut files: Vec<PathBuf> = Vec::new();
    for step in steps {
        let within = &directories[step.within % directories.len()].0;
        let path = within.join(OsStr::from_bytes(&step.name));
        if path.as_os_str().len() > 3000 || path.symlink_metadata().is_ok() {
            continue;
        }
        match &step.thing {
            Thing::Directory => {
                fs::create_dir(&path).unwrap();
                directories.push((path, step.mode, step.mtime));
                continue;
            }
            Thing::File(content) => {
                fs::write(&path, content).unwrap();
                set_mode(&path, step.mode);
                files.push(path.clone());
            }
            Thing::Symlink(target) => {
                symlink(OsStr::from_bytes(target), &path).unwrap();
                files.push(path.clone());
            }
            Thing::Link(index) => {
                if files.is_empty() {
                    continue;
                }
                fs::hard_link(&files[index % files.len()], &path).unwrap();
            }
        }
        set_mtime(&path, step.mtime.0, step.mtime.1);
    }
    for (path, mode, mtime) in directories.iter().rev() {
        set_mode(path, *mode);
        set_mtime(path, mtime.0, mtime.1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_seed_of_a_directory_is_that_directory(steps in steps()) {
        let place = Place::new();
        let top = place.path("top");
        make(&top, &steps);
        let (built, tree) = place.seed_path(&top);
        prop_assert!(built.warnings.is_empty(), "{:?}", built.warnings);
        prop_assert_eq!(built.entry_count + 1, tree.len() as u64);
        assert_same(&tree, &tree_of(&top));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_seed_of_an_archive_is_what_was_archived(steps in steps(), sparse: bool, gnu: bool) {
        let place = Place::new();
        let top = place.path("top");
        make(&top, &steps);
        let archive = place.path("archive");
        let format = if gnu { "--format=gnu" } else { "--format=posix" };
        let mut tar = Command::new("tar");
        tar.arg(format).args(sparse.then_some("--sparse")).arg("-cf").arg(&archive);
        let output = tar.arg("-C").arg(&top).arg(".").output().unwrap();
        prop_assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (built, tree) = place.seed_path(&archive);
        prop_assert!(built.warnings.is_empty(), "{:?}", built.warnings);
        let mut expected = tree_of(&top);
        if gnu {
            // The format has no more than whole seconds.
            expected.values_mut().for_each(|seen| seen.mtime.1 = 0);
        }
        assert_same(&tree, &expected);
    }
}
