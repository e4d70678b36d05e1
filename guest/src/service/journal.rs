//! What a service wrote to both its streams, in the order in which it was read,
//! each piece with its time. The last of it is in a file of bounded size.
//!
//! ```text
//! record: stream u8 | time i64 | length u32 | bytes      (little endian)
//! ```
//!
//! The file loses its head by and by, and not between records; so some places
//! where a record begins are remembered, with what was written before them.

use crate::clock;
use crate::process::collect::{Drained, drain};
use crate::process::kept::shelf::Shelf;
use crate::process::kept::spool::{Spool, Unreadable};
use pyro_protocol::ByteString;
use pyro_protocol::kept::OutputStream;
use pyro_protocol::service::{LOG_CHUNK_MAX, LOG_RETAINED, LogChunk};
use rustix::fs::{Mode, OFlags};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The bytes of a record before its data.
const HEADER: usize = 13;

/// How much is read at once.
const BATCH: usize = 128 * 1024;

/// A reader that comes too late begins at the next remembered place: one for so
/// many bytes, which makes some eighty in all.
const MARK_EVERY: u64 = 64 * 1024;

// Whatever is read at once has a whole record.
const _: () = assert!(HEADER + LOG_CHUNK_MAX <= BATCH);

/// A service's log. Its methods block.
pub(super) struct Journal {
    shelf: Arc<Shelf>,
    file: String,
    spool: Spool,
    /// Held while the file is touched: both streams write to it.
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    end: Position,
    marks: VecDeque<Position>,
}

/// A place where a record begins, or will: so much of the file, and of each
/// stream, is before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) at: u64,
    stdout: u64,
    stderr: u64,
}

/// Consecutive records.
#[derive(Debug)]
pub(super) struct Batch {
    /// How many bytes of each stream are gone before them.
    pub(super) skipped: [(OutputStream, u64); 2],
    pub(super) chunks: Vec<LogChunk>,
    /// Where to read on.
    pub(super) next: Position,
}

impl Position {
    fn of(&mut self, stream: OutputStream) -> &mut u64 {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }
}

impl Journal {
    /// An empty one.
    pub(super) fn create(shelf: Arc<Shelf>, file: String) -> io::Result<Self> {
        Self::retaining(shelf, file, LOG_RETAINED)
    }

