//! SHA-256, written `sha256:` and 64 hexadecimal digits: what others publish.

use super::{Measured, hash_all, hex_bytes};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Digest as _;
use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

const SCHEME: &str = "sha256:";

/// What a file that others publish hashes to. What pyro makes itself has a
/// [`Digest`](super::Digest).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// The digest that 64 hexadecimal digits say, for those that are pinned.
    ///
    /// # Panics
    /// When they are no such digits: at compile time, for a constant.
    #[must_use]
    pub const fn pinned(hex: &str) -> Self {
        match hex_bytes(hex) {
            Some(bytes) => Self(bytes),
            None => panic!("a SHA-256 digest is 64 hexadecimal digits"),
        }
    }

    /// The digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl From<sha2::Sha256> for Sha256 {
    fn from(hasher: sha2::Sha256) -> Self {
        Self(hasher.finalize().into())
    }
}

impl Measured for Sha256 {
    fn of_reader(reader: impl Read) -> io::Result<Self> {
        let mut hasher = sha2::Sha256::new();
        hash_all(reader, |bytes| hasher.update(bytes))?;
        Ok(hasher.into())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no such digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` and 64 hexadecimal digits")]
pub struct BadSha256;

impl FromStr for Sha256 {
    type Err = BadSha256;

    fn from_str(text: &str) -> Result<Self, BadSha256> {
        text.strip_prefix(SCHEME).and_then(hex_bytes).map(Self).ok_or(BadSha256)
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_what_everybody_calls_sha256() {
        const ABC: Sha256 =
            Sha256::pinned("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Sha256::of(b"abc"), ABC);
    }

    proptest! {
        #[test]
        fn text_and_digest_are_one(bytes: Vec<u8>) {
            let digest = Sha256::of(&bytes);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
            prop_assert_eq!(Sha256::of_reader(bytes.as_slice()).expect("memory reads"), digest);
        }

        #[test]
        fn no_text_panics(text: String) {
            prop_assert!(text.parse::<Sha256>().is_err());
        }
    }
}
