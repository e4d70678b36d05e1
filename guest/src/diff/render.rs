//! A change as an entry and as git's patch.

use super::binary;
use super::content::{self, Content};
use super::hunks::Lines;
use super::layers::{Kind, Layers, Node};
use super::pair::Paired;
use crate::git::quote::quoted;
use crate::git::{self, LINK_MODE, NO_BLOB};
use pyro_protocol::GuestPath;
use pyro_protocol::diff::{Artifact, DiffContent, DiffDetail, DiffEntry, DiffStatus};
use std::fs::File;
use std::io::{self, Write};

/// What is needed to render.
pub(super) struct Renderer<'a> {
    pub(super) layers: &'a Layers,
    pub(super) spool: &'a dyn Fn() -> io::Result<File>,
    pub(super) detail: DiffDetail,
}

/// A change whose contents have been read.
pub(super) struct Rendered {
    pub(super) entry: DiffEntry,
    sections: Vec<Section>,
}

/// What stands under one `diff --git`.
struct Section {
    old: Option<Side>,
    new: Option<Side>,
    old_path: Vec<u8>,
    new_path: Vec<u8>,
    similarity: Option<u32>,
    content: DiffContent,
}

struct Side {
    /// As git has it.
    mode: u32,
    content: Content,
}

impl Renderer<'_> {
    /// Reads what there is to say of a change; `None` when it is gone meanwhile.
    pub(super) fn render(&self, change: Paired) -> io::Result<Option<Rendered>> {
        let Paired { path, old_path, old, new, similarity } = change;
        let status = match (&old, &new, &old_path) {
            (_, _, Some(_)) => DiffStatus::Renamed,
            (None, _, _) => DiffStatus::Added,
            (_, None, _) => DiffStatus::Deleted,
            (Some(old), Some(new), None) if artifact(old) == artifact(new) => DiffStatus::Modified,
            (Some(_), Some(_), None) => DiffStatus::TypeChanged,
        };
        let shown = new.as_ref().or(old.as_ref());
        let (Some(shown), Ok(guest_path)) = (shown, GuestPath::new(path.clone())) else {
            return Ok(None);
        };
        let mut entry = DiffEntry {
            path: guest_path,
            old_path: old_path.clone().and_then(|path| GuestPath::new(path).ok()),
            status,
            artifact: artifact(shown),
            old_mode: old.as_ref().map(full_mode),
            new_mode: new.as_ref().map(full_mode),
            content: DiffContent::Unchanged,
        };
        if self.detail == DiffDetail::Names {
            return Ok(Some(Rendered { entry, sections: Vec::new() }));
        }
        let before = old_path.unwrap_or_else(|| path.clone());
        let section = |old, new| Section {
            old,
            new,
            old_path: before.clone(),
            new_path: path.clone(),
            similarity,
            content: DiffContent::Unchanged,
        };
        let same_type = old.as_ref().map(|node| node.kind) == new.as_ref().map(|node| node.kind);
        let Some((old, new)) = self.sides(old.as_ref(), new.as_ref())? else { return Ok(None) };
        let mut sections = match (old, new) {
            (None, None) => Vec::new(),
            (Some(old), Some(new)) if !same_type => {
                vec![section(Some(old), None), section(None, Some(new))]
            }
            (old, new) => vec![section(old, new)],
        };
        for section in &mut sections {
            section.content = section.compare();
            entry.content = both(entry.content, section.content);
        }
        Ok(Some(Rendered { entry, sections }))
    }

    /// Both contents; without what git does not know. `None` when one is gone.
    fn sides(
        &self,
        old: Option<&Node>,
        new: Option<&Node>,
    ) -> io::Result<Option<(Option<Side>, Option<Side>)>> {
        let mut sides = [None, None];
        for (side, node) in sides.iter_mut().zip([old, new]) {
            let Some(node) = node else { continue };
            let mode = match node.kind {
                Kind::File => git::file_mode(node.mode),
                Kind::Symlink => LINK_MODE,
                Kind::Directory | Kind::Special(..) => continue,
            };
            match content::load(self.layers, node, self.spool)? {
                Some(content) => *side = Some(Side { mode, content }),
                None => return Ok(None),
            }
        }
        let [old, new] = sides;
        Ok(Some((old, new)))
    }
}

impl Rendered {
    /// Writes the patch, if there is any.
    pub(super) fn write(mut self, to: &mut impl Write) -> io::Result<()> {
        if self.entry.content == DiffContent::Omitted {
            return Ok(());
        }
        self.sections.iter_mut().try_for_each(|section| section.write(to))
    }
}

impl Section {
    fn compare(&self) -> DiffContent {
        let contents = [&self.old, &self.new].map(|side| side.as_ref().map(|side| &side.content));
        let id = |content: Option<&Content>| match content {
            None => Some(NO_BLOB),
            Some(content) => content.id(),
        };
        let [old, new] = contents;
        match (id(old), id(new)) {
            (None, _) | (_, None) => DiffContent::Omitted,
            (Some(old), Some(new)) if old == new => DiffContent::Unchanged,
            (Some(_), Some(_)) => match self.lines() {
                Some(lines) => {
                    let (insertions, deletions) = lines.counts();
                    DiffContent::Text { insertions, deletions }
                }
                None => DiffContent::Binary,
            },
        }
    }

