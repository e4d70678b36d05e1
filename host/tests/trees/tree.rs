//! Any tree, and what one looks like.

use proptest::collection::vec;
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Something in a tree, as it looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Directory {
        mode: u32,
        modified: (i64, i64),
    },
    Symlink {
        target: Vec<u8>,
        modified: (i64, i64),
    },
    /// The first of its names in the order of bytes.
    File {
        content: Vec<u8>,
        mode: u32,
        modified: (i64, i64),
        first: Vec<u8>,
    },
}

impl Node {
    pub fn modified(&self) -> (i64, i64) {
        match self {
            Node::Directory { modified, .. }
            | Node::Symlink { modified, .. }
            | Node::File { modified, .. } => *modified,
        }
    }

    /// The same of another time.
    pub fn at(mut self, time: (i64, i64)) -> Self {
        match &mut self {
            Node::Directory { modified, .. }
            | Node::Symlink { modified, .. }
            | Node::File { modified, .. } => *modified = time,
        }
        self
    }
}

pub type Look = BTreeMap<Vec<u8>, Node>;

/// Something to be made, in place of what is there.
#[derive(Debug, Clone)]
pub enum Deed {
    Directory {
        mode: u32,
    },
    Symlink {
        target: Vec<u8>,
    },
    File {
        content: Vec<u8>,
        hole: u64,
        mode: u32,
    },
    /// Of the nth path.
    HardLink(usize),
    Remove,
}

#[derive(Debug, Clone)]
pub struct Step {
    pub path: Vec<Vec<u8>>,
    pub deed: Deed,
    pub modified: (i64, i64),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => "[a-d]".prop_map(String::into_bytes),
        1 => Just(b"a-b".to_vec()),
        1 => Just(b"\xff\n".to_vec()),
        1 => Just("ü ".as_bytes().to_vec()),
        1 => Just(vec![b'n'; 150]),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    let mode = || proptest::sample::select(&[0o644, 0o755, 0o600, 0o444, 0o777, 0o1755]);
    prop_oneof![
        2 => mode().prop_map(|mode| Deed::Directory { mode: mode | 0o300 }),
        1 => vec(1..=u8::MAX, 1..150).prop_map(|target| Deed::Symlink { target }),
        1 => Just(Deed::Symlink { target: b"../..".to_vec() }),
        4 => (vec(any::<u8>(), 0..300), proptest::sample::select(&[0, 0, 0, 200_000]), mode())
            .prop_map(|(content, hole, mode)| Deed::File { content, hole, mode }),
        1 => any::<usize>().prop_map(Deed::HardLink),
        1 => Just(Deed::Remove),
    ]
}

pub fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = (vec(name(), 1..4), deed(), (-1000..2_000_000_000_i64, 0..1_000_000_000_i64));
    vec(step.prop_map(|(path, deed, modified)| Step { path, deed, modified }), 0..most)
}

/// Does the steps that can be done below a directory.
pub fn plant(root: &Path, steps: &[Step]) {
    let mut times = Vec::new();
    let path_of = |step: &Step| {
        step.path.iter().fold(root.to_owned(), |path, name| path.join(OsStr::from_bytes(name)))
    };
    for step in steps {
        let path = path_of(step);
        let is_below_directories = step.path.iter().scan(root.to_owned(), |path, name| {
            let here = path.clone();
            path.push(OsStr::from_bytes(name));
            Some(here)
        });
        let mut is_possible = true;
        for above in is_below_directories {
            match above.symlink_metadata() {
                Ok(meta) if !meta.is_dir() => is_possible = false,
                Ok(_) => {}
                Err(_) => drop(fs::create_dir(&above)),
            }
        }
        if !is_possible {
            continue;
        }
        let there = path.symlink_metadata();
        if !matches!(step.deed, Deed::Directory { .. })
            || there.as_ref().is_ok_and(|it| !it.is_dir())
        {
            match there {
                Ok(meta) if meta.is_dir() => fs::remove_dir_all(&path).unwrap(),
                Ok(_) => fs::remove_file(&path).unwrap(),
                Err(_) => {}
            }
        }
        match &step.deed {
            Deed::Directory { mode } => {
                drop(fs::create_dir(&path));
                fs::set_permissions(&path, Permissions::from_mode(*mode)).unwrap();
            }
            Deed::Symlink { target } => symlink(OsStr::from_bytes(target), &path).unwrap(),
            Deed::File { content, hole, mode } => {
                let file = File::create(&path).unwrap();
                file.write_all_at(content, *hole).unwrap();
                file.set_len(hole + content.len() as u64).unwrap();
                file.set_permissions(Permissions::from_mode(*mode)).unwrap();
            }
            Deed::HardLink(index) => {
                let other = path_of(&steps[index % steps.len()]);
                if !other.symlink_metadata().is_ok_and(|it| it.is_file())
                    || fs::hard_link(other, &path).is_err()
                {
                    continue;
                }
            }
            Deed::Remove => continue,
        }
        times.push((path, step.modified));
    }
    for (path, (tv_sec, tv_nsec)) in times {
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times =
            Timestamps { last_access: omit, last_modification: Timespec { tv_sec, tv_nsec } };
        // It may have been removed since.
        let _ = utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW);
    }
}

/// All that is below a directory.
pub fn look(root: &Path) -> Look {
    let mut look = Look::new();
    let mut firsts = HashMap::new();
    collect(root, &mut Vec::new(), &mut look);
    for path in look.keys().cloned().collect::<Vec<_>>() {
        let meta = root.join(OsStr::from_bytes(&path)).symlink_metadata().unwrap();
        if let Some(Node::File { first, .. }) = look.get_mut(&path) {
            *first = firsts.entry(meta.ino()).or_insert(path).clone();
        }
    }
    look
}

fn collect(directory: &Path, prefix: &mut Vec<u8>, look: &mut Look) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        let meta = path.symlink_metadata().unwrap();
        let length = prefix.len();
        if length > 0 {
            prefix.push(b'/');
        }
        prefix.extend_from_slice(entry.file_name().as_bytes());
        let (mode, modified) = (meta.mode() & 0o7777, (meta.mtime(), meta.mtime_nsec()));
        let node = if meta.is_dir() {
            collect(&path, prefix, look);
            Node::Directory { mode, modified }
        } else if meta.is_symlink() {
            let target = fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec();
            Node::Symlink { target, modified }
        } else {
            Node::File { content: fs::read(&path).unwrap(), mode, modified, first: Vec::new() }
        };
        look.insert(prefix.clone(), node);
        prefix.truncate(length);
    }
}
