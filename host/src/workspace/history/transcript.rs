//! What one stream of a command carried: its beginning and its end, in a file.
//!
//! The file's offsets are the stream's. What is in the middle of a long one
//! becomes a hole, so that a caller who is killed midway leaves a file that says
//! for itself what it holds.

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How much of a stream's beginning is kept.
pub const HEAD_MAX: u64 = 8 << 20;

/// How much of its end is kept at least.
pub const TAIL_MAX: u64 = 8 << 20;

/// How much more may pile up: a hole is made once for so many bytes.
const SLACK: u64 = 1 << 20;

/// Holes end where every file system's blocks do, so that a file without a
/// record says exactly where the data go on.
const BLOCK: u64 = 4096;

const _: () = assert!(HEAD_MAX.is_multiple_of(BLOCK));

/// How much there was of a stream, and what of it is not kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Extent {
    /// How many bytes the program wrote.
    pub bytes: u64,
    /// The first byte that is not kept; `bytes` when all are.
    pub gap_from: u64,
    /// The first byte that is kept again.
    pub gap_to: u64,
}

impl Extent {
    /// How many bytes are not kept.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.gap_to.saturating_sub(self.gap_from)
    }

    fn whole(bytes: u64) -> Self {
        Self { bytes, gap_from: bytes, gap_to: bytes }
    }
}

/// A stream that is being recorded. Its file is made with its first byte: most
/// commands write to one stream at most.
#[derive(Debug)]
pub(super) struct Transcript {
    path: PathBuf,
    file: Option<File>,
    extent: Extent,
}

impl Transcript {
    /// A new one, or one that somebody else began, from its end on.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = existing(File::options().read(true).write(true).open(&path))?;
        let extent = file.as_ref().map_or(Ok(Extent::default()), measure)?;
        Ok(Self { path, file, extent })
    }

    fn file(&mut self) -> io::Result<&File> {
        let made = match self.file.take() {
            Some(file) => file,
            None => {
                let mut options = File::options();
                options.read(true).write(true).create(true).truncate(false).mode(0o600);
                options.open(&self.path)?
            }
        };
        Ok(self.file.insert(made))
    }

    pub(super) fn extent(&self) -> Extent {
        self.extent
    }

    /// Forgets what comes after so many bytes.
    pub(super) fn rewind(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(file) = &self.file
            && self.extent.bytes > bytes
        {
            file.set_len(bytes)?;
            self.extent = measure(file)?;
        }
        Ok(())
    }

    /// Adds what was written.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        let at = self.extent.bytes;
        self.file()?.write_all_at(bytes, at)?;
        self.extent.bytes = at + bytes.len() as u64;
        if self.extent.missing() == 0 {
            self.extent = Extent::whole(self.extent.bytes);
        }
        let tail_from = match self.extent.missing() {
            0 => HEAD_MAX,
            _ => self.extent.gap_to,
        };
        if self.extent.bytes.saturating_sub(tail_from) > TAIL_MAX + SLACK {
            let gap_to = self.extent.bytes - TAIL_MAX;
            self.leave_out(self.extent.gap_from.min(HEAD_MAX), gap_to - gap_to % BLOCK)?;
        }
        Ok(())
    }

    /// Notes that so many bytes were written and are gone. There is one gap: it
    /// takes what was kept since the last one along.
    pub(super) fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let from = self.extent.gap_from.min(self.extent.bytes);
        self.extent.bytes = self.extent.bytes.saturating_add(bytes);
        let length = self.extent.bytes;
        self.file()?.set_len(length)?;
        self.leave_out(from, self.extent.bytes)
    }

    fn leave_out(&mut self, from: u64, to: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(self.file()?, flags, from, to.saturating_sub(from).max(1))?;
        (self.extent.gap_from, self.extent.gap_to) = (from, to);
        Ok(())
    }
}

/// A file, if it is there.
fn existing(opened: io::Result<File>) -> io::Result<Option<File>> {
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a file holds by itself: up to its first hole, and from the data after
/// that on.
fn measure(file: &File) -> io::Result<Extent> {
    let bytes = file.metadata()?.len();
    let gap_from = match seek(file, SeekFrom::Hole(0)) {
        Ok(hole) => hole.min(bytes),
        // An empty file has not even that.
        Err(Errno::NXIO) => bytes,
        Err(error) => return Err(error.into()),
    };
    let gap_to = match seek(file, SeekFrom::Data(gap_from)) {
        Ok(data) => data,
        Err(Errno::NXIO) => bytes,
        Err(error) => return Err(error.into()),
    };
    Ok(Extent { bytes, gap_from, gap_to })
}

/// The beginning and the end of a recorded stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ends {
    /// All of it, or its beginning.
    pub head: Vec<u8>,
    /// Its end, when bytes are missing between.
    pub tail: Vec<u8>,
    /// How many bytes it had.
    pub total: u64,
}

/// A recorded stream, to be read.
#[derive(Debug)]
pub struct Recorded {
    /// `None` when nothing was written.
    file: Option<File>,
    extent: Extent,
}

impl Recorded {
    /// Opens one. Without an extent the file says for itself what it holds.
    pub(super) fn open(path: &Path, extent: Option<Extent>) -> io::Result<Self> {
        let file = existing(File::open(path))?;
        let held = file.as_ref().map_or(Ok(Extent::default()), measure)?;
        // A record never makes us read what the file has not.
        let extent = extent.filter(|extent| {
            extent.bytes == held.bytes
                && extent.gap_from <= extent.gap_to
                && extent.gap_to <= held.bytes
        });
        Ok(Self { extent: extent.unwrap_or(held), file })
    }

