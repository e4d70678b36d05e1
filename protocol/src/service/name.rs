use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The most characters of a service's name.
pub const NAME_MAX: usize = 64;

/// What a service is called: a letter or a digit, then letters, digits, `.`,
/// `_` and `-`, at most [`NAME_MAX`] in all. Only ever a name: neither side makes
/// a path of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
pub struct ServiceName(String);

/// A text that is no service's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a service's name has 1 to {NAME_MAX} of the characters a-z, A-Z, 0-9, `.`, `_` and `-`, \
     and begins with a letter or a digit"
)]
pub struct BadServiceName;

impl ServiceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ServiceName {
    type Error = BadServiceName;

    fn try_from(name: String) -> Result<Self, BadServiceName> {
        let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let mut bytes = name.bytes();
        let fits = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if starts && fits && name.len() <= NAME_MAX { Ok(Self(name)) } else { Err(BadServiceName) }
    }
}

impl FromStr for ServiceName {
    type Err = BadServiceName;

    fn from_str(name: &str) -> Result<Self, BadServiceName> {
        name.to_owned().try_into()
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s1_names_are_names_and_never_paths() {
        for good in ["a", "7", "app", "A.b_c-9", "a..", &"x".repeat(NAME_MAX)] {
            assert_eq!(good.parse::<ServiceName>().map(String::from).as_deref(), Ok(good));
        }
        let long = "x".repeat(NAME_MAX + 1);
        for bad in ["", ".", "..", "-a", "_a", "a/b", "../a", "a b", "a\0", "a\n", "ä", &long] {
            assert_eq!(bad.parse::<ServiceName>(), Err(BadServiceName), "{bad:?}");
            // Nor by what a guest answers.
            let wire = crate::codec::encode(&bad).expect("it encodes");
            crate::codec::decode::<ServiceName>(&wire).expect_err(bad);
        }
    }
}
