//! `Export`: a part of the tree, as a stream of entries and contents.

use crate::file::fault::{refused, wrong_type};
use crate::file::root::{NOFOLLOW, Place, Root, TreePath};
use crate::file::walk::{Entered, Walk};
use crate::file::{self, status};
use crate::guest::Guest;
use crate::server::Connection;
use crate::work::{self, Cancel, Stop};
use crate::xattr;
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::export::{
    Attributes, EXAMPLES_MAX, Export, ExportEnd, ExportEntry, ExportKind, Exporting, XATTRS_MAX,
    Xattr,
};
use pyro_protocol::file::FileType;
use pyro_protocol::piece::PieceSink;
use pyro_protocol::transfer::Outgoing;
use pyro_protocol::{AgentError, ByteString, Lost};
use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags, SeekFrom, Stat, fstat, openat, readlinkat, seek, statat};
use rustix::io::{Errno, pread};
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Files with several names whose first name is remembered, so that the others
/// become links to it. Beyond that, each name is a file of its own: some 300
/// bytes each are 3 MiB.
const LINKED_MAX: usize = 10_000;

/// Answers `Export`: the reply, the stream, the end.
pub(crate) async fn run<R: Fetch, W: Carry>(
    guest: &Guest,
    call: Export,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let root = file::root(guest);
    let opened = work::run(connection, move |_| Ok(Source::open(&root?, &call)?)).await?;
    match opened {
        Err(error) => connection.reply::<Exporting>(Err(error)).await,
        Ok(source) => {
            connection.reply(Ok(Exporting { file_type: source.file_type })).await?;
            work::send(connection, move |outgoing, _| source.send(outgoing)).await
        }
    }
}

/// What is to be exported.
struct Source {
    path: TreePath,
    file_type: FileType,
    at: At,
    attributes: bool,
}

/// Where it is.
enum At {
    /// It is the directory that is walked.
    Directory(OwnedFd, Walk),
    /// It has a name in a directory.
    Place(Place),
}

impl Source {
    fn open(root: &Root, call: &Export) -> Result<Self, AgentError> {
        let path = root.path(&call.path)?;
        let file_type = status::look(root, &path)?.file_type;
        let at = match file_type {
            FileType::Directory => {
                // A host that goes away ends the stream, and with it the walk.
                At::Directory(root.open_directory(&path)?, root.walk(&path, &Cancel::default())?)
            }
            FileType::File | FileType::Symlink => At::Place(root.place(&path)?),
            FileType::Fifo | FileType::Socket | FileType::Device => {
                return Err(wrong_type(format!("{path} is no file, directory or symlink")));
            }
        };
        Ok(Self { path, file_type, at, attributes: call.attributes })
    }

    fn send(self, outgoing: &mut Outgoing) -> Result<ExportEnd, Stop> {
        let mut sending = Sending {
            outgoing,
            path: self.path,
            linked: HashMap::new(),
            attributes: self.attributes,
            end: ExportEnd {
                entries: 0,
                special: 0,
                torn: 0,
                too_deep: 0,
                unattributed: 0,
                examples: Vec::new(),
            },
        };
        match self.at {
            At::Place(place) => sending.one(&place.parent, &place.name, &[]).map(drop)?,
            At::Directory(directory, walk) => sending.tree(directory, walk)?,
        }
        Ok(sending.end)
    }
}

struct Sending<'a> {
    outgoing: &'a mut Outgoing,
    path: TreePath,
    /// Files with several names, by device and inode: the path that was sent.
    linked: HashMap<(u64, u64), Vec<u8>>,
    attributes: bool,
    end: ExportEnd,
}

/// What became of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Directory,
    Other,
}

