//! Names of hosts, as DNS compares them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest name, its last dot not counted (RFC 1035).
pub const NAME_MAX: usize = 253;

/// The longest label (RFC 1035).
pub const LABEL_MAX: usize = 63;

/// A host's name: lower case, ASCII, no dot at the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainName(String);

/// Names that a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamePattern {
    /// This one.
    Exact(DomainName),
    /// Every name below this one, at any depth, and not this one.
    Below(DomainName),
}

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host name")]
pub struct BadName(pub String);

impl DomainName {
    /// A name as people write it: `PyPI.org.`, `bücher.example`.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let bad = || BadName(text.chars().take(NAME_MAX).collect());
        // Longer than any name can be even before it is encoded.
        if text.len() > 4 * NAME_MAX {
            return Err(bad());
        }
        let ascii = idna::domain_to_ascii(text).map_err(|_| bad())?;
        Self::from_ascii(&ascii).ok_or_else(bad)
    }

    /// A name that is ASCII already, as it comes over the wire.
    #[must_use]
    pub fn from_ascii(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            (1..=LABEL_MAX).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        // What ends in a number is an address, or would be taken for one.
        let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
        let fits = text.len() <= NAME_MAX
            && text.split('.').all(is_label)
            && !text.rsplit('.').next().is_none_or(is_number);
        fits.then(|| Self(text.to_ascii_lowercase()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NamePattern {
    /// Whether it speaks of a name.
    #[must_use]
    pub fn matches(&self, name: &DomainName) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(above) => {
                name.0.strip_suffix(above.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }
        }
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

impl TryFrom<String> for DomainName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        Self::from_ascii(&text).ok_or(BadName(text))
    }
}

impl From<DomainName> for String {
    fn from(name: DomainName) -> Self {
        name.0
    }
}
