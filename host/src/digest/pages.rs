//! Digests of memory: most of it was never written and is a hole in its file, which
//! takes no time to pass over.

use super::{Digest, Measured};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::str::FromStr;

const SCHEME: &str = "blake3-pages:";

/// What is looked at as one; whether it is a hole or zeros that were written makes
/// no difference.
const PAGE: usize = 4096;

/// How much is read at once.
const READ: usize = 256 * PAGE;

/// What a memory's length and its pages that are not all zeros hash to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PagesDigest(Digest);

struct Hasher {
    hasher: blake3::Hasher,
    length: u64,
}

impl Hasher {
    fn new() -> Self {
        Self { hasher: blake3::Hasher::new(), length: 0 }
    }

    /// Takes what is at a page's beginning; all but the last are whole pages.
    fn take(&mut self, at: u64, bytes: &[u8]) {
        for (page, number) in bytes.chunks(PAGE).zip(at / PAGE as u64..) {
            if page.iter().any(|byte| *byte != 0) {
                self.hasher.update(&number.to_le_bytes());
                self.hasher.update(page);
            }
        }
        self.length = at + bytes.len() as u64;
    }

    fn digest(mut self, length: u64) -> PagesDigest {
        self.hasher.update(&length.to_le_bytes());
        PagesDigest(self.hasher.finalize().into())
    }
}

impl Measured for PagesDigest {
    fn of_reader(mut reader: impl Read) -> io::Result<Self> {
        let (mut hasher, mut buffer) = (Hasher::new(), vec![0; READ]);
        loop {
            let mut filled = 0;
            while filled < READ {
                match reader.read(&mut buffer[filled..]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            hasher.take(hasher.length, &buffer[..filled]);
            if filled < READ {
                let length = hasher.length;
                return Ok(hasher.digest(length));
            }
        }
    }

    fn of_file(file: &File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let (mut hasher, mut buffer) = (Hasher::new(), vec![0; READ]);
        let mut at = 0;
        while let Some(data) = next(file, SeekFrom::Data(at))? {
            // Whole pages, wherever the file system's blocks begin.
            at = (data - data % PAGE as u64).max(at);
            let hole = next(file, SeekFrom::Hole(data))?.unwrap_or(length).min(length);
            while at < hole {
                let left = usize::try_from(length - at).unwrap_or(usize::MAX);
                let piece = &mut buffer[..READ.min(left)];
                file.read_exact_at(piece, at)?;
                hasher.take(at, piece);
                at += piece.len() as u64;
            }
        }
        Ok(hasher.digest(length))
    }
}

/// Where the next data or hole begins; `None` when there is none.
fn next(file: &File, from: SeekFrom) -> io::Result<Option<u64>> {
    match seek(file, from) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

impl fmt::Display for PagesDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.0.hex())
    }
}

impl fmt::Debug for PagesDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no such digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest of memory is `blake3-pages:` and 64 hexadecimal digits")]
pub struct BadPagesDigest;

impl FromStr for PagesDigest {
    type Err = BadPagesDigest;

    fn from_str(text: &str) -> Result<Self, BadPagesDigest> {
        let hex = text.strip_prefix(SCHEME).ok_or(BadPagesDigest)?;
        Digest::from_hex(hex).map(Self).ok_or(BadPagesDigest)
    }
}

impl Serialize for PagesDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PagesDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes at places of a file that is else a hole.
    fn file(length: u64, pieces: &[(u64, Vec<u8>)]) -> File {
        let file = tempfile::tempfile().expect("a file");
        for (at, bytes) in pieces {
            file.write_all_at(bytes, at % length.max(1)).expect("written");
        }
        file.set_len(length).expect("sized");
        file
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn holes_are_zeros(
            length in 0..3_000_000_u64,
            pieces in prop::collection::vec((any::<u64>(), prop::collection::vec(0..3_u8, 0..9000)), 0..6),
        ) {
            let file = file(length, &pieces);
            let mut whole = Vec::new();
            (&file).read_to_end(&mut whole).expect("read");
            let read = PagesDigest::of_reader(whole.as_slice()).expect("memory reads");
            prop_assert_eq!(PagesDigest::of_file(&file).expect("read"), read);
            prop_assert_eq!(read.to_string().parse(), Ok(read));
            if let Some(at) = whole.len().checked_sub(1) {
                let at = usize::try_from(pieces.first().map_or(0, |(at, _)| *at) % (at as u64 + 1)).expect("small");
                whole[at] ^= 1;
                let changed = PagesDigest::of_reader(whole.as_slice()).expect("memory reads");
                prop_assert_ne!(changed, read);
                whole[at] ^= 1;
            }
            whole.push(0);
            prop_assert_ne!(PagesDigest::of_reader(whole.as_slice()).expect("memory reads"), read);
        }

        #[test]
        fn no_text_panics(text: String) {
            prop_assert!(text.parse::<PagesDigest>().is_err());
        }
    }

    #[test]
    fn what_moves_to_another_page_is_something_else() {
        let at = |at| PagesDigest::of_file(&file(1 << 20, &[(at, vec![1])])).expect("read");
        assert_ne!(at(0), at(8192));
        assert_eq!(at(0), at(0));
    }
}