impl Sending<'_> {
    fn tree(&mut self, directory: OwnedFd, mut walk: Walk) -> Result<(), Stop> {
        let stat = fstat(&directory).map_err(|errno| refused(&self.path, errno))?;
        self.entry(&directory, b".", &[], &stat, ExportKind::Directory)?;
        while let Some(name) = walk.next()? {
            if self.one(walk.directory(), &name, walk.path())? == Sent::Directory {
                match walk.enter() {
                    Entered::Yes | Entered::Gone => {}
                    // As for a file that cannot be read.
                    Entered::Unreadable(errno) => {
                        return Err(refused(self.path.join(walk.path()), errno).into());
                    }
                    Entered::TooDeep => {
                        self.end.too_deep += 1;
                        self.example(walk.path());
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends what has a name in a directory.
    fn one(&mut self, parent: impl AsFd, name: &[u8], path: &[u8]) -> Result<Sent, Stop> {
        let itself = self.path.join(path);
        let said = |errno| refused(&itself, errno);
        let stat = match statat(&parent, name, NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) if !path.is_empty() => return Ok(Sent::Other),
            Err(errno) => return Err(said(errno).into()),
        };
        match status::file_type(&stat) {
            FileType::Directory => {
                self.entry(&parent, name, path, &stat, ExportKind::Directory)?;
                return Ok(Sent::Directory);
            }
            FileType::Symlink => {
                let target = readlinkat(&parent, name, Vec::new()).map_err(said)?;
                let target = ByteString(target.into_bytes());
                self.entry(&parent, name, path, &stat, ExportKind::Symlink(target))?;
            }
            FileType::File => self.file(parent, name, path)?,
            FileType::Fifo | FileType::Socket | FileType::Device => {
                self.end.special += 1;
                self.example(path);
            }
        }
        Ok(Sent::Other)
    }

    fn file(&mut self, parent: impl AsFd, name: &[u8], path: &[u8]) -> Result<(), Stop> {
        let itself = self.path.join(path);
        let said = |errno| refused(&itself, errno);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&parent, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP) if !path.is_empty() => return Ok(()),
            Err(errno) => return Err(said(errno).into()),
        };
        let stat = fstat(&file).map_err(said)?;
        if status::file_type(&stat) != FileType::File {
            // It was a file a moment ago.
            return Ok(());
        }
        if stat.st_nlink > 1 {
            let identity = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.linked.get(&identity) {
                let first = ByteString(first.clone());
                return self.entry(&parent, name, path, &stat, ExportKind::HardLink(first));
            }
            if self.linked.len() < LINKED_MAX {
                self.linked.insert(identity, path.to_vec());
            }
        }
        let kind = ExportKind::File { size_bytes: status::size(&stat) };
        self.entry(&parent, name, path, &stat, kind)?;
        self.content(&file, &stat, path)?;
        let now = fstat(&file).map_err(said)?;
        let identity = |stat: &Stat| (stat.st_size, status::modified(stat));
        if identity(&now) == identity(&stat) {
            self.outgoing.end()?;
        } else {
            self.outgoing.torn()?;
            self.end.torn += 1;
            self.example(path);
        }
        Ok(())
    }

    /// Sends as many bytes as there were when it was opened, or fewer when it
    /// has shrunk.
    fn content(&mut self, file: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<(), Stop> {
        let size = status::size(stat);
        // Whole blocks of 512 bytes: fewer than the size takes means holes.
        let is_sparse = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size;
        let mut at = 0;
        while at < size {
            let end = if is_sparse { self.data(file, &mut at, size)? } else { size };
            while at < end {
                let read = self.outgoing.bytes_appended(end - at, |frame| {
                    loop {
                        match pread(file, spare_capacity(frame), at) {
                            Err(Errno::INTR) => {}
                            read => return read.map(drop),
                        }
                    }
                })?;
                match read {
                    Ok(0) => return Ok(()),
                    Ok(length) => at += length as u64,
                    Err(errno) => return Err(refused(self.path.join(path), errno).into()),
                }
            }
        }
        Ok(())
    }

    /// Sends the hole that is here, if one is; where the data after it ends.
    fn data(&mut self, file: &OwnedFd, at: &mut u64, size: u64) -> Result<u64, Stop> {
        let start = match seek(file, SeekFrom::Data(*at)) {
            Ok(start) => start.min(size),
            Err(Errno::NXIO) => size,
            // Not every file system tells.
            Err(_) => return Ok(size),
        };
        if start > *at {
            self.outgoing.hole(start - *at)?;
            *at = start;
        }
        Ok(seek(file, SeekFrom::Hole(start)).map_or(size, |end| end.min(size)))
    }

    fn entry(
        &mut self,
        parent: impl AsFd,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
        kind: ExportKind,
    ) -> Result<(), Stop> {
        self.end.entries += 1;
        let attributes = match self.attributes {
            true => Some(self.attributes_of(parent, name, path, stat)?),
            false => None,
        };
        let entry = ExportEntry {
            path: ByteString(path.to_vec()),
            mode: status::mode(stat),
            modified: status::modified(stat),
            kind,
            attributes,
        };
        Ok(self.outgoing.entry(&entry)?)
    }

    fn attributes_of(
        &mut self,
        parent: impl AsFd,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
    ) -> Result<Attributes, Stop> {
        let place = format!("/proc/self/fd/{}/", parent.as_fd().as_raw_fd());
        let place = [place.as_bytes(), name].concat();
        let itself = self.path.join(path);
        let (mut xattrs, mut length) = (Vec::new(), 0);
        let said = |errno| refused(&itself, errno);
        for name in xattr::names(&place).map_err(said)? {
            if let Some(value) = xattr::value(&place, &name).map_err(said)? {
                // What tells the two apart when they are encoded.
                length += name.len() + value.len() + 16;
                xattrs.push(Xattr { name: ByteString(name), value: ByteString(value) });
            }
        }
        if length > XATTRS_MAX {
            xattrs.clear();
            self.end.unattributed += 1;
            self.example(path);
        }
        Ok(Attributes { uid: stat.st_uid, gid: stat.st_gid, xattrs })
    }

    fn example(&mut self, path: &[u8]) {
        if self.end.examples.len() < EXAMPLES_MAX {
            self.end.examples.extend(self.path.join(path).absolute());
        }
    }
}
