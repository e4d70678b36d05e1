//! What pyro's diffs and patches share with git's: names, modes, blobs, base 85.

pub(crate) mod base85;
pub(crate) use pyro_protocol::quote;

use sha1::{Digest, Sha1};
use std::fmt::Write as _;

/// The mode of a symbolic link.
pub(crate) const LINK_MODE: u32 = 0o120_000;

/// Git knows two modes of files.
pub(crate) const fn file_mode(mode: u32) -> u32 {
    if mode & 0o100 == 0 { 0o100_644 } else { 0o100_755 }
}

/// So many first bytes without a NUL make a file text.
const TEXT_PROBE: usize = 8000;

/// Whether git would take these first bytes of a file for text.
pub(crate) fn is_text(first: &[u8]) -> bool {
    !first[..first.len().min(TEXT_PROBE)].contains(&0)
}

/// The name git gives to a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlobId([u8; 20]);

/// What stands for a content where there is no file.
pub(crate) const NO_BLOB: BlobId = BlobId([0; 20]);

/// A blob's name in the making.
pub(crate) struct BlobHasher(Sha1);

impl BlobHasher {
    /// For a content of so many bytes.
    pub(crate) fn new(length: u64) -> Self {
        let mut hasher = Sha1::new();
        hasher.update(format!("blob {length}\0"));
        Self(hasher)
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> BlobId {
        BlobId(self.0.finalize().into())
    }
}

impl BlobId {
    /// Of a whole content.
    pub(crate) fn of(content: &[u8]) -> Self {
        let mut hasher = BlobHasher::new(content.len() as u64);
        hasher.update(content);
        hasher.finish()
    }

    /// All forty digits.
    pub(crate) fn full(self) -> String {
        self.0.iter().fold(String::new(), |mut text, byte| {
            // A String takes whatever is written to it.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The first seven digits, as git shows them.
    pub(crate) fn short(self) -> String {
        self.full().chars().take(7).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7_blobs_have_gits_names() {
        assert_eq!(BlobId::of(b"").full(), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(BlobId::of(b"hello\n").full(), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(BlobId::of(b"").short(), "e69de29");
    }

    #[test]
    fn r7_a_nul_among_the_first_bytes_makes_a_file_binary() {
        let at = |place: usize| {
            let mut bytes = vec![b'a'; 9000];
            bytes[place] = 0;
            is_text(&bytes)
        };
        assert!(!at(0));
        assert!(!at(7999));
        assert!(at(8000));
        assert!(is_text(b""));
    }
}
