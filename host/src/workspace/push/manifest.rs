//! What a source has, in the order of a tree.

use crate::error::{Error, ErrorKind, Result};
use crate::seed::source::Surroundings;
use crate::seed::{Content, Entry, Kind, Mtime, RelPath, Source, Visitor, Walk};
use pyro_protocol::ByteString;
use pyro_protocol::file::FileTime;
use pyro_protocol::piece::PieceSink;
use pyro_protocol::push::{PushEntry, PushKind};
use pyro_protocol::transfer::Outgoing;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// What a source has. Walks show it in any order, and a path more than once.
pub(super) struct Manifest {
    root: (u32, Mtime),
    items: Vec<(RelPath, Item)>,
    /// The first names of files with several.
    first_names: HashMap<u64, RelPath>,
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
    /// A file by where in the walk it came first; there may be several names of
    /// one.
    File {
        ordinal: u64,
        size: u64,
        whence: Occurrence,
    },
}

/// Where in a walk a file's content comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occurrence {
    /// Under this path, after so many others of it.
    Here(u64),
    /// Under its first name, after so many others of that.
    FirstName(u64),
}

/// Where in a walk a file's content comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whence<'a> {
    /// Under this path.
    pub(super) path: &'a RelPath,
    /// After so many others of that path.
    pub(super) occurrence: u64,
}

impl Manifest {
    /// Walks a source.
    pub(super) fn of(source: &Source, scratch: &Path, cancel: &CancellationToken) -> Result<Self> {
        let mut collecting = Collecting::default();
        let mut walk = Walk::new(&mut collecting, cancel);
        source.walk(&mut walk, Surroundings { avoid: None, scratch })?;
        let (_, warnings) = walk.finish();
        let items = collecting.items.into_values().collect();
        let first_names = collecting.first_names;
        Ok(Self { root: collecting.root, items, first_names, warnings: warnings.lines() })
    }

    pub(super) fn entry_count(&self) -> u64 {
        self.items.len() as u64
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where the files' contents come from, each once, in the order of the tree.
    pub(super) fn files(&self) -> impl Iterator<Item = Whence<'_>> {
        let mut seen = HashSet::new();
        self.items.iter().filter_map(move |(path, item)| match item.what {
            What::File { ordinal, whence, .. } => seen.insert(ordinal).then(|| {
                let path = self.first_names.get(&ordinal).unwrap_or(path);
                let (Occurrence::Here(occurrence) | Occurrence::FirstName(occurrence)) = whence;
                Whence { path, occurrence }
            }),
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
                What::File { ordinal, size, .. } => {
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
    first_names: HashMap<u64, RelPath>,
    /// How many files came under a path before what is there now, if any.
    before: HashMap<Vec<u8>, u64>,
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
            Kind::File { size } => {
                let before = self.before(&key);
                item(What::File { ordinal, size: *size, whence: Occurrence::Here(before) })
            }
            // Mode, time and content are the target's.
            Kind::HardLink(target) => match self.items.get(&self::key(target)) {
                Some((first, target)) => {
                    let mut item = target.clone();
                    if let What::File { ordinal, whence, .. } = &mut item.what {
                        self.first_names.entry(*ordinal).or_insert_with(|| first.clone());
                        let (Occurrence::Here(before) | Occurrence::FirstName(before)) = *whence;
                        *whence = Occurrence::FirstName(before);
                    }
                    item
                }
                None => {
                    let message = format!("`{path}` is a link to `{target}`, which is not there");
                    return Err(Error::new(ErrorKind::InvalidInput, message));
                }
            },
        };
        if !matches!(item.what, What::Directory) {
            self.remove_below(&key);
        }
        self.take_out(&key);
        self.items.insert(key, (path.clone(), item));
        Ok(())
    }
}

impl Collecting {
    /// How many files came under a path, whatever became of them.
    fn before(&self, key: &[u8]) -> u64 {
        match self.items.get(key) {
            Some((_, Item { what: What::File { whence: Occurrence::Here(before), .. }, .. })) => {
                before + 1
            }
            Some(_) | None => self.before.get(key).copied().unwrap_or(0),
        }
    }

    /// Takes out what is to be replaced; if it was a file, that counts still.
    fn take_out(&mut self, key: &[u8]) {
        let before = self.before(key);
        if self.items.remove(key).is_some() && before > 0 {
            self.before.insert(key.to_vec(), before);
        }
    }

    /// What was a directory is none any more.
    fn remove_below(&mut self, key: &[u8]) {
        if !self.items.get(key).is_some_and(|(_, item)| matches!(item.what, What::Directory)) {
            return;
        }
        let (from, to) = ([key, &[0]].concat(), [key, &[1]].concat());
        let below = (Bound::Included(from), Bound::Excluded(to));
        let keys: Vec<_> = self.items.range(below).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.take_out(&key);
        }
    }
}
