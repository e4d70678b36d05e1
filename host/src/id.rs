//! Names that pyro gives to things.

use rustix::rand::{GetRandomFlags, getrandom};
use std::fmt;
use std::str::FromStr;

/// A workspace: twelve hexadecimal digits, fit for a file name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkspaceId([u8; 6]);

impl WorkspaceId {
    /// A new one, unlike all others.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 6];
        fill_random(&mut bytes);
        Self(bytes)
    }

    /// The machine id of the workspace's guest: the same at every start, and no
    /// other workspace's.
    #[must_use]
    pub fn machine_id(self) -> String {
        let hash = blake3::derive_key("pyro 2026-11 a guest's /etc/machine-id", &self.0);
        blake3::Hash::from_bytes(hash).to_hex()[..32].to_owned()
    }

    /// The host name of the workspace's guest.
    #[must_use]
    pub fn hostname(self) -> String {
        format!("pyro-{self}")
    }
}

impl fmt::Display for WorkspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for WorkspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkspaceId({self})")
    }
}

/// A text that is no workspace id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a workspace id is twelve hexadecimal digits")]
pub struct BadId;

impl FromStr for WorkspaceId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let digits = text.as_bytes();
        if digits.len() != 12 {
            return Err(BadId);
        }
        let mut bytes = [0; 6];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| BadId)?;
            if !pair.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(BadId);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| BadId)?;
        }
        Ok(Self(bytes))
    }
}

impl serde::Serialize for WorkspaceId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for WorkspaceId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Fills a buffer from the host's random number generator.
///
/// # Panics
/// When Linux has no random numbers, which it does not do once it has booted.
pub fn fill_random(mut buffer: &mut [u8]) {
    while !buffer.is_empty() {
        let filled = getrandom(&mut *buffer, GetRandomFlags::empty()).expect("getrandom works");
        buffer = &mut buffer[filled..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_twelve_small_hexadecimal_digits_are_an_id() {
        assert!("0123456789ab".parse::<WorkspaceId>().is_ok());
        for text in [
            "",
            "0123456789a",
            "0123456789abc",
            "0123456789AB",
            "0123456789ag",
            "+123456789ab",
            " 123456789ab",
            "../../../etc",
            "0123456789\u{e9}",
            "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
            "01234\x0067 89a",
        ] {
            assert_eq!(text.parse::<WorkspaceId>(), Err(BadId), "{text:?}");
        }
    }

    #[test]
    fn ids_differ_and_name_hosts() {
        let (one, other) = (WorkspaceId::random(), WorkspaceId::random());
        assert_ne!(one, other);
        let name = one.hostname();
        assert!(name.len() <= 63 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    }

    #[test]
    fn random_bytes_fill_the_buffer() {
        let mut bytes = [0; 1000];
        fill_random(&mut bytes);
        assert!(bytes.iter().filter(|byte| **byte == 0).count() < 100);
    }

    proptest! {
        #[test]
        fn an_id_survives_being_written(bytes: [u8; 6]) {
            let id = WorkspaceId(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn what_is_read_is_written_the_same(text in "[0-9a-fA-F./ ]{0,14}|\\PC{0,12}") {
            if let Ok(id) = text.parse::<WorkspaceId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
