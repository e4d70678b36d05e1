//! The walk: what an overlay shows against what its lower layer has, at a cost
//! that follows the change and not the tree.
//!
//! At each path there are up to three nodes: the upper layer's; the *source*,
//! which is what the overlay merges with it, by its name in the parent's source
//! or wherever a redirect leads; and the *base*, the lower layer's at the same
//! path. What is shown is the upper node or else the source, and it is compared
//! with the base. A directory whose source is its base, with nothing above it,
//! cannot have changed, but for hard links (`alias`).
//!
//! Directories are told by their paths and opened anew for each look: a tree of
//! any depth takes no stack and no descriptors, and a path that Linux could not
//! open is too long to be told anyway.

use super::alias::Aliases;
use super::compare;
use super::layers::{Found, Layers, Node, Place, join};
use super::xattr;
use crate::beneath::PATH_MAX;
use crate::file::names::{self, Page};
use crate::work::Cancel;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;

/// What the names of all directories on the way down may take.
const NAMES_ROOM: usize = 4 * 1024 * 1024;

/// Something that is not what it was: one of the two at least is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) path: Vec<u8>,
    pub(crate) old: Option<Node>,
    pub(crate) new: Option<Node>,
}

/// What to walk, and whom to tell.
pub(crate) struct Walk<'a, S> {
    pub(crate) layers: &'a Layers,
    /// Whether a path and what is below may matter.
    pub(crate) wanted: &'a dyn Fn(&[u8]) -> bool,
    /// Asked at each step.
    pub(crate) cancel: &'a Cancel,
    /// Hears each change, and may end the walk.
    pub(crate) sink: S,
}

/// What a walk took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Walked {
    /// The nodes looked at.
    pub(crate) visited: u64,
    /// What could not be looked at, because its path is too long.
    pub(crate) too_deep: u64,
}

/// A directory on the way.
struct Frame {
    path: Vec<u8>,
    /// There is one in the upper layer.
    upper: bool,
    /// The lower directory that the overlay merges.
    source: Option<Vec<u8>>,
    /// There is one in the lower layer at the same path.
    base: bool,
    /// Whether it is told by itself if it turns out to be empty, as what.
    if_empty: Option<Change>,
    children: u64,
    pass: Pass,
    listing: Listing,
}

/// The three listings of a directory, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Upper,
    Source,
    Base,
    Done,
}

/// Names still to be looked at, the next one last.
#[derive(Default)]
struct Listing {
    names: Vec<Vec<u8>>,
    last: Option<Vec<u8>>,
    exhausted: bool,
}

struct Walker<'w, 'a, S> {
    walk: &'w mut Walk<'a, S>,
    aliases: Aliases,
    frames: Vec<Frame>,
    room: usize,
    walked: Walked,
}

impl<S: FnMut(Change) -> io::Result<()>> Walk<'_, S> {
    /// Walks all of it.
    pub(crate) fn run(mut self) -> io::Result<Walked> {
        let aliases = Aliases::find(self.layers, self.cancel)?;
        let root = Frame::new(Vec::new(), true, Some(Vec::new()), true);
        let mut walker = Walker {
            walk: &mut self,
            aliases,
            frames: vec![root],
            room: NAMES_ROOM,
            walked: Walked::default(),
        };
        while walker.step()? {}
        Ok(walker.walked)
    }
}

impl Frame {
    fn new(path: Vec<u8>, upper: bool, source: Option<Vec<u8>>, base: bool) -> Self {
        let listing = Listing::default();
        Self { path, upper, source, base, if_empty: None, children: 0, pass: Pass::Upper, listing }
    }

    /// Whether the lower layer is merged where it always was.
    fn in_place(&self) -> bool {
        self.base && self.source.as_deref() == Some(self.path.as_slice())
    }
}

