//! `FileSearch`.

mod lines;

use super::fault::{invalid, refused};
use super::list::below;
use super::root::Root;
use super::status;
use super::walk::Entered;
use crate::work::{Cancel, Stop};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use lines::Needle;
use pyro_protocol::file::{
    FileSearch, FileSearched, FileType, Match, MatchedLine, PAGE_MAX, SearchCursor, SearchTally,
};
use pyro_protocol::{AgentError, GuestPath};
use rustix::fs::{Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The most globs of a search, and bytes of each: what they compile to stays
/// small.
const GLOBS_MAX: usize = 64;
const GLOB_MAX: usize = 1024;

/// What an encoded match takes beside its path and line.
const MATCH_OVERHEAD: usize = 64;

/// Answers `FileSearch`.
pub(super) fn run(root: &Root, call: &FileSearch, cancel: &Cancel) -> Result<FileSearched, Stop> {
    let search = Search::new(call)?;
    let path = root.path(&call.path)?;
    let itself = status::look(root, &path)?;
    let mut page = Page::new(call.limit);
    if itself.file_type != FileType::Directory {
        if call.after.as_ref().is_some_and(|cursor| cursor.line.is_none()) {
            return Ok(page.finish(None));
        }
        let place = root.place(&path)?;
        let from = call.after.as_ref().and_then(|cursor| cursor.line).unwrap_or(0);
        let looked =
            search.look(&place.parent, &place.name, &itself.path, from, &mut page, cancel)?;
        return Ok(page.finish(looked.err()));
    }
    let mut walk = root.walk(&path, cancel)?;
    if let Some(SearchCursor { path: after, line }) = &call.after {
        let below = below(&path, after)?;
        if let Some(line) = line {
            let (parent, name) = path.join(below).split()?;
            // A file that is gone has no more lines.
            if let Ok(parent) = root.open_directory(&parent)
                && let Err(full) = search.look(&parent, &name, after, *line, &mut page, cancel)?
            {
                return Ok(page.finish(Some(full)));
            }
        }
        walk.skip_to(below);
    }
    while let Some(name) = walk.next()? {
        let stat = match statat(walk.directory(), name.as_slice(), super::root::NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(refused(path.join(walk.path()), errno).into()),
        };
        let is_directory = status::file_type(&stat) == FileType::Directory;
        if search.excludes(walk.path(), &name) || (is_directory && !call.git && name == b".git") {
            continue;
        }
        let Some(found) = path.join(walk.path()).absolute() else {
            page.tally.unreadable += 1;
            continue;
        };
        if search.includes(walk.path(), &name) {
            let parent = walk.directory();
            if let Err(full) = search.look(parent, &name, &found, 0, &mut page, cancel)? {
                return Ok(page.finish(Some(full)));
            }
        }
        if is_directory {
            match walk.enter() {
                Entered::Yes | Entered::Gone => {}
                Entered::Unreadable(_) | Entered::TooDeep => page.tally.unreadable += 1,
            }
        }
    }
    Ok(page.finish(None))
}

/// What is searched for.
struct Search<'a> {
    needle: Option<Needle>,
    include: Option<Globs>,
    exclude: Option<Globs>,
    call: &'a FileSearch,
}

/// Globs for names, and globs for paths.
struct Globs {
    names: GlobSet,
    paths: GlobSet,
}

impl<'a> Search<'a> {
    fn new(call: &'a FileSearch) -> Result<Self, AgentError> {
        Ok(Self {
            needle: call.pattern.as_ref().map(Needle::new).transpose()?,
            include: Globs::new(&call.include)?,
            exclude: Globs::new(&call.exclude)?,
            call,
        })
    }

    fn includes(&self, path: &[u8], name: &[u8]) -> bool {
        self.include.as_ref().is_none_or(|globs| globs.match_any(path, name))
    }

    fn excludes(&self, path: &[u8], name: &[u8]) -> bool {
        self.exclude.as_ref().is_some_and(|globs| globs.match_any(path, name))
    }

