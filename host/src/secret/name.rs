use std::fmt;
use std::str::FromStr;

/// The longest name.
const NAME_MAX: usize = 64;

/// What a secret is called: as a variable of a program may be, so that it can be
/// one, and so that it is a file's name and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(String);

/// What is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name for a secret or a variable: 1 to 64 letters, digits and `_`, \
     no digit first"
)]
pub struct BadName(String);

/// How much of a bad name is shown. Who puts a value in its place should not read
/// all of it in a log.
const SHOWN_MAX: usize = 16;

impl SecretName {
    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let mut bytes = text.bytes();
        let is_name = bytes.next().is_some_and(is_letter)
            && bytes.all(|byte| is_letter(byte) || byte.is_ascii_digit())
            && text.len() <= NAME_MAX;
        match is_name {
            true => Ok(Self(text.to_owned())),
            false => Err(BadName(text.chars().take(SHOWN_MAX).collect())),
        }
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_variables() {
        for good in ["A", "_", "a_1", "GITHUB_TOKEN", &"x".repeat(NAME_MAX)] {
            assert!(good.parse::<SecretName>().is_ok(), "{good}");
        }
        for bad in ["", "1a", "a-b", "a.b", "a/b", "..", "a b", "ä", "a\n", &"x".repeat(65)] {
            assert!(bad.parse::<SecretName>().is_err(), "{bad}");
        }
    }
}