impl<S: FnMut(Change) -> io::Result<()>> Walker<'_, '_, S> {
    /// Looks at one name; false when there is none left.
    fn step(&mut self) -> io::Result<bool> {
        self.walk.cancel.check_errno()?;
        let Some(frame) = self.frames.last_mut() else { return Ok(false) };
        if frame.pass == Pass::Done {
            if let Some(Frame { children: 0, if_empty: Some(change), .. }) = self.frames.pop() {
                self.tell(change)?;
            }
            return Ok(true);
        }
        let Some(name) = frame.listing.names.pop() else {
            return self.list().map(|()| true);
        };
        self.room += names::room_of(std::slice::from_ref(&name));
        let (pass, path) = (frame.pass, join(&frame.path, &name));
        if path.len() > PATH_MAX {
            self.walked.too_deep += 1;
        } else if (self.walk.wanted)(&path) {
            self.walked.visited += 1;
            match pass {
                Pass::Upper => self.upper(path)?,
                Pass::Source => self.source(path, &name)?,
                Pass::Base => self.base(path, &name)?,
                Pass::Done => {}
            }
        }
        Ok(true)
    }

    /// Gets more names, or goes on to the next pass.
    fn list(&mut self) -> io::Result<()> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        let place = match frame.pass {
            Pass::Upper if frame.upper => Some(Place::Upper(frame.path.clone())),
            Pass::Source if frame.in_place() => None,
            Pass::Source => frame.source.clone().map(Place::Lower),
            Pass::Base if frame.base && !frame.in_place() => Some(Place::Lower(frame.path.clone())),
            Pass::Upper | Pass::Base | Pass::Done => None,
        };
        let after = frame.listing.last.as_deref();
        let none = Page { names: Vec::new(), more: false };
        let Page { names, more } = match place {
            _ if frame.listing.exhausted => none,
            Some(place) => match self.walk.layers.directory(&place) {
                Ok(directory) => {
                    names::page(directory.as_fd(), after.unwrap_or_default(), self.room / 2)
                        .map_err(at(&frame.path))?
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => none,
                Err(error) => return Err(at(&frame.path)(error)),
            },
            None if frame.pass == Pass::Source && frame.in_place() => {
                let child = self.aliases.child_after(&frame.path, after);
                let more = child.is_some();
                Page { names: child.into_iter().collect(), more }
            }
            None => none,
        };
        if names.is_empty() {
            frame.listing = Listing::default();
            frame.pass = match frame.pass {
                Pass::Upper => Pass::Source,
                Pass::Source => Pass::Base,
                Pass::Base | Pass::Done => Pass::Done,
            };
            return Ok(());
        }
        self.room = self.room.saturating_sub(names::room_of(&names));
        frame.listing.last = names.last().cloned();
        frame.listing.exhausted = !more;
        frame.listing.names = names.into_iter().rev().collect();
        Ok(())
    }

    /// A name of the upper layer.
    fn upper(&mut self, path: Vec<u8>) -> io::Result<()> {
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let found = self.node(Place::Upper(path.clone()))?;
        let base = if frame.base { self.lower(&path)? } else { None };
        match found {
            Found::Nothing => Ok(()),
            // Elsewhere the pass over the base sees to it.
            Found::Whiteout if frame.in_place() => self.compare(path, base, None, None),
            Found::Whiteout => Ok(()),
            Found::Node(node) => {
                let source = if node.is_directory() { self.merged_with(&path)? } else { None };
                self.compare(path, base, Some(node), source)
            }
        }
    }

    /// A name of the source, which shows unless the upper layer has it too.
    fn source(&mut self, path: Vec<u8>, name: &[u8]) -> io::Result<()> {
        if self.node(Place::Upper(path.clone()))? != Found::Nothing {
            return Ok(());
        }
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let Some(source) = frame.source.as_ref().map(|source| join(source, name)) else {
            return Ok(());
        };
        let base = if frame.base { self.lower(&path)? } else { None };
        let Some(node) = self.shown(&source)? else { return Ok(()) };
        let source = node.is_directory().then_some(source);
        self.compare(path, base, Some(node), source)
    }

