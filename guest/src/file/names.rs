//! The names in a directory, in order, however many there are.

use rustix::fs::{RawDir, SeekFrom, seek};
use rustix::io::Errno;
use std::collections::BinaryHeap;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

/// What the kernel gives at a time.
const BUFFER: usize = 16 * 1024;

/// What a name takes in memory beside its bytes.
const OVERHEAD: usize = 2 * size_of::<Vec<u8>>();

/// Even with no room a walk goes on, by so many names at a time.
const LEAST: usize = 16;

/// The first names of a directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Without `.` and `..`.
    pub(crate) names: Vec<Vec<u8>>,
    /// Whether there are others after them.
    pub(crate) more: bool,
}

/// The names after this one, ascending: as many as fit into the budget of bytes,
/// and a few without any. Reads the whole directory, so a huge one is read once per page.
pub(crate) fn page(directory: BorrowedFd<'_>, after: &[u8], budget: usize) -> Result<Page, Errno> {
    seek(directory, SeekFrom::Start(0))?;
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
    let mut entries = RawDir::new(directory, &mut buffer);
    // The last of the names is on top, to make room for one before it.
    let mut first = BinaryHeap::<Vec<u8>>::new();
    let (mut held, mut more) = (0, false);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let is_late = more && first.peek().is_some_and(|last| name >= last.as_slice());
        if name <= after || matches!(name, b"." | b"..") || is_late {
            continue;
        }
        held += name.len() + OVERHEAD;
        first.push(name.to_vec());
        while held > budget && first.len() > LEAST {
            held -= first.pop().map_or(0, |last| last.len() + OVERHEAD);
            more = true;
        }
    }
    Ok(Page { names: first.into_sorted_vec(), more })
}

/// What names of this many bytes take.
pub(crate) fn room_of(names: &[Vec<u8>]) -> usize {
    names.iter().map(|name| name.len() + OVERHEAD).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn all_names_come_in_order_whatever_the_room() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..500 {
            std::fs::write(directory.path().join(format!("{:x}", number * 7919 % 500)), "")
                .unwrap();
        }
        let mut expected: Vec<_> = (0..500).map(|n| format!("{n:x}").into_bytes()).collect();
        expected.sort();
        for room in [0, 1000, 1_000_000] {
            let opened = std::fs::File::open(directory.path()).unwrap();
            let mut seen: Vec<Vec<u8>> = Vec::new();
            let mut more = true;
            while more {
                let Page { names, more: rest } =
                    page(opened.as_fd(), seen.last().map_or(b"", Vec::as_slice), room).unwrap();
                assert!(names.len() <= LEAST || room_of(&names) <= room);
                seen.extend(names);
                more = rest;
            }
            assert_eq!(seen, expected);
        }
    }
}
