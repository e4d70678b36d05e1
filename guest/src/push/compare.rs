//! What the source has beside what is there.

mod level;

use super::plan::{Deed, Obstacle, Plan, Planned, Seen, Was};
use super::spool::{Bytes, Log, Numbers};
use super::{refused, spool, system};
use crate::beneath;
use crate::commit::Commits;
use crate::file::fault::invalid;
use crate::file::root::{NOFOLLOW, TreePath};
use crate::file::status;
use crate::work::Stop;
use level::{Beside, Level, Wanted};
use pyro_protocol::file::FileType;
use pyro_protocol::piece::Piece;
use pyro_protocol::push::{
    ANSWER_COMPARE, ANSWER_SAME, ANSWER_SEND, Push, PushCompared, PushEntry, PushKind,
};
use pyro_protocol::transfer::Incoming;
use pyro_protocol::{AgentError, AgentErrorKind, ByteString};
use rustix::fs::{Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Compares the entries, as they come, with what is there.
pub(super) fn run(commits: Arc<Commits>, call: &Push, entries: Incoming) -> Result<Plan, Stop> {
    let mut comparing = Comparing {
        planned: Log::new(spool(&commits)?),
        answers: Bytes::new(spool(&commits)?),
        asked: Numbers::new(spool(&commits)?),
        compared: PushCompared { entries: 0, open: 0 },
        files: 0,
        levels: Vec::new(),
        last: Vec::new(),
        dest: TreePath::new(&call.dest)?.as_bytes().to_vec(),
        call,
        commits: &commits,
    };
    let mut entries = entries.pieces::<PushEntry>();
    while let Some(piece) = entries.piece()? {
        let Piece::Entry(entry) = piece else { return Err(out_of_order().into()) };
        comparing.entry(entry)?;
    }
    comparing.leave(0)?;
    if comparing.compared.entries == 0 {
        return Err(out_of_order().into());
    }
    let Comparing { planned, answers, compared, .. } = comparing;
    let (planned, answers) = (planned.finish()?, answers.finish()?);
    Ok(Plan { commits, compared, planned, answers })
}

struct Comparing<'a> {
    call: &'a Push,
    commits: &'a Arc<Commits>,
    /// Below the tree's root.
    dest: Vec<u8>,
    planned: Log<Planned>,
    answers: Bytes,
    /// For each file the number under which it was asked for, and one more.
    asked: Numbers,
    compared: PushCompared,
    files: u64,
    /// The directories that the last entry is in.
    levels: Vec<Level>,
    /// The last entry's path.
    last: Vec<u8>,
}