    /// How much there is.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// The first half and the last half of so many bytes.
    pub fn ends(&self, limit: usize) -> io::Result<Ends> {
        let Extent { bytes: total, gap_from, gap_to } = self.extent;
        let tail_max = limit / 2;
        let head_max = (limit - tail_max) as u64;
        let head = self.range(0, head_max.min(gap_from))?;
        let tail_from = match self.extent.missing() {
            // Nothing is missing but by the limit.
            0 => total.saturating_sub(tail_max as u64).max(head.len() as u64),
            _ => total.saturating_sub(tail_max as u64).max(gap_to),
        };
        Ok(Ends { tail: self.range(tail_from, total)?, head, total })
    }

    /// At most so many bytes from an offset on, and where they begin: after the
    /// gap when the offset is within.
    pub fn slice(&self, offset: u64, most: usize) -> io::Result<(u64, Vec<u8>)> {
        let Extent { bytes, gap_from, gap_to } = self.extent;
        let (from, until) = match offset {
            offset if offset < gap_from => (offset, gap_from),
            offset => (offset.max(gap_to).min(bytes), bytes),
        };
        let bytes = self.range(from, until.min(from.saturating_add(most as u64)))?;
        Ok((from, bytes))
    }

    fn range(&self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        let length = to.saturating_sub(from).min(self.extent.bytes);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        if let Some(file) = &self.file {
            file.read_exact_at(&mut bytes, from)?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn byte(n: u64) -> u8 {
        (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
    }

    fn bytes(from: u64, to: u64) -> Vec<u8> {
        (from..to).map(byte).collect()
    }

    /// Feeds a stream of so many bytes, in pieces.
    fn feed(transcript: &mut Transcript, to: u64) {
        while transcript.extent().bytes < to {
            let from = transcript.extent().bytes;
            transcript.push(&bytes(from, to.min(from + 300_000))).expect("written");
        }
    }

    fn check(recorded: &Recorded, total: u64) {
        let Extent { bytes: length, gap_from, gap_to } = recorded.extent();
        assert_eq!(length, total);
        let (from, head) = recorded.slice(0, usize::MAX).expect("read");
        assert!(
            (from, head)
                == (
                    if gap_from == 0 { gap_to } else { 0 },
                    bytes(
                        if gap_from == 0 { gap_to } else { 0 },
                        if gap_from == 0 { total } else { gap_from }
                    )
                )
        );
        let (from, tail) = recorded.slice(gap_from, usize::MAX).expect("read");
        assert!((from, tail) == (gap_to, bytes(gap_to, total)), "another tail");
    }

    #[test]
    fn the_beginning_and_the_end_of_a_long_one_are_kept() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("stdout");
        let mut transcript = Transcript::open(path.clone()).expect("made");
        let total = HEAD_MAX + 3 * TAIL_MAX + 12_345;
        feed(&mut transcript, total);
        let extent = transcript.extent();
        assert_eq!(extent.gap_from, HEAD_MAX);
        assert!((TAIL_MAX..=TAIL_MAX + 2 * SLACK).contains(&(total - extent.gap_to)));
        check(&Recorded::open(&path, Some(extent)).expect("there"), total);
        // Whoever finds the file alone finds the same.
        let alone = Recorded::open(&path, None).expect("there");
        assert_eq!(alone.extent(), extent);
        let ends = alone.ends(10).expect("read");
        assert_eq!((ends.head, ends.tail), (bytes(0, 5), bytes(total - 5, total)));
        // And goes on where it ends.
        let mut again = Transcript::open(path.clone()).expect("there");
        feed(&mut again, total + 10 * SLACK);
        check(&Recorded::open(&path, None).expect("there"), total + 10 * SLACK);
    }

    #[test]
    fn a_record_that_lies_about_its_file_is_not_believed() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("stdout");
        Transcript::open(path.clone()).expect("made").push(b"abc").expect("written");
        for lie in [
            Extent { bytes: 1 << 60, gap_from: 1 << 60, gap_to: 1 << 60 },
            Extent { bytes: 3, gap_from: 3, gap_to: 9 },
            Extent { bytes: 3, gap_from: 2, gap_to: 1 },
        ] {
            let recorded = Recorded::open(&path, Some(lie)).expect("there");
            assert_eq!(recorded.slice(0, 10).expect("read"), (0, b"abc".to_vec()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_kept_is_what_was_written(
            steps in proptest::collection::vec((0_u64..40_000, 0_u64..3), 1..12),
            limit in 0_usize..50_000,
        ) {
            let home = tempfile::tempdir().expect("a directory");
            let path = home.path().join("stdout");
            let mut transcript = Transcript::open(path.clone()).expect("made");
            for (length, kind) in steps {
                let from = transcript.extent().bytes;
                match kind {
                    0 if length > 0 => transcript.skip(length).expect("noted"),
                    _ => transcript.push(&bytes(from, from + length)).expect("written"),
                }
            }
            let extent = transcript.extent();
            let recorded = Recorded::open(&path, Some(extent)).expect("there");
            prop_assert_eq!(recorded.extent(), extent);
            check(&recorded, extent.bytes);
            let ends = recorded.ends(limit).expect("read");
            prop_assert!(ends.head.len() + ends.tail.len() <= limit);
            prop_assert!(ends.head == bytes(0, ends.head.len() as u64));
            prop_assert!(ends.tail == bytes(extent.bytes - ends.tail.len() as u64, extent.bytes));
        }
    }
}