    /// Looks at something whose name matches, from the line after this one on.
    /// `Err` is where the page was full.
    fn look(
        &self,
        parent: impl AsFd,
        name: &[u8],
        path: &GuestPath,
        from: u64,
        page: &mut Page,
        cancel: &Cancel,
    ) -> Result<Result<(), SearchCursor>, Stop> {
        let Some(needle) = &self.needle else {
            page.tally.files += 1;
            return Ok(page.add(path, None));
        };
        let Some(file) = self.open(parent, name, page) else { return Ok(Ok(())) };
        let searched =
            needle.search(file.into(), from, cancel, |line| page.add(path, Some(line)))?;
        match searched {
            lines::Searched::All => page.tally.files += 1,
            lines::Searched::Binary => page.tally.binary += 1,
            lines::Searched::Unreadable => page.tally.unreadable += 1,
            lines::Searched::Full(full) => return Ok(Err(full)),
        }
        Ok(Ok(()))
    }

    /// A regular file that is not too long.
    fn open(&self, parent: impl AsFd, name: &[u8], page: &mut Page) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(parent, name, flags | OFlags::NOCTTY, Mode::empty()) {
            Ok(file) => file,
            // A symlink, a socket, or gone: nothing with lines.
            Err(Errno::LOOP | Errno::NXIO | Errno::NOENT) => return None,
            Err(_) => {
                page.tally.unreadable += 1;
                return None;
            }
        };
        let stat = fstat(&file).ok()?;
        if status::file_type(&stat) != FileType::File {
            return None;
        }
        if status::size(&stat) > self.call.max_file_bytes {
            page.tally.too_large += 1;
            return None;
        }
        Some(file)
    }
}

impl Globs {
    /// `None` of none.
    fn new(patterns: &[String]) -> Result<Option<Self>, AgentError> {
        if patterns.is_empty() {
            return Ok(None);
        }
        if patterns.len() > GLOBS_MAX || patterns.iter().any(|glob| glob.len() > GLOB_MAX) {
            return Err(invalid(format!(
                "at most {GLOBS_MAX} globs of {GLOB_MAX} bytes are taken"
            )));
        }
        let (paths, names): (Vec<_>, Vec<_>) = patterns.iter().partition(|glob| glob.contains('/'));
        Ok(Some(Self { names: glob_set(&names)?, paths: glob_set(&paths)? }))
    }

    fn match_any(&self, path: &[u8], name: &[u8]) -> bool {
        self.names.is_match(Path::new(OsStr::from_bytes(name)))
            || self.paths.is_match(Path::new(OsStr::from_bytes(path)))
    }
}

fn glob_set(patterns: &[&String]) -> Result<GlobSet, AgentError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let pattern = pattern.strip_prefix('/').unwrap_or(pattern);
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        set.add(glob.map_err(|error| invalid(error.to_string()))?);
    }
    set.build().map_err(|error| invalid(error.to_string()))
}

/// What was found, as far as it fits.
struct Page {
    matches: Vec<Match>,
    held: usize,
    limit: usize,
    tally: SearchTally,
}

impl Page {
    fn new(limit: u32) -> Self {
        let limit = (limit as usize).max(1);
        Self { matches: Vec::new(), held: 0, limit, tally: SearchTally::default() }
    }

    /// Adds a match; `Err` is the last one that fitted.
    fn add(&mut self, path: &GuestPath, line: Option<MatchedLine>) -> Result<(), SearchCursor> {
        let size = path.as_bytes().len()
            + line.as_ref().map_or(0, |line| line.text.0.len())
            + MATCH_OVERHEAD;
        let is_full = self.matches.len() >= self.limit || self.held + size > PAGE_MAX;
        if let Some(last) = self.matches.last().filter(|_| is_full) {
            let is_same = last.path == *path;
            let line = last.line.as_ref().filter(|_| is_same).map(|line| line.number);
            return Err(SearchCursor { path: last.path.clone(), line });
        }
        self.held += size;
        self.matches.push(Match { path: path.clone(), line });
        Ok(())
    }

    fn finish(self, next: Option<SearchCursor>) -> FileSearched {
        FileSearched { matches: self.matches, next, tally: self.tally }
    }
}