impl Comparing<'_> {
    fn entry(&mut self, entry: PushEntry) -> Result<(), Stop> {
        self.compared.entries += 1;
        let path = entry.path.0.as_slice();
        if path.is_empty() {
            return match entry.kind {
                PushKind::Directory if self.levels.is_empty() => self.root(entry.mode),
                PushKind::Directory
                | PushKind::File { .. }
                | PushKind::Symlink(_)
                | PushKind::HardLink { .. } => Err(out_of_order().into()),
            };
        }
        beneath::check(path).map_err(|error| system("an entry", &error))?;
        if !level::in_order(&self.last, path) {
            return Err(out_of_order().into());
        }
        let (parent, name) = beneath::split(path);
        while self.levels.last().is_some_and(|level| level.path != parent) {
            self.leave(self.levels.len() - 1)?;
        }
        let Some(level) = self.levels.last_mut() else { return Err(out_of_order().into()) };
        if self.call.delete {
            level.beside.pass(name, &mut self.planned, &mut level.changed)?;
        }
        self.last = path.to_vec();
        let there = self.there(name)?;
        match entry.kind {
            PushKind::Directory => self.directory(path, name, there, &entry),
            PushKind::File { size_bytes } => self.file(path, name, there, &entry, size_bytes),
            PushKind::Symlink(ref target) => self.symlink(path, name, there, &entry, target),
            PushKind::HardLink { path: ref first, file } => {
                self.hard_link(path, there, &first.0, file)
            }
        }
    }

    /// The directory that becomes like the source. It keeps its own mode and
    /// time if it is there.
    fn root(&mut self, mode: u32) -> Result<(), Stop> {
        let dest = self.dest.clone();
        let mut made = false;
        for end in ends(&dest) {
            match beneath::directory(self.commits.tree(), &dest[..end]) {
                Ok(_) if !made => {}
                Ok(_) => return Err(changed_meanwhile().into()),
                Err(Errno::NOENT) => {
                    made = true;
                    let mode = if end == dest.len() { mode } else { 0o755 };
                    let deed = Deed::MakeDirectory { mode };
                    self.plan(dest[..end].to_vec(), Seen::Nothing, deed)?;
                }
                Err(Errno::LOOP) => {
                    let text = format!("{} goes through a symlink", shown(&dest[..end]));
                    return Err(AgentError::new(AgentErrorKind::OutOfTree, text).into());
                }
                Err(Errno::NOTDIR) => {
                    let text = format!("{} is there and is no directory", shown(&dest[..end]));
                    return Err(AgentError::new(AgentErrorKind::Conflict, text).into());
                }
                Err(errno) => return Err(refused(&dest[..end], errno).into()),
            }
        }
        let directory = if made {
            None
        } else {
            let opened = beneath::directory(self.commits.tree(), &dest);
            Some(opened.map_err(|errno| refused(&dest, errno))?)
        };
        self.enter(Vec::new(), directory, None)
    }

    fn directory(
        &mut self,
        path: &[u8],
        name: &[u8],
        there: Option<Stat>,
        entry: &PushEntry,
    ) -> Result<(), Stop> {
        let seen = Seen::of(there.as_ref());
        let (directory, mode) = match there {
            Some(stat) if seen == Seen::Directory => {
                (Some(self.open(path, name)?), Some(status::mode(&stat)))
            }
            Some(_) => {
                if !self.call.delete {
                    let text = format!("{} is in the way of a directory", self.shown(path));
                    return Err(AgentError::new(AgentErrorKind::Conflict, text).into());
                }
                self.plan(self.target(path), seen, Deed::Clear(Obstacle::Name))?;
                self.plan(self.target(path), seen, Deed::MakeDirectory { mode: entry.mode })?;
                (None, None)
            }
            None => {
                self.plan(self.target(path), seen, Deed::MakeDirectory { mode: entry.mode })?;
                (None, None)
            }
        };
        let mode = mode.filter(|mode| *mode != entry.mode).map(|_| entry.mode);
        self.enter(path.to_vec(), directory, Some(Wanted { seen, mode, modified: entry.modified }))
    }

    fn file(
        &mut self,
        path: &[u8],
        name: &[u8],
        there: Option<Stat>,
        entry: &PushEntry,
        size: u64,
    ) -> Result<(), Stop> {
        let seen = Seen::of(there.as_ref());
        let was = match &there {
            None => Was::Nothing,
            Some(stat) => match status::file_type(stat) {
                FileType::File if status::size(stat) == size => {
                    Was::Alike { mode: status::mode(stat) }
                }
                FileType::Directory => {
                    self.clear(path, name)?;
                    Was::Another
                }
                FileType::File
                | FileType::Symlink
                | FileType::Fifo
                | FileType::Socket
                | FileType::Device => Was::Another,
            },
        };
        let file = self.files;
        self.files += 1;
        let is_of_its_time =
            there.as_ref().is_some_and(|stat| status::modified(stat) == entry.modified);
        match was {
            Was::Alike { mode } if is_of_its_time && !self.call.checksum => {
                self.answers.push(&[ANSWER_SAME])?;
                if mode == entry.mode {
                    return Ok(());
                }
                return self.plan(self.target(path), seen, Deed::Mode(entry.mode));
            }
            Was::Alike { .. } => {
                self.answers.push(&[ANSWER_COMPARE])?;
                let digest = self.digest(path, name)?;
                self.answers.push(&digest)?;
            }
            Was::Nothing | Was::Another | Was::Linked => self.answers.push(&[ANSWER_SEND])?,
        }
        let number = self.compared.open;
        self.compared.open += 1;
        self.asked.set(file, number + 1)?;
        self.change(self.target(path), seen, Deed::File { number, was, mode: entry.mode })
    }

    fn symlink(
        &mut self,
        path: &[u8],
        name: &[u8],
        there: Option<Stat>,
        entry: &PushEntry,
        target: &ByteString,
    ) -> Result<(), Stop> {
        let seen = Seen::of(there.as_ref());
        let was = match there {
            None => Was::Nothing,
            Some(stat) => match status::file_type(&stat) {
                FileType::Symlink if self.link_target(path, name)? == target.0 => return Ok(()),
                FileType::Directory => {
                    self.clear(path, name)?;
                    Was::Another
                }
                FileType::File
                | FileType::Symlink
                | FileType::Fifo
                | FileType::Socket
                | FileType::Device => Was::Another,
            },
        };
        let (target, modified) = (target.clone(), entry.modified);
        self.change(self.target(path), seen, Deed::Symlink { target, modified, was })
    }

    fn hard_link(
        &mut self,
        path: &[u8],
        there: Option<Stat>,
        first: &[u8],
        file: u64,
    ) -> Result<(), Stop> {
        beneath::check(first).map_err(|error| system("an entry", &error))?;
        if file >= self.files {
            return Err(out_of_order().into());
        }
        let asked = self.asked.get(file)?.checked_sub(1);
        let first = self.target(first);
        let seen = Seen::of(there.as_ref());
        let was = match there {
            None => Was::Nothing,
            Some(stat) => {
                if status::file_type(&stat) == FileType::Directory {
                    let (_, name) = beneath::split(path);
                    self.clear(path, name)?;
                }
                match self.identity(&first) == Some(identity(&stat)) {
                    true if asked.is_none() => return Ok(()),
                    true => Was::Linked,
                    false => Was::Another,
                }
            }
        };
        let first = ByteString(first);
        self.change(self.target(path), seen, Deed::HardLink { first, asked, was })
    }

    /// What the directory has under a name.
    fn there(&self, name: &[u8]) -> Result<Option<Stat>, Stop> {
        let Some(directory) = self.levels.last().and_then(|level| level.directory.as_ref()) else {
            return Ok(None);
        };
        match statat(directory, name, NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(refused(&self.target(name), errno).into()),
        }
    }

    fn open(&self, path: &[u8], name: &[u8]) -> Result<OwnedFd, Stop> {
        self.open_as(path, name, OFlags::DIRECTORY)
    }

    fn open_as(&self, path: &[u8], name: &[u8], flags: OFlags) -> Result<OwnedFd, Stop> {
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let directory = self.levels.last().and_then(|level| level.directory.as_ref());
        let opened = directory
            .ok_or(Errno::NOENT)
            .and_then(|directory| openat(directory, name, flags, Mode::empty()));
        opened.map_err(|errno| refused(&self.target(path), errno).into())
    }

    /// The digest of a file that is there.
    fn digest(&self, path: &[u8], name: &[u8]) -> Result<[u8; 32], Stop> {
        let file = File::from(self.open_as(path, name, OFlags::empty())?);
        let mut hasher = blake3::Hasher::new();
        match hasher.update_reader(file) {
            Ok(_) => Ok(*hasher.finalize().as_bytes()),
            Err(error) => Err(system(self.shown(path), &error)),
        }
    }

    fn link_target(&self, path: &[u8], name: &[u8]) -> Result<Vec<u8>, Stop> {
        let directory = self.levels.last().and_then(|level| level.directory.as_ref());
        let read = directory
            .ok_or(Errno::NOENT)
            .and_then(|directory| readlinkat(directory, name, Vec::new()));
        let target = read.map_err(|errno| refused(&self.target(path), errno))?;
        Ok(target.into_bytes())
    }

    fn identity(&self, path: &[u8]) -> Option<(u64, u64)> {
        let (parent, name) = beneath::parent(self.commits.tree(), path).ok()?;
        statat(&parent, name, NOFOLLOW).ok().map(|stat| identity(&stat))
    }

    /// A directory is where something else is to be: an empty one goes, one with
    /// content only if that was asked for.
    fn clear(&mut self, path: &[u8], name: &[u8]) -> Result<(), Stop> {
        let mut obstacle = Obstacle::Tree;
        if !self.call.delete {
            obstacle = Obstacle::Empty;
            let directory = self.open(path, name)?;
            let content = crate::file::names::page(std::os::fd::AsFd::as_fd(&directory), b"", 1);
            let content = content.map_err(|errno| refused(&self.target(path), errno))?;
            if !content.names.is_empty() {
                let text = format!("{} is a directory with content", self.shown(path));
                return Err(AgentError::new(AgentErrorKind::Conflict, text).into());
            }
        }
        self.plan(self.target(path), Seen::Directory, Deed::Clear(obstacle))
    }

    fn enter(
        &mut self,
        path: Vec<u8>,
        directory: Option<OwnedFd>,
        wanted: Option<Wanted>,
    ) -> Result<(), Stop> {
        let hides = self.dest.is_empty() && path.is_empty();
        let target = self.target(&path);
        let commits = hides.then(|| self.commits.clone());
        let (listed, budget) =
            (directory.as_ref().filter(|_| self.call.delete), level::budget(&self.levels));
        let beside = Beside::new(listed, target, budget, commits)?;
        if let (Some(level), false) = (self.levels.last_mut(), directory.is_some()) {
            level.changed = true;
        }
        self.levels.push(Level { path, directory, beside, wanted, changed: false });
        Ok(())
    }

    /// Leaves directories until so many are left: what they have and the source
    /// does not goes, and they get their own mode and, if anything in them
    /// changes, time.
    fn leave(&mut self, depth: usize) -> Result<(), Stop> {
        while self.levels.len() > depth {
            let Some(mut level) = self.levels.pop() else { break };
            if self.call.delete {
                level.beside.rest(&mut self.planned, &mut level.changed)?;
            }
            let Some(Wanted { seen, mode, modified }) = level.wanted else { continue };
            if let Some(mode) = mode {
                self.plan(self.target(&level.path), seen, Deed::Mode(mode))?;
            }
            if level.changed || level.directory.is_none() {
                self.plan(self.target(&level.path), seen, Deed::Modified(modified))?;
            }
        }
        Ok(())
    }

    /// A path of the source below the tree's root.
    fn target(&self, path: &[u8]) -> Vec<u8> {
        match (self.dest.is_empty(), path.is_empty()) {
            (true, _) => path.to_vec(),
            (false, true) => self.dest.clone(),
            (false, false) => [self.dest.as_slice(), b"/", path].concat(),
        }
    }

    fn shown(&self, path: &[u8]) -> String {
        shown(&self.target(path))
    }

    /// As [`Self::plan`], for what changes the directory that it is in.
    fn change(&mut self, path: Vec<u8>, seen: Seen, deed: Deed) -> Result<(), Stop> {
        if let Some(level) = self.levels.last_mut() {
            level.changed = true;
        }
        self.plan(path, seen, deed)
    }

    fn plan(&mut self, path: Vec<u8>, seen: Seen, deed: Deed) -> Result<(), Stop> {
        beneath::check(&path).map_err(|error| system("an entry", &error))?;
        self.planned.push(&Planned { path: ByteString(path), seen, deed })
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Where the names of a path end.
fn ends(path: &[u8]) -> Vec<usize> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let mut ends: Vec<_> = slashes.map(|(at, _)| at).collect();
    if !path.is_empty() {
        ends.push(path.len());
    }
    ends
}

fn shown(path: &[u8]) -> String {
    format!("/workspace/{}", String::from_utf8_lossy(path))
}

fn out_of_order() -> AgentError {
    invalid("the entries of the push are not in the order of a tree")
}

fn changed_meanwhile() -> AgentError {
    AgentError::new(AgentErrorKind::Conflict, "the destination was made meanwhile; push again")
}
