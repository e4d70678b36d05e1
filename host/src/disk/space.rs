//! The room that a disk takes on the host, and how much of that is its own.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a file takes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// Of blocks that it has.
    pub allocated: u64,
    /// Of those that it shares with no other file: what its end would free.
    pub exclusive: u64,
}

// <linux/fiemap.h>, <linux/fs.h>
const FIEMAP: libc::Ioctl = 0xc020_660bu32 as libc::Ioctl;
const SYNC_FIRST: u32 = 0x1;
const IS_LAST: u32 = 0x1;
const IS_SHARED: u32 = 0x2000;

/// Extents that are asked for at a time.
const AT_ONCE: usize = 256;

#[repr(C)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; AT_ONCE],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    more_reserved: [u32; 3],
}

/// The room that a file takes. Where the file system does not say what is shared,
/// nothing is.
///
/// # Errors
/// When the file cannot be opened.
pub fn of(path: &Path) -> io::Result<Space> {
    let file = File::open(path)?;
    let allocated = allocated(&file)?;
    let exclusive = allocated.saturating_sub(shared(&file).unwrap_or(0));
    Ok(Space { allocated, exclusive })
}

/// What the blocks take that a file has.
pub(super) fn allocated(file: &File) -> io::Result<u64> {
    // Linux counts blocks of 512 bytes, whatever the file system's own are.
    Ok(file.metadata()?.blocks() * 512)
}

fn shared(file: &File) -> io::Result<u64> {
    let nothing = Extent {
        logical: 0,
        physical: 0,
        length: 0,
        reserved: [0; 2],
        flags: 0,
        more_reserved: [0; 3],
    };
    let (mut start, mut shared) = (0, 0);
    loop {
        let mut request = Box::new(Request {
            start,
            length: u64::MAX - start,
            flags: SYNC_FIRST,
            mapped: 0,
            count: AT_ONCE as u32,
            reserved: 0,
            extents: [nothing; AT_ONCE],
        });
        // SAFETY: `request` is as FIEMAP takes it, with room for `count` extents.
        if unsafe { libc::ioctl(file.as_raw_fd(), FIEMAP, &raw mut *request) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mapped = (request.mapped as usize).min(AT_ONCE);
        let extents = &request.extents[..mapped];
        let of_others = extents.iter().filter(|extent| extent.flags & IS_SHARED != 0);
        shared += of_others.map(|extent| extent.length).sum::<u64>();
        match extents.last() {
            Some(last) if last.flags & IS_LAST == 0 && last.length > 0 => {
                start = last.logical.saturating_add(last.length);
            }
            Some(_) | None => return Ok(shared),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_file_of_many_pieces_takes_what_was_written() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("disk");
        let file = File::create(&path).expect("ours");
        // More pieces than are asked for at a time.
        for n in 0..600_u64 {
            file.write_all_at(&[1; 4096], n * 65_536).expect("written");
        }
        file.sync_all().expect("ours");
        let space = of(&path).expect("there");
        assert!((600 * 4096..64 << 20).contains(&space.allocated), "{space:?}");
        assert_eq!(space.exclusive, space.allocated, "nobody else has them");
    }

    #[test]
    fn what_a_copy_shares_is_not_its_own() {
        let home = tempfile::tempdir().expect("a directory");
        let (one, other) = (home.path().join("one"), home.path().join("other"));
        std::fs::write(&one, vec![7; 1 << 20]).expect("written");
        let copied = crate::disk::copy::sparse(&one, &other).expect("copied");
        let space = of(&other).expect("there");
        match copied {
            crate::disk::copy::Copied::ByReference => assert_eq!(space.exclusive, 0),
            crate::disk::copy::Copied::InFull => assert!(space.exclusive >= 1 << 20),
        }
    }
}
