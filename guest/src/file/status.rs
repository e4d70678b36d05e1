//! One entry of the tree.

use super::fault::refused;
use super::root::{NOFOLLOW, Root, TreePath};
use crate::beneath;
use crate::work::{Cancel, Stop};
use pyro_protocol::file::{FileEntry, FileStat, FileTime, FileType};
use pyro_protocol::{AgentError, ByteString};
use rustix::fs::{Stat, fstat, readlinkat, statat};
use rustix::io::Errno;
use std::os::fd::AsFd;

/// Answers `FileStat`.
pub(super) fn run(root: &Root, call: &FileStat, _: &Cancel) -> Result<FileEntry, Stop> {
    Ok(look(root, &root.path(&call.path)?)?)
}

/// What a path names, itself.
pub(crate) fn look(root: &Root, path: &TreePath) -> Result<FileEntry, AgentError> {
    let found = if path.is_root() || beneath::split(path.as_bytes()).1 == b".." {
        let directory = root.open_directory(path)?;
        fstat(&directory).map(|stat| entry(path, &stat, None))
    } else {
        let place = root.place(path)?;
        at(&place.parent, &place.name, path)
    };
    found.map_err(|errno| refused(path, errno))?.ok_or_else(|| refused(path, Errno::NAMETOOLONG))
}

/// What a directory has under a name; `None` when its path is too long to be
/// told.
pub(crate) fn at(
    directory: impl AsFd,
    name: &[u8],
    path: &TreePath,
) -> Result<Option<FileEntry>, Errno> {
    let stat = statat(&directory, name, NOFOLLOW)?;
    let target = match file_type(&stat) {
        FileType::Symlink => Some(readlinkat(&directory, name, Vec::new())?.into_bytes()),
        FileType::File
        | FileType::Directory
        | FileType::Fifo
        | FileType::Socket
        | FileType::Device => None,
    };
    Ok(entry(path, &stat, target))
}

fn entry(path: &TreePath, stat: &Stat, target: Option<Vec<u8>>) -> Option<FileEntry> {
    let file_type = file_type(stat);
    Some(FileEntry {
        path: path.absolute()?,
        file_type,
        size_bytes: match (file_type, &target) {
            (FileType::File, _) => size(stat),
            (_, Some(target)) => target.len() as u64,
            (_, None) => 0,
        },
        mode: mode(stat),
        modified: modified(stat),
        links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        gid: stat.st_gid,
        link_target: target.map(ByteString),
    })
}

/// What something is.
pub(crate) fn file_type(stat: &Stat) -> FileType {
    match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::RegularFile => FileType::File,
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::Fifo => FileType::Fifo,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::CharacterDevice
        | rustix::fs::FileType::BlockDevice
        | rustix::fs::FileType::Unknown => FileType::Device,
    }
}

/// Its permissions with the set-id and sticky bits.
pub(crate) fn mode(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// How long it is.
pub(crate) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// When it was last modified.
pub(crate) fn modified(stat: &Stat) -> FileTime {
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    FileTime { seconds: stat.st_mtime, nanoseconds }
}