    /// A name of the base, which is gone unless something shows under it.
    fn base(&mut self, path: Vec<u8>, name: &[u8]) -> io::Result<()> {
        let shows = match self.node(Place::Upper(path.clone()))? {
            Found::Node(_) => true,
            Found::Whiteout => false,
            Found::Nothing => {
                let source = self.frames.last().and_then(|frame| frame.source.as_ref());
                match source.map(|source| join(source, name)) {
                    Some(source) => self.lower(&source)?.is_some(),
                    None => false,
                }
            }
        };
        if shows {
            return Ok(());
        }
        let base = self.lower(&path)?;
        if let Some(frame) = self.frames.last_mut()
            && frame.source.is_none()
            && !frame.upper
        {
            // Of a directory that is gone, what was in it is what counts.
            frame.children += 1;
        }
        self.compare(path, base, None, None)
    }

    /// Tells what differs, and goes down where more can.
    fn compare(
        &mut self,
        path: Vec<u8>,
        old: Option<Node>,
        new: Option<Node>,
        source: Option<Vec<u8>>,
    ) -> io::Result<()> {
        if new.is_some()
            && let Some(frame) = self.frames.last_mut()
        {
            frame.children += 1;
        }
        let was_directory = old.as_ref().is_some_and(Node::is_directory);
        let is_directory = new.as_ref().is_some_and(Node::is_directory);
        let change = Change { path: path.clone(), old, new };
        let mut if_empty = None;
        match (&change.old, &change.new) {
            (None, None) => return Ok(()),
            (Some(old), Some(new)) => {
                let Walk { layers, cancel, .. } = &*self.walk;
                if !compare::same(layers, old, new, cancel).map_err(at(&path))? {
                    self.tell(change.clone())?;
                }
            }
            // Of directories that are new or gone only those are told that
            // nothing else tells of.
            (None, Some(node)) | (Some(node), None) if node.is_directory() => {
                if_empty = Some(change.clone());
            }
            (None, Some(_)) | (Some(_), None) => self.tell(change.clone())?,
        }
        if !was_directory && !is_directory {
            return Ok(());
        }
        let upper =
            matches!(&change.new, Some(Node { place: Place::Upper(_), .. })) && is_directory;
        let frame = Frame { if_empty, ..Frame::new(path, upper, source, was_directory) };
        if upper || !frame.in_place() || self.aliases.any_below(&frame.path) {
            self.frames.push(frame);
        }
        Ok(())
    }

    /// The lower directory that the overlay merges with one of the upper layer.
    fn merged_with(&self, path: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let place = Place::Upper(path.to_vec());
        let mark = |name| match xattr::mark(self.walk.layers, &place, name) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            mark => mark.map_err(at(path)),
        };
        if mark("opaque")?.is_some_and(|value| value == b"y") {
            return Ok(None);
        }
        let parent = self.frames.last().and_then(|frame| frame.source.as_ref());
        let (_, name) = crate::beneath::split(path);
        let source = match (mark("redirect")?, parent) {
            (Some(redirect), parent) => match (redirect.strip_prefix(b"/"), parent) {
                (Some(absolute), _) => absolute.to_vec(),
                (None, Some(parent)) => join(parent, &redirect),
                (None, None) => return Ok(None),
            },
            (None, Some(parent)) => join(parent, name),
            (None, None) => return Ok(None),
        };
        Ok(self.lower(&source)?.filter(Node::is_directory).map(|_| source))
    }

    /// What the overlay shows of a lower path that it merges.
    fn shown(&self, lower: &[u8]) -> io::Result<Option<Node>> {
        if let Some(copy) = self.aliases.of(lower)
            && let Found::Node(node) = self.node(Place::Index(copy.clone()))?
        {
            return Ok(Some(node));
        }
        self.lower(lower)
    }

    fn lower(&self, path: &[u8]) -> io::Result<Option<Node>> {
        Ok(self.node(Place::Lower(path.to_vec()))?.node())
    }

    fn node(&self, place: Place) -> io::Result<Found> {
        let path = match &place {
            Place::Lower(path) | Place::Upper(path) | Place::Index(path) => path.clone(),
        };
        self.walk.layers.node(place).map_err(at(&path))
    }

    fn tell(&mut self, change: Change) -> io::Result<()> {
        (self.walk.sink)(change)
    }
}

/// Says where an error happened.
fn at(path: &[u8]) -> impl FnOnce(Errno) -> io::Error + use<'_> {
    move |error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("{}: {error}", String::from_utf8_lossy(path)))
    }
}
