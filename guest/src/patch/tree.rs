//! The workspace as a patch finds it.

use crate::beneath;
use pyro_protocol::{AgentError, AgentErrorKind};
use rustix::fs::{FileType, OFlags, readlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Files whose lines are to be changed are read as a whole; larger ones are
/// refused.
pub(super) const FILE_MAX: u64 = 8 * 1024 * 1024;

/// What there is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Original {
    Nothing,
    /// A file or a link.
    Leaf(Leaf),
    Directory,
    /// A pipe, a socket, a device.
    Special,
}

/// A file or link, and what tells whether it is still the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) is_link: bool,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) size: u64,
    /// Not its inode nor when that changed: those are others when the overlay
    /// has copied it.
    modified: (i64, u64),
}

/// Looks at a path. Below a link or a file there is nothing.
pub(super) fn look(tree: BorrowedFd<'_>, path: &[u8]) -> Result<Original, AgentError> {
    let opened = match beneath::open(tree, path, OFlags::PATH) {
        Ok(opened) => opened,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Original::Nothing),
        Err(error) => return Err(system(path, error)),
    };
    let stat = rustix::fs::fstat(&opened).map_err(|error| system(path, error))?;
    let leaf = |is_link| {
        Original::Leaf(Leaf {
            is_link,
            mode: stat.st_mode & 0o7777,
            owner: (stat.st_uid, stat.st_gid),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (stat.st_mtime, stat.st_mtime_nsec),
        })
    };
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => leaf(false),
        FileType::Symlink => leaf(true),
        FileType::Directory => Original::Directory,
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Original::Special,
    })
}

/// Opens a file, which must not be a link.
pub(super) fn open(tree: BorrowedFd<'_>, path: &[u8]) -> Result<File, AgentError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let opened: rustix::io::Result<OwnedFd> = beneath::open(tree, path, flags);
    opened.map(File::from).map_err(|error| system(path, error))
}

/// Where a link leads.
pub(super) fn link(tree: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<u8>, AgentError> {
    let target = beneath::open(tree, path, OFlags::PATH)
        .and_then(|opened| readlinkat(&opened, "", Vec::new()));
    target.map(std::ffi::CString::into_bytes).map_err(|error| system(path, error))
}

/// Reads a whole file, if it is not too large.
pub(super) fn read(file: &File, path: &[u8]) -> Result<Vec<u8>, AgentError> {
    let length = file.metadata().map_err(|error| fault(path, &error))?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(length.min(FILE_MAX)).unwrap_or(0) + 1);
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|error| fault(path, &error))?;
    if bytes.len() as u64 > FILE_MAX {
        let text = format!("{} is larger than {FILE_MAX} bytes", shown(path));
        return Err(AgentError::new(AgentErrorKind::TooLarge, text));
    }
    Ok(bytes)
}

fn system(path: &[u8], error: Errno) -> AgentError {
    fault(path, &error.into())
}

/// The system's refusal, and what of.
pub(super) fn fault(path: &[u8], error: &std::io::Error) -> AgentError {
    let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
    let senseless = [ErrorKind::InvalidData, ErrorKind::InvalidInput];
    let kind = if full.contains(&error.kind()) {
        AgentErrorKind::OutOfResources
    } else if senseless.contains(&error.kind()) {
        AgentErrorKind::InvalidArgument
    } else {
        AgentErrorKind::System
    };
    AgentError::new(kind, format!("{}: {error}", shown(path)))
}

/// A path in a message.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// What does not apply, and why.
pub(super) fn conflict(path: &[u8], why: impl std::fmt::Display) -> AgentError {
    AgentError::new(
        AgentErrorKind::Conflict,
        format!("{}: {why}; nothing was changed", shown(path)),
    )
}
