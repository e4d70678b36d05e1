//! Content digests: BLAKE3, written `blake3:` and 64 hexadecimal digits.

mod pages;
mod sha256;

pub use pages::{BadPagesDigest, PagesDigest};
pub use sha256::{BadSha256, Sha256};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

const SCHEME: &str = "blake3:";

/// Large enough that the hash, not the system call, is what takes the time.
const READ_BUFFER: usize = 1 << 20;

/// How many hexadecimal digits of a digest are enough for people to tell two
/// apart.
const SHORT: usize = 12;

/// A digest that a file's content can be held against.
pub trait Measured: Copy + Eq + fmt::Display + Serialize + DeserializeOwned {
    /// The digest of all that a reader still has.
    ///
    /// # Errors
    /// When reading fails.
    fn of_reader(reader: impl Read) -> io::Result<Self>;

    /// The digest of a file's content.
    ///
    /// # Errors
    /// When reading fails.
    fn of_file(file: &File) -> io::Result<Self> {
        Self::of_reader(file)
    }

    /// Its first digits, for people.
    #[must_use]
    fn brief(&self) -> String {
        let text = self.to_string();
        let (_, hex) = text.split_once(':').unwrap_or_default();
        hex.chars().take(SHORT).collect()
    }
}

/// What a file, or everything that went into making one, hashes to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of a list of byte strings, told apart from any other list.
    pub fn of_parts<Part: AsRef<[u8]>>(parts: impl IntoIterator<Item = Part>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            let part = part.as_ref();
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The digest of a file's content.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        Self::of_reader(File::open(path)?)
    }

    /// The digest of all that a reader still has.
    ///
    /// # Errors
    /// When reading fails.
    pub fn of_reader(reader: impl Read) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hash_all(reader, |bytes| {
            hasher.update(bytes);
        })?;
        Ok(Self(*hasher.finalize().as_bytes()))
    }

    /// The 64 hexadecimal digits alone, fit for a file name.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The first twelve digits: enough for people to tell two apart.
    #[must_use]
    pub fn short(&self) -> String {
        self.brief()
    }

    /// The reverse of [`Digest::hex`].
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<Self> {
        hex_bytes(hex).map(Self)
    }
}

impl Measured for Digest {
    fn of_reader(reader: impl Read) -> io::Result<Self> {
        Self::of_reader(reader)
    }
}

/// Hands all that a reader has to a hash.
fn hash_all(mut reader: impl Read, mut hash: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => hash(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The bytes that 64 hexadecimal digits in lower case say.
const fn hex_bytes(hex: &str) -> Option<[u8; 32]> {
    let hex = hex.as_bytes();
    let mut bytes = [0; 32];
    if hex.len() != 2 * bytes.len() {
        return None;
    }
    let mut at = 0;
    while at < hex.len() {
        let digit = match hex[at] {
            digit @ b'0'..=b'9' => digit - b'0',
            digit @ b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        bytes[at / 2] = bytes[at / 2] << 4 | digit;
        at += 1;
    }
    Some(bytes)
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

/// A text that is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `blake3:` and 64 hexadecimal digits")]
pub struct BadDigest;

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        text.strip_prefix(SCHEME).and_then(Self::from_hex).ok_or(BadDigest)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_digest_are_one(bytes: Vec<u8>) {
            let digest = Digest::of(&bytes);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
            prop_assert_eq!(Digest::from_hex(&digest.hex()), Some(digest));
            prop_assert_eq!(Digest::of_reader(bytes.as_slice()).expect("memory reads"), digest);
        }

        #[test]
        fn no_text_panics(text: String) {
            prop_assert!(text.parse::<Digest>().is_err());
        }
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(Digest::of_parts(["ab", "c"]), Digest::of_parts(["a", "bc"]));
        assert_ne!(Digest::of_parts(["a"]), Digest::of_parts(["a", ""]));
    }
}
