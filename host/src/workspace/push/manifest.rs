//! What a source has, in the order of a tree.

use crate::error::{Error, ErrorKind, Result};
use crate::seed::{Content, Entry, Kind, Mtime, RelPath, Source, Visitor, Walk};
use pyro_protocol::ByteString;
use pyro_protocol::file::FileTime;
use pyro_protocol::piece::PieceSink;
use pyro_protocol::push::{PushEntry, PushKind};
use pyro_protocol::transfer::Outgoing;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use tokio_util::sync::CancellationToken;

/// What a source has. Walks show it in any order, and a path more than once.
pub(super) struct Manifest {
    root: (u32, Mtime),
    items: Vec<(RelPath, Item)>,
    warnings: Vec<String>,
}

/// An entry without its path.
#[derive(Debug, Clone)]
struct Item {
    mode: u32,
    mtime: Mtime,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Directory,
    Symlink(Vec<u8>),
    /// A file by where in the walk its content comes; there may be several names
    /// of one.
    File {
        ordinal: u64,
        size: u64,
    },
}

impl Manifest {
    /// Walks a source.
    pub(super) fn of(source: &Source, cancel: &CancellationToken) -> Result<Self> {
        let mut collecting = Collecting::default();
        let mut walk = Walk::new(&mut collecting, cancel);
        source.walk(&mut walk, None)?;
        let (_, warnings) = walk.finish();
        let items = collecting.items.into_values().collect();
        Ok(Self { root: collecting.root, items, warnings: warnings.lines() })
    }

    pub(super) fn entry_count(&self) -> u64 {
        self.items.len() as u64
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How many files there are, each counted once.
    pub(super) fn files(&self) -> u64 {
        self.file_ordinals().count() as u64
    }

    /// Where in the walk the files' contents come, in the order of the tree.
    pub(super) fn file_ordinals(&self) -> impl Iterator<Item = u64> {
        let mut seen = std::collections::HashSet::new();
        self.items.iter().filter_map(move |(_, item)| match item.what {
            What::File { ordinal, .. } => seen.insert(ordinal).then_some(ordinal),
            What::Directory | What::Symlink(_) => None,
        })
    }

    /// Sends the entries. Of a file with several names the first is the file,
    /// and the others are links to it.
    pub(super) fn send(&self, outgoing: &mut Outgoing) -> Result<()> {
        let (mode, mtime) = self.root;
        let path = ByteString::default();
        let modified = file_time(mtime);
        outgoing.entry(&PushEntry { path, mode, modified, kind: PushKind::Directory })?;
        let mut first = HashMap::<u64, (u64, &RelPath)>::new();
        for (path, item) in &self.items {
            let kind = match &item.what {
                What::Directory => PushKind::Directory,
                What::Symlink(target) => PushKind::Symlink(ByteString(target.clone())),
                What::File { ordinal, size } => {
                    let files = first.len() as u64;
                    match first.get(ordinal) {
                        Some((file, path)) => PushKind::HardLink {
                            path: ByteString(path.as_bytes().to_vec()),
                            file: *file,
                        },
                        None => {
                            first.insert(*ordinal, (files, path));
                            PushKind::File { size_bytes: *size }
                        }
                    }
                }
            };
            let path = ByteString(path.as_bytes().to_vec());
            let modified = file_time(item.mtime);
            outgoing.entry(&PushEntry { path, mode: item.mode, modified, kind })?;
        }
        Ok(())
    }
}

pub(super) fn file_time(time: Mtime) -> FileTime {
    FileTime { seconds: time.secs, nanoseconds: time.nanos }
}

/// A manifest in the making. The key orders paths by their names: a byte less
/// than all others stands between those.
#[derive(Default)]
struct Collecting {
    root: (u32, Mtime),
    items: BTreeMap<Vec<u8>, (RelPath, Item)>,
    ordinal: u64,
}

/// A path so that its bytes are in the order of a tree. A name has no NUL.
fn key(path: &RelPath) -> Vec<u8> {
    path.as_bytes().iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect()
}

impl Visitor for Collecting {
    fn root(&mut self, mode: u32, mtime: Mtime) -> Result<()> {
        self.root = (mode, mtime);
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, _: &mut dyn Content) -> Result<()> {
        let ordinal = self.ordinal;
        self.ordinal += 1;
        let Entry { path, mode, mtime, .. } = entry;
        let item = |what| Item { mode: *mode, mtime: *mtime, what };
        let key = key(path);
        let item = match &entry.kind {
            Kind::Directory => item(What::Directory),
            Kind::Symlink(target) => item(What::Symlink(target.clone())),
            Kind::File { size } => item(What::File { ordinal, size: *size }),
            // Mode, time and content are the target's.
            Kind::HardLink(target) => match self.items.get(&self::key(target)) {
                Some((_, first)) => first.clone(),
                None => {
                    let message = format!("`{path}` is a link to `{target}`, which is not there");
                    return Err(Error::new(ErrorKind::InvalidInput, message));
                }
            },
        };
        if !matches!(item.what, What::Directory) {
            self.remove_below(&key);
        }
        self.items.insert(key, (path.clone(), item));
        Ok(())
    }
}

impl Collecting {
    /// What was a directory is none any more.
    fn remove_below(&mut self, key: &[u8]) {
        if !self.items.get(key).is_some_and(|(_, item)| matches!(item.what, What::Directory)) {
            return;
        }
        let (from, to) = ([key, &[0]].concat(), [key, &[1]].concat());
        let below = (Bound::Included(from), Bound::Excluded(to));
        let keys: Vec<_> = self.items.range(below).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.items.remove(&key);
        }
    }
}
