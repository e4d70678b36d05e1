//! Copies of disks: by reference where the file system can, else of all that was
//! written. Holes stay holes.

use super::room::{Room, Taker};
use super::space;
use crate::error::{Error, ErrorKind, Result};
use rustix::fs::{SeekFrom, copy_file_range, seek};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// What is copied at a time; between two of them a copy can be cut short.
const CHUNK: usize = 8 << 20;

/// What is looked at for being zeros only: a page of memory, a block of a disk.
const BLOCK: usize = 4096;

const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// How a copy was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// It shares its blocks with the original.
    ByReference,
    /// It has blocks of its own.
    InFull,
}

/// Copies a file that is small, but for its holes, to one that is not there yet.
///
/// # Errors
/// When the host's system refuses; then what there is of the copy is left.
pub fn sparse(source: &Path, target: &Path) -> Result<Copied> {
    let (from, to, length) = match open(source, target)? {
        Opened::Copied => return Ok(Copied::ByReference),
        Opened::Empty { from, to, length } => (from, to, length),
    };
    data(&from, &to, length, |_| Ok(()))?;
    Ok(Copied::InFull)
}

/// The same of a disk that guests have filled: if there is room for it, and for as
/// long as there is and it may go on.
///
/// # Errors
/// As [`sparse`], `DiskFull` when there is no room, and `Cancelled` when it may not
/// go on.
pub fn sparse_while(source: &Path, target: &Path, go_on: &dyn Fn() -> bool) -> Result<Copied> {
    let (from, to, length) = match open(source, target)? {
        Opened::Copied => return Ok(Copied::ByReference),
        Opened::Empty { from, to, length } => (from, to, length),
    };
    let taken = space::allocated(&from).map_err(|error| unmade(target, error))?;
    let mut room = Room::for_bytes(to.as_fd(), Taker::DiskCopy, taken)?;
    data(&from, &to, length, |bytes| match go_on() {
        true => room.wrote(bytes),
        false => Err(Error::new(ErrorKind::Cancelled, "the copy of a disk was given up")),
    })?;
    Ok(Copied::InFull)
}

/// A copy that was begun.
enum Opened {
    /// All of it is there, by reference.
    Copied,
    /// Nothing of it is.
    Empty { from: File, to: File, length: u64 },
}

fn open(source: &Path, target: &Path) -> Result<Opened> {
    let opened = || {
        let from = File::open(source)?;
        let to = File::options().write(true).create_new(true).mode(0o600).open(target)?;
        to.set_permissions(fs::Permissions::from_mode(0o600))?;
        io::Result::Ok((from, to))
    };
    let (from, to) = opened().map_err(|error| unmade(target, error))?;
    if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
        return Ok(Opened::Copied);
    }
    let length = from.metadata().map_err(|error| unmade(target, error))?.len();
    Ok(Opened::Empty { from, to, length })
}

fn unmade(target: &Path, error: io::Error) -> Error {
    Error::io(format!("cannot make the disk {}", target.display()), error)
}

/// Copies what was written of a file's first bytes to another; `look` is told of
/// each part before, and may refuse it.
///
/// # Errors
/// When the host's system refuses, and what `look` says.
pub fn data(
    from: &File,
    to: &File,
    length: u64,
    mut look: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let failed = |error| Error::io("cannot copy a disk", error);
    to.set_len(length).map_err(failed)?;
    let mut buffer = Vec::new();
    let mut at = 0;
    let written = |at| next(from, SeekFrom::Data(at)).map_err(failed);
    while let Some(start) = written(at)?.filter(|start| *start < length) {
        let end = next(from, SeekFrom::Hole(start)).map_err(failed)?;
        let end = end.unwrap_or(length).min(length);
        at = start;
        while at < end {
            let chunk = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
            look(chunk as u64)?;
            at += piece(from, to, at, chunk, &mut buffer).map_err(failed)? as u64;
        }
    }
    Ok(())
}

/// The same where zeros were written too: they become holes.
///
/// # Errors
/// As [`data`].
pub fn dug(
    from: &File,
    to: &File,
    length: u64,
    mut look: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let failed = |error| Error::io("cannot copy a file without its zeros", error);
    to.set_len(length).map_err(failed)?;
    let mut buffer = vec![0; CHUNK];
    let written = |at| next(from, SeekFrom::Data(at)).map_err(failed);
    let mut at = 0;
    while let Some(start) = written(at)?.filter(|start| *start < length) {
        let chunk = usize::try_from(length - start).map_or(CHUNK, |left| left.min(CHUNK));
        let bytes = &mut buffer[..chunk];
        from.read_exact_at(bytes, start).map_err(failed)?;
        for run in filled(bytes) {
            look(run.len() as u64)?;
            to.write_all_at(&bytes[run.clone()], start + run.start as u64).map_err(failed)?;
        }
        // Also where there was nothing to write it may be time to stop.
        look(0)?;
        at = start + chunk as u64;
    }
    Ok(())
}

