//! How much there is to copy.

use crate::file::fault::refused;
use crate::file::root::{NOFOLLOW, Root};
use crate::file::status;
use crate::file::walk::Entered;
use crate::work::{Cancel, Stop};
use pyro_protocol::AgentError;
use pyro_protocol::GuestPath;
use pyro_protocol::file::FileType;
use pyro_protocol::inspect::TreeMeasured;
use rustix::fs::{Mode, OFlags, SeekFrom, Stat, fstatvfs, openat, seek, statat};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};

/// What a file's content is stored in.
const BLOCK: u64 = 4096;

/// How much room there is for whoever asks.
pub(super) fn free(directory: BorrowedFd<'_>) -> Result<u64, AgentError> {
    let stat = fstatvfs(directory).map_err(|errno| refused("the workspace's disk", errno))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Walks the whole tree.
pub(super) fn tree(root: &Root, free_bytes: u64, cancel: &Cancel) -> Result<TreeMeasured, Stop> {
    let top = GuestPath::new("/").map_err(|_| refused("/", Errno::INVAL))?;
    let mut walk = root.walk(&root.path(&top)?, cancel)?;
    let mut measured = TreeMeasured { entries: 1, bytes: BLOCK, free_bytes };
    while let Some(name) = walk.next()? {
        let stat = match statat(walk.directory(), name.as_slice(), NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(refused(String::from_utf8_lossy(walk.path()), errno).into()),
        };
        measured.entries += 1;
        let taken = match status::file_type(&stat) {
            FileType::File => {
                // As a part of it for each of its names.
                let content = content(walk.directory(), &name, &stat);
                content.next_multiple_of(BLOCK).div_ceil(stat.st_nlink.max(1))
            }
            FileType::Directory => {
                match walk.enter() {
                    Entered::Yes | Entered::Gone | Entered::Unreadable(_) | Entered::TooDeep => {}
                }
                status::size(&stat).next_multiple_of(BLOCK).max(BLOCK)
            }
            FileType::Symlink | FileType::Fifo | FileType::Socket | FileType::Device => BLOCK,
        };
        measured.bytes = measured.bytes.saturating_add(taken);
    }
    Ok(measured)
}

/// How much of a file is no hole.
fn content(directory: impl AsFd, name: &[u8], stat: &Stat) -> u64 {
    let size = status::size(stat);
    let taken = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    if taken >= size {
        return size;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(directory, name, flags, Mode::empty()) else { return size };
    let (mut at, mut data) = (0, 0_u64);
    while at < size {
        let start = match seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            // Not every file system tells.
            Err(_) => return size,
        };
        let end = seek(&file, SeekFrom::Hole(start)).unwrap_or(size).min(size);
        // Blocks are shared with what is beside them at most.
        data = data.saturating_add(end.saturating_sub(start)).saturating_add(BLOCK);
        at = end.max(start + 1);
    }
    data
}