    fn retaining(shelf: Arc<Shelf>, file: String, retained: u64) -> io::Result<Self> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        shelf.open(&file, flags, Mode::from_raw_mode(0o600))?;
        let spool = Spool::new(shelf.clone(), file.clone(), retained);
        Ok(Self { shelf, file, spool, index: Mutex::default() })
    }

    /// Removes its file; what is read and written from then on is gone.
    pub(super) fn remove(&self) {
        // Should it stay, it is removed with all that an agent leaves.
        let _ = self.shelf.remove_file(&self.file);
    }

    /// Takes what is in a pipe; gives where the log then ends.
    pub(super) fn drain(&self, stream: OutputStream, pipe: &OwnedFd, most: u64) -> (u64, Drained) {
        let mut index = self.lock();
        let at_ns = clock::wall_ns();
        let drained = drain(pipe, most, |bytes| {
            for data in bytes.chunks(LOG_CHUNK_MAX) {
                self.append(&mut index, stream, at_ns, data);
            }
        });
        (index.end.at, drained)
    }

    fn append(&self, index: &mut Index, stream: OutputStream, at_ns: i64, data: &[u8]) {
        let due = index.marks.back().is_none_or(|mark| index.end.at - mark.at >= MARK_EVERY);
        if due {
            index.marks.push_back(index.end);
        }
        let mut record = Vec::with_capacity(HEADER + data.len());
        record.push(match stream {
            OutputStream::Stdout => 1,
            OutputStream::Stderr => 2,
        });
        record.extend(at_ns.to_le_bytes());
        record.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
        record.extend(data);
        let extent = self.spool.push(&record);
        index.end.at = extent.end;
        *index.end.of(stream) += data.len() as u64;
        while index.marks.front().is_some_and(|mark| mark.at < extent.oldest) {
            index.marks.pop_front();
        }
    }

    /// The oldest record that is there, and where the log ends now.
    pub(super) fn extent(&self) -> (Position, Position) {
        let index = self.lock();
        (self.from(&index, Position::default()), index.end)
    }

    /// Reads on from a place.
    pub(super) fn read(&self, from: Position) -> Result<Batch, Unreadable> {
        let index = self.lock();
        let start = self.from(&index, from);
        let slice = self.spool.read(start.at, BATCH)?;
        let (mut next, mut chunks) = (start, Vec::new());
        let mut rest = slice.data.0.as_slice();
        while let Some((chunk, after)) = parse(rest) {
            next.at += (rest.len() - after.len()) as u64;
            *next.of(chunk.stream) += chunk.data.0.len() as u64;
            chunks.push(chunk);
            rest = after;
        }
        if chunks.is_empty() && next != index.end {
            return Err(Unreadable::File(io::ErrorKind::InvalidData.into()));
        }
        let skipped = [
            (OutputStream::Stdout, start.stdout.saturating_sub(from.stdout)),
            (OutputStream::Stderr, start.stderr.saturating_sub(from.stderr)),
        ];
        Ok(Batch { skipped, chunks, next })
    }

    /// A place from which there are records, not before this one.
    fn from(&self, index: &Index, place: Position) -> Position {
        let oldest = self.spool.extent().oldest;
        match place.at >= oldest {
            true => place,
            false => *index.marks.iter().find(|mark| mark.at >= oldest).unwrap_or(&index.end),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // Nobody panics while holding it; were it so, the numbers are whole.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first record, and what follows it; `None` when it is not whole.
fn parse(bytes: &[u8]) -> Option<(LogChunk, &[u8])> {
    let (stream, rest) = bytes.split_first()?;
    let stream = match stream {
        1 => OutputStream::Stdout,
        2 => OutputStream::Stderr,
        _ => return None,
    };
    let (at_ns, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (data, rest) = rest.split_at_checked(length).filter(|_| length <= LOG_CHUNK_MAX)?;
    let data = ByteString(data.to_vec());
    Some((LogChunk { stream, at_ns: i64::from_le_bytes(*at_ns), data }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    /// Small, so that much is given back.
    const RETAINED: u64 = 96 * 1024;

    struct Log {
        _directory: tempfile::TempDir,
        journal: Journal,
        pipe: (OwnedFd, OwnedFd),
    }

    fn log() -> Log {
        let directory = tempfile::tempdir().expect("a directory");
        let root = rustix::fs::open(directory.path(), OFlags::DIRECTORY, Mode::empty());
        let shelf = Arc::new(Shelf::within(&root.expect("it opens"), DIRECTORY).expect("a shelf"));
        let journal = Journal::retaining(shelf, "0".into(), RETAINED).expect("a file");
        let pipe = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe");
        Log { _directory: directory, journal, pipe }
    }

    const DIRECTORY: &str = "service";

    impl Log {
        fn write(&self, stream: OutputStream, bytes: &[u8]) {
            let (reader, writer) = &self.pipe;
            for chunk in bytes.chunks(64 * 1024) {
                assert_eq!(rustix::io::write(writer, chunk), Ok(chunk.len()));
                assert_eq!(self.journal.drain(stream, reader, u64::MAX).1, Drained::Empty);
            }
        }

        /// Everything from a place on: what is gone, and what there is.
        fn rest(&self, mut from: Position) -> ([u64; 2], [Vec<u8>; 2], Position) {
            let (mut gone, mut seen) = ([0; 2], [Vec::new(), Vec::new()]);
            loop {
                let batch = self.journal.read(from).expect("it reads");
                for (index, (_, bytes)) in batch.skipped.iter().enumerate() {
                    gone[index] += bytes;
                }
                for chunk in &batch.chunks {
                    let index = usize::from(chunk.stream == OutputStream::Stderr);
                    seen[index].extend(&chunk.data.0);
                }
                if batch.chunks.is_empty() {
                    return (gone, seen, batch.next);
                }
                from = batch.next;
            }
        }
    }

    /// Byte `n` of a stream that no shift of itself looks like.
    fn bytes(from: usize, to: usize, salt: u64) -> Vec<u8> {
        let byte = |n: usize| ((n as u64 + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        (from..to).map(byte).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..Default::default() })]

        /// However much is written and given back: a reader gets each byte of each
        /// stream once, or is told that it is gone.
        #[test]
        fn every_byte_is_read_once_or_said_to_be_gone(
            steps in proptest::collection::vec((any::<bool>(), 0_usize..600_000, any::<bool>()), 1..12)
        ) {
            let log = log();
            let (mut written, mut told) = ([0, 0], [0, 0]);
            let mut place = Position::default();
            for (is_stderr, length, reads) in steps {
                let index = usize::from(is_stderr);
                let stream = if is_stderr { OutputStream::Stderr } else { OutputStream::Stdout };
                log.write(stream, &bytes(written[index], written[index] + length, index as u64));
                written[index] += length;
                if reads {
                    let (gone, seen, next) = log.rest(place);
                    for index in 0..2 {
                        let from = told[index] + usize::try_from(gone[index]).expect("small");
                        let all = bytes(from, written[index], index as u64);
                        // What is skipped in the middle of a stream was already read.
                        prop_assert!(seen[index] == all, "other bytes");
                        told[index] = written[index];
                    }
                    place = next;
                }
            }
            let (_, end) = log.journal.extent();
            prop_assert!(log.rest(Position::default()).2 == end);
        }
    }

    #[test]
    fn what_cannot_be_kept_is_said_to_be_gone() {
        let log = log();
        log.write(OutputStream::Stdout, &bytes(0, 10_000, 0));
        // As a failing disk: the file is no file any more.
        log.journal.remove();
        log.write(OutputStream::Stdout, b"more");
        let (gone, seen, end) = log.rest(Position::default());
        assert_eq!((gone, seen), ([10_004, 0], [Vec::new(), Vec::new()]));
        // The disk is well again; a record that begins in the same block is lost.
        let flags = OFlags::CREATE | OFlags::WRONLY;
        log.journal.shelf.open("0", flags, Mode::from_raw_mode(0o600)).expect("a file");
        log.write(OutputStream::Stderr, &bytes(0, 20_000, 1));
        log.write(OutputStream::Stderr, b"next");
        let (gone, seen, _) = log.rest(end);
        assert_eq!((gone, seen), ([0, 20_000], [Vec::new(), b"next".to_vec()]));
    }

    #[test]
    fn what_is_not_a_record_is_no_record() {
        let log = log();
        log.write(OutputStream::Stdout, b"abc");
        for at in 1..16 {
            let strange = Position { at, ..Position::default() };
            // Nothing but our own positions is ever asked for; nothing breaks if not.
            drop(log.journal.read(strange));
        }
        assert_eq!(parse(b""), None);
        assert_eq!(parse(&[3; 20]), None);
        assert_eq!(parse(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]), None);
    }
}