    /// The comparison line by line, if that is possible.
    fn lines(&self) -> Option<Lines<'_>> {
        Lines::compare(text(&self.old)?, text(&self.new)?)
    }

    fn write(&mut self, to: &mut impl Write) -> io::Result<()> {
        let modes = [&self.old, &self.new].map(|side| side.as_ref().map(|side| side.mode));
        let is_renamed = self.old_path != self.new_path;
        if self.content == DiffContent::Unchanged && modes[0] == modes[1] && !is_renamed {
            return Ok(());
        }
        let (before, after) =
            (quoted(&prefixed(b"a/", &self.old_path)), quoted(&prefixed(b"b/", &self.new_path)));
        to.write_all(&[b"diff --git ", before.as_slice(), b" ", &after, b"\n"].concat())?;
        match modes {
            [None, Some(mode)] => writeln!(to, "new file mode {mode:o}")?,
            [Some(mode), None] => writeln!(to, "deleted file mode {mode:o}")?,
            [Some(old), Some(new)] if old != new => {
                writeln!(to, "old mode {old:o}\nnew mode {new:o}")?;
            }
            [Some(_), Some(_)] | [None, None] => {}
        }
        if is_renamed {
            let similarity = match self.content {
                DiffContent::Unchanged => 100,
                // What is not the same is never told as if it were.
                DiffContent::Text { .. } | DiffContent::Binary | DiffContent::Omitted => {
                    self.similarity.unwrap_or(0).min(99)
                }
            };
            writeln!(to, "similarity index {similarity}%")?;
            to.write_all(&[b"rename from ", quoted(&self.old_path).as_slice(), b"\n"].concat())?;
            to.write_all(&[b"rename to ", quoted(&self.new_path).as_slice(), b"\n"].concat())?;
        }
        let is_new_or_gone = modes.contains(&None);
        if self.content == DiffContent::Unchanged && !is_new_or_gone {
            return Ok(());
        }
        self.write_index(modes, to)?;
        match self.content {
            DiffContent::Unchanged | DiffContent::Omitted => Ok(()),
            // An empty file that is new or gone: git names no sides of it either.
            DiffContent::Text { insertions: 0, deletions: 0 } => Ok(()),
            DiffContent::Binary => {
                let [old, new] = [&mut self.old, &mut self.new]
                    .map(|side| side.as_mut().map(|side| &mut side.content));
                binary::write(old, new, to)
            }
            DiffContent::Text { .. } => {
                let name = |exists: bool, name: Vec<u8>| match exists {
                    true if name.contains(&b' ') && name.first() != Some(&b'"') => {
                        // Otherwise a reader could take what follows for a time.
                        [name, b"\t".to_vec()].concat()
                    }
                    true => name,
                    false => b"/dev/null".to_vec(),
                };
                let (before, after) =
                    (name(modes[0].is_some(), before), name(modes[1].is_some(), after));
                to.write_all(&[b"--- ", before.as_slice(), b"\n+++ ", &after, b"\n"].concat())?;
                self.lines().map_or(Ok(()), |lines| lines.write(to))
            }
        }
    }

    fn write_index(&self, modes: [Option<u32>; 2], to: &mut impl Write) -> io::Result<()> {
        let id = |side: &Option<Side>| {
            let id =
                side.as_ref().map_or(Some(NO_BLOB), |side| side.content.id()).unwrap_or(NO_BLOB);
            // Git applies a binary patch only to what it names in full.
            if self.content == DiffContent::Binary { id.full() } else { id.short() }
        };
        write!(to, "index {}..{}", id(&self.old), id(&self.new))?;
        match modes {
            [Some(old), Some(new)] if old == new => writeln!(to, " {old:o}"),
            _ => writeln!(to),
        }
    }
}

/// What can be compared line by line; nothing is text too.
fn text(side: &Option<Side>) -> Option<&[u8]> {
    match side {
        None => Some(&[]),
        Some(side) => side.content.held().filter(|bytes| git::is_text(bytes)),
    }
}

fn prefixed(prefix: &[u8], path: &[u8]) -> Vec<u8> {
    [prefix, path].concat()
}

/// What is to be said of two sections as one.
fn both(one: DiffContent, other: DiffContent) -> DiffContent {
    match (one, other) {
        (DiffContent::Omitted, _) | (_, DiffContent::Omitted) => DiffContent::Omitted,
        (DiffContent::Binary, _) | (_, DiffContent::Binary) => DiffContent::Binary,
        (DiffContent::Unchanged, content) | (content, DiffContent::Unchanged) => content,
        (
            DiffContent::Text { insertions, deletions },
            DiffContent::Text { insertions: more, deletions: fewer },
        ) => DiffContent::Text { insertions: insertions + more, deletions: deletions + fewer },
    }
}

fn artifact(node: &Node) -> Artifact {
    match node.kind {
        Kind::File => Artifact::File,
        Kind::Directory => Artifact::Directory,
        Kind::Symlink => Artifact::Symlink,
        Kind::Special(..) => Artifact::Other,
    }
}

fn full_mode(node: &Node) -> u32 {
    let kind = match node.kind {
        Kind::File => libc::S_IFREG,
        Kind::Directory => libc::S_IFDIR,
        Kind::Symlink => libc::S_IFLNK,
        Kind::Special(kind, _) => kind,
    };
    kind | node.mode
}
