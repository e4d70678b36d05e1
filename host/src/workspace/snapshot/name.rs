//! What snapshots are called.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::fmt;
use std::str::FromStr;

/// The longest name, in characters.
pub const NAME_MAX: usize = 64;

/// What every workspace can be taken back to, and no snapshot is called.
const BASELINE: &str = "baseline";

/// The name of a snapshot: letters, digits, `.`, `_` and `-`, beginning with a
/// letter or a digit. It is a file name on the host and no word of the guest's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct SnapshotName(#[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))] String);

/// A text that is no snapshot's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSnapshotName {
    /// It has characters that it cannot have, or too many.
    #[error(
        "a snapshot's name is 1 to {NAME_MAX} letters, digits, `.`, `_` and `-`, the first of \
         them a letter or a digit"
    )]
    Malformed,
    /// It means what the workspace began with.
    #[error("`baseline` is what a workspace began with; no snapshot is called so")]
    Reserved,
}

/// What a workspace is taken back to, or another begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotRef {
    /// What it was seeded with, on a fresh disk.
    Baseline,
    /// What its disk was.
    Named(SnapshotName),
}

impl SnapshotName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SnapshotName {
    type Err = BadSnapshotName;

    fn from_str(text: &str) -> Result<Self, BadSnapshotName> {
        if text == BASELINE {
            return Err(BadSnapshotName::Reserved);
        }
        let rest = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
        match text.as_bytes() {
            [first, others @ ..]
                if first.is_ascii_alphanumeric()
                    && others.len() < NAME_MAX
                    && others.iter().copied().all(rest) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(BadSnapshotName::Malformed),
        }
    }
}

impl<'de> Deserialize<'de> for SnapshotName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl SnapshotRef {
    /// The snapshot's name; none for the baseline.
    #[must_use]
    pub fn name(&self) -> Option<&SnapshotName> {
        match self {
            Self::Baseline => None,
            Self::Named(name) => Some(name),
        }
    }

    /// As it is typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.name().map_or(BASELINE, SnapshotName::as_str)
    }
}

impl fmt::Display for SnapshotRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SnapshotRef {
    type Err = BadSnapshotName;

    fn from_str(text: &str) -> Result<Self, BadSnapshotName> {
        match text {
            BASELINE => Ok(Self::Baseline),
            name => name.parse().map(Self::Named),
        }
    }
}

impl<'de> Deserialize<'de> for SnapshotRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_what_they_may_be() {
        for good in ["a", "pre-review", "v1.2_3", "0", "Baseline", &"x".repeat(NAME_MAX)] {
            assert_eq!(good.parse::<SnapshotName>().map(|name| name.0), Ok(good.to_owned()));
        }
        for bad in ["", ".", "..", ".making", "-x", "_x", "a/b", "a b", "ä", "a\n", "a\0"] {
            assert_eq!(bad.parse::<SnapshotName>(), Err(BadSnapshotName::Malformed), "{bad:?}");
        }
        let long = "x".repeat(NAME_MAX + 1);
        assert_eq!(long.parse::<SnapshotName>(), Err(BadSnapshotName::Malformed));
        assert_eq!("baseline".parse::<SnapshotName>(), Err(BadSnapshotName::Reserved));
        assert_eq!("baseline".parse(), Ok(SnapshotRef::Baseline));
    }

    proptest! {
        #[test]
        fn s1_a_name_is_one_plain_component_of_a_path(text in ".{0,70}") {
            if let Ok(name) = text.parse::<SnapshotName>() {
                let path = std::path::Path::new("/x").join(name.as_str());
                prop_assert_eq!(path.parent(), Some(std::path::Path::new("/x")));
                prop_assert!(!name.as_str().starts_with('.'));
            }
        }
    }
}
