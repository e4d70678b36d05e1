//! The last of what one stream of a kept process has carried, in a file.
//!
//! The file's offsets are the stream's cursors: what is too old becomes a hole
//! at its head, and no cursor is ever translated. So the file alone says what is
//! kept, also to an agent that comes after: its length is the stream's, and its
//! first data are the oldest byte.

use super::shelf::Shelf;
use crate::process::collect::{Drained, drain};
use pyro_protocol::ByteString;
use pyro_protocol::kept::Slice;
use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much more than what is to be retained may pile up: a hole is made once
/// for so many bytes, not for each write.
const SLACK: u64 = 1024 * 1024;

/// Holes begin and end where every file system's blocks do, so that the first
/// data of a file are the oldest byte and not the zeros before it.
const BLOCK: u64 = 4096;

/// One stream's file. Its methods block.
pub(crate) struct Spool {
    shelf: Arc<Shelf>,
    name: String,
    retained: u64,
    /// Held while the file is touched: nobody reads what is being given up.
    extent: Mutex<Extent>,
}

/// What is kept of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The oldest byte that is kept. Beyond `end` when a failed write took the
    /// rest of a block along.
    pub(crate) oldest: u64,
    /// How many bytes there have been.
    pub(crate) end: u64,
}

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// The stream has not come that far.
    #[error("the cursor {cursor} is beyond the {end} bytes written so far")]
    Beyond { cursor: u64, end: u64 },
    /// The file cannot be read.
    #[error("{0}")]
    File(#[from] io::Error),
}

impl Spool {
    /// An empty one; its file is there.
    pub(crate) fn new(shelf: Arc<Shelf>, name: String, retained: u64) -> Self {
        Self { shelf, name, retained, extent: Mutex::default() }
    }

    /// One that an agent before this one has filled.
    pub(super) fn reopen(shelf: Arc<Shelf>, name: String, retained: u64) -> io::Result<Self> {
        let file = shelf.open(&name, OFlags::RDONLY, Mode::empty())?;
        let end = File::from(file.try_clone()?).metadata()?.len();
        let oldest = match rustix::fs::seek(&file, SeekFrom::Data(0)) {
            Ok(oldest) => oldest,
            // There are none.
            Err(Errno::NXIO) => end,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { shelf, name, retained, extent: Mutex::new(Extent { oldest, end }) })
    }

    /// What is kept.
    pub(crate) fn extent(&self) -> Extent {
        *self.lock()
    }

    /// Takes what is in a pipe, up to `most` bytes. Whatever becomes of the
    /// file, the pipe is drained: a full disk stops no program. Bytes that
    /// cannot be written are gone, and those before them too.
    pub(super) fn drain(&self, pipe: &OwnedFd, most: u64) -> (Extent, Drained) {
        let mut extent = self.lock();
        let file = self.file();
        let drained = drain(pipe, most, |bytes| self.append(&mut extent, file.as_ref(), bytes));
        (*extent, drained)
    }

    /// Adds bytes, as [`Spool::drain`] does.
    pub(crate) fn push(&self, bytes: &[u8]) -> Extent {
        let mut extent = self.lock();
        self.append(&mut extent, self.file().as_ref(), bytes);
        *extent
    }

    fn file(&self) -> Option<File> {
        self.shelf.open(&self.name, OFlags::WRONLY, Mode::empty()).map(File::from).ok()
    }

    /// Reads on from a cursor.
    pub(crate) fn read(&self, cursor: u64, most: usize) -> Result<Slice, Unreadable> {
        let extent = self.lock();
        let Extent { oldest, end } = *extent;
        if cursor > end {
            return Err(Unreadable::Beyond { cursor, end });
        }
        let oldest = oldest.min(end);
        let start = cursor.max(oldest);
        let length = usize::try_from(end - start).unwrap_or(most).min(most);
        let mut data = vec![0; length];
        if length > 0 {
            let file = self.shelf.open(&self.name, OFlags::RDONLY, Mode::empty())?;
            File::from(file).read_exact_at(&mut data, start)?;
        }
        Ok(Slice { oldest, start, data: ByteString(data), end })
    }

    fn append(&self, extent: &mut Extent, file: Option<&File>, bytes: &[u8]) {
        let from = extent.end;
        extent.end = from.saturating_add(bytes.len() as u64);
        let kept = file.is_some_and(|file| self.write(extent, file, from, bytes).is_ok());
        if !kept {
            // Whatever the file holds now, it is no part of the stream.
            extent.oldest = extent.end.next_multiple_of(BLOCK);
            let _ = file.map(|file| file.set_len(0).and_then(|()| file.set_len(extent.end)));
        }
    }