/// Where there is anything but zeros, in pieces as large as can be.
fn filled(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (place, block) in (0..).step_by(BLOCK).zip(bytes.chunks(BLOCK)) {
        let end = place + block.len();
        match runs.last_mut() {
            _ if block == &ZEROS[..block.len()] => {}
            Some(run) if run.end == place => run.end = end,
            Some(_) | None => runs.push(place..end),
        }
    }
    runs
}

/// Copies some of what comes next, and says how much.
fn piece(
    from: &File,
    to: &File,
    at: u64,
    length: usize,
    buffer: &mut Vec<u8>,
) -> io::Result<usize> {
    match in_kernel(from, to, at, length)? {
        // It became shorter meanwhile, or this file system cannot.
        None | Some(0) => {
            buffer.resize(length, 0);
            from.read_exact_at(buffer, at)?;
            to.write_all_at(buffer, at)?;
            Ok(length)
        }
        Some(copied) => Ok(copied),
    }
}

/// Copies without bringing the bytes here; `None` where that cannot be done.
fn in_kernel(from: &File, to: &File, at: u64, length: usize) -> io::Result<Option<usize>> {
    let (mut read_at, mut write_at) = (at, at);
    match copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), length) {
        Ok(copied) => Ok(Some(copied)),
        Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Where the next data or hole is; `None` past the last data.
fn next(file: &File, from: SeekFrom) -> io::Result<Option<u64>> {
    match seek(file, from) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_copy_that_may_not_go_on_ends_between_two_pieces() {
        let home = tempfile::tempdir().expect("a directory");
        let (source, target) = (home.path().join("source"), home.path().join("target"));
        fs::write(&source, vec![7; 3 * CHUNK]).expect("written");
        let asked = Cell::new(0);
        let copied = sparse_while(&source, &target, &|| {
            asked.set(asked.get() + 1);
            asked.get() < 2
        });
        match copied {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled),
            // There was nothing to give up.
            Ok(copied) => assert_eq!(copied, Copied::ByReference),
        }
    }

    #[test]
    fn a_copy_never_replaces_anything() {
        let home = tempfile::tempdir().expect("a directory");
        let (source, target) = (home.path().join("source"), home.path().join("target"));
        fs::write(&source, "new").expect("written");
        fs::write(&target, "old").expect("written");
        assert!(sparse(&source, &target).is_err());
        assert_eq!(fs::read(&target).expect("there"), b"old");
        std::os::unix::fs::symlink("nowhere", home.path().join("link")).expect("linked");
        assert!(sparse(&source, &home.path().join("link")).is_err());
        assert!(sparse(&home.path().join("none"), &home.path().join("other")).is_err());
    }

    /// Pieces of data at places that a file system tells apart, and a length.
    fn pieces() -> impl Strategy<Value = (Vec<(u64, Vec<u8>)>, u64)> {
        let piece = (0_u64..(8 << 20), proptest::collection::vec(1_u8.., 1..9000));
        (proptest::collection::vec(piece, 0..6), 0_u64..(9 << 20))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_copy_has_the_same_bytes_and_the_same_holes((pieces, length) in pieces()) {
            let home = tempfile::tempdir().expect("a directory");
            let (source, target) = (home.path().join("source"), home.path().join("target"));
            let file = File::create(&source).expect("ours");
            for (at, bytes) in &pieces {
                file.write_all_at(bytes, *at).expect("written");
            }
            file.set_len(length).expect("ours");
            sparse(&source, &target).expect("copied");
            prop_assert_eq!(fs::read(&target).expect("there"), fs::read(&source).expect("there"));
            file.sync_all().expect("ours");
            File::open(&target).and_then(|copy| copy.sync_all()).expect("ours");
            let blocks = |path: &Path| path.metadata().expect("there").blocks();
            prop_assert!(blocks(&target) <= blocks(&source) + 64, "holes were filled");
        }

        #[test]
        fn zeros_that_were_written_become_holes((pieces, length) in pieces()) {
            let home = tempfile::tempdir().expect("a directory");
            let (source, target) = (home.path().join("source"), home.path().join("target"));
            let file = File::create(&source).expect("ours");
            // Nothing of it is a hole.
            let length = length.max(1);
            let mut bytes = vec![0; usize::try_from(length).expect("short")];
            for (at, piece) in &pieces {
                let at = usize::try_from(*at).expect("short").min(bytes.len());
                let end = (at + piece.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&piece[..end - at]);
            }
            file.write_all_at(&bytes, 0).expect("written");
            let from = File::open(&source).expect("there");
            let to = File::create_new(&target).expect("made");
            let mut told = 0;
            dug(&from, &to, length, |bytes| { told += bytes; Ok(()) }).expect("copied");
            prop_assert_eq!(fs::read(&target).expect("there"), bytes);
            let most: u64 = pieces.iter().map(|(_, piece)| piece.len() as u64 + 2 * 4096).sum();
            prop_assert!(told <= most, "{told} bytes were written, {most} are not zero");
            to.sync_all().expect("ours");
            let taken = to.metadata().expect("there").blocks() * 512;
            prop_assert!(taken <= most + 64 * 512, "{taken} bytes are taken of {most}");
        }
    }
}
