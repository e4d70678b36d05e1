//! The names in a directory, in order, however many there are.

use rustix::fs::Dir;
use std::collections::BinaryHeap;
use std::os::fd::AsFd;

/// What a name takes beside its bytes.
const OVERHEAD: usize = 32;

/// Even without room a walk goes on, by so many names at a time.
const LEAST: usize = 16;

/// The next names after `after`, ascending: as many as fit into `room` bytes;
/// and whether there are more. A directory with more names than fit is read
/// once for each time it is asked.
pub(super) fn next(
    directory: impl AsFd,
    after: Option<&[u8]>,
    room: usize,
) -> rustix::io::Result<(Vec<Vec<u8>>, bool)> {
    let mut kept: BinaryHeap<Vec<u8>> = BinaryHeap::new();
    let (mut held, mut more) = (0, false);
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") || after.is_some_and(|after| name <= after) {
            continue;
        }
        if more && kept.peek().is_some_and(|last| name >= last.as_slice()) {
            continue;
        }
        held += name.len() + OVERHEAD;
        kept.push(name.to_vec());
        while held > room && kept.len() > LEAST {
            held -= kept.pop().map_or(0, |last| last.len() + OVERHEAD);
            more = true;
        }
    }
    Ok((kept.into_sorted_vec(), more))
}

/// What names of this many bytes take.
pub(super) fn room_of(names: &[Vec<u8>]) -> usize {
    names.iter().map(|name| name.len() + OVERHEAD).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

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
                let (names, rest) = next(&opened, seen.last().map(Vec::as_slice), room).unwrap();
                assert!(names.len() <= LEAST || room_of(&names) <= room);
                seen.extend(names);
                more = rest;
            }
            assert_eq!(seen, expected);
        }
    }
}