    fn write(&self, extent: &mut Extent, file: &File, from: u64, bytes: &[u8]) -> io::Result<()> {
        // What lies before the oldest is the rest of a block that was lost.
        let start = from.max(extent.oldest.min(extent.end));
        let skipped = usize::try_from(start - from).unwrap_or(usize::MAX);
        let fresh = bytes.get(skipped..).unwrap_or_default();
        if skipped > 0 {
            file.set_len(extent.end)?;
        }
        if file.write_all_at(fresh, start).is_err() {
            // What the stream itself can spare may be enough.
            give_back(extent, file, from)?;
            file.write_all_at(fresh, start)?;
        }
        match extent.end.saturating_sub(extent.oldest) > self.retained + SLACK {
            true => give_back(extent, file, extent.end.saturating_sub(self.retained)),
            false => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Extent> {
        // Nobody panics while holding it; were it so, the numbers are whole.
        self.extent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the disk back what lies before an offset, but for a part of a block.
fn give_back(extent: &mut Extent, file: &File, until: u64) -> io::Result<()> {
    let until = until - until % BLOCK;
    if until > extent.oldest {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // From the first byte on: what lies before the oldest is a hole already.
        rustix::fs::fallocate(file, flags, 0, until)?;
        extent.oldest = until;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    /// Small, so that much is given back.
    const RETAINED: u64 = 8 * 1024;

    struct Stream {
        _directory: tempfile::TempDir,
        shelf: Arc<Shelf>,
        spool: Spool,
        reader: OwnedFd,
        writer: OwnedFd,
    }

    fn stream() -> Stream {
        let directory = tempfile::tempdir().expect("a directory");
        let root = rustix::fs::open(directory.path(), OFlags::DIRECTORY, Mode::empty());
        let shelf = Arc::new(Shelf::within(&root.expect("it opens"), "streams").expect("a shelf"));
        let flags = OFlags::CREATE | OFlags::WRONLY;
        shelf.open("s", flags, Mode::from_raw_mode(0o600)).expect("a file");
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe");
        let spool = Spool::new(shelf.clone(), "s".into(), RETAINED);
        Stream { _directory: directory, shelf, spool, reader, writer }
    }

    impl Stream {
        fn carry(&self, bytes: &[u8]) -> Extent {
            for chunk in bytes.chunks(64 * 1024) {
                assert_eq!(rustix::io::write(&self.writer, chunk), Ok(chunk.len()));
                assert_eq!(self.spool.drain(&self.reader, u64::MAX).1, Drained::Empty);
            }
            self.spool.extent()
        }
    }

    /// Byte `n` of a stream that no shift of itself looks like.
    fn byte(n: u64) -> u8 {
        (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
    }

    fn bytes(from: u64, to: u64) -> Vec<u8> {
        (from..to).map(byte).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 48, ..Default::default() })]

        #[test]
        fn a_cursor_means_the_same_byte_for_ever(
            steps in proptest::collection::vec((0_u64..700_000, any::<proptest::sample::Index>(), 0_usize..20_000), 1..10)
        ) {
            let stream = stream();
            let mut end = 0;
            for (length, at, most) in steps {
                let extent = stream.carry(&bytes(end, end + length));
                end += length;
                prop_assert_eq!(extent.end, end);
                let cursor = at.index(usize::try_from(end).unwrap_or(0) + 1) as u64;
                let slice = stream.spool.read(cursor, most).expect("it reads");
                prop_assert!(slice.end == end && slice.oldest <= end.saturating_sub(RETAINED.min(end)));
                prop_assert!(end - slice.oldest <= RETAINED + SLACK + 64 * 1024);
                prop_assert_eq!(slice.start, cursor.max(slice.oldest));
                let expected = bytes(slice.start, end.min(slice.start + most as u64));
                prop_assert!(slice.data.0 == expected, "other bytes");
                // One who comes after finds the same.
                let again = Spool::reopen(stream.shelf.clone(), "s".into(), RETAINED).expect("it is there");
                prop_assert_eq!(again.extent(), stream.spool.extent());
            }
        }
    }

    #[test]
    fn what_was_not_written_cannot_be_read() {
        let stream = stream();
        stream.carry(b"abc");
        assert!(stream.spool.read(3, 10).expect("the end").data.0.is_empty());
        let beyond = stream.spool.read(4, 10);
        assert!(matches!(beyond, Err(Unreadable::Beyond { cursor: 4, end: 3 })), "{beyond:?}");
        assert!(stream.spool.read(u64::MAX, 10).is_err());
    }

    #[test]
    fn bytes_that_cannot_be_kept_are_said_to_be_gone() {
        let stream = stream();
        stream.carry(&bytes(0, 10_000));
        // As a failing disk: the file is no file any more.
        stream.shelf.remove_file("s").expect("it was there");
        stream.carry(&bytes(10_000, 10_010));
        let slice = stream.spool.read(0, 100).expect("nothing to read, and no error");
        assert_eq!((slice.oldest, slice.start, slice.end), (10_010, 10_010, 10_010));
        // The disk is well again; what follows in the same block stays lost.
        let flags = OFlags::CREATE | OFlags::WRONLY;
        stream.shelf.open("s", flags, Mode::from_raw_mode(0o600)).expect("a file");
        stream.carry(&bytes(10_010, 20_000));
        let slice = stream.spool.read(0, 100_000).expect("it reads");
        assert_eq!((slice.start, slice.end), (12_288, 20_000));
        assert!(slice.data.0 == bytes(12_288, 20_000));
        let again = Spool::reopen(stream.shelf.clone(), "s".into(), RETAINED).expect("there");
        assert_eq!(again.extent(), stream.spool.extent());
    }

    #[test]
    fn a_pipe_that_nobody_writes_to_has_ended() {
        let Stream { spool, reader, writer, _directory, .. } = stream();
        assert_eq!(rustix::io::write(&writer, b"last"), Ok(4));
        drop(writer);
        assert_eq!(spool.drain(&reader, 2), (Extent { oldest: 0, end: 2 }, Drained::Enough));
        assert_eq!(spool.drain(&reader, 9), (Extent { oldest: 0, end: 4 }, Drained::Ended));
    }
}
