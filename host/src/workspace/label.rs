//! What a caller may call workspaces, and how they are marked.

use crate::error::{Error, ErrorKind, Result};
use crate::id::WorkspaceId;
use std::collections::BTreeMap;

/// The longest name or label's value, in characters.
pub const TEXT_MAX: usize = 120;

/// The longest label's key.
const KEY_MAX: usize = 64;

/// The most labels of one workspace.
pub const LABELS_MAX: usize = 64;

/// Checks a workspace's name.
///
/// # Errors
/// `InvalidInput`, which says what a name may be.
pub fn check_name(name: &str) -> Result<()> {
    let wrong = |what: &str| {
        Error::new(
            ErrorKind::InvalidInput,
            format!("{name:?} cannot be a workspace's name: {what}"),
        )
    };
    let length = name.chars().count();
    if length == 0 || length > TEXT_MAX {
        return Err(wrong(&format!("it has {length} characters, 1 to {TEXT_MAX} are possible")));
    }
    if name != name.trim() {
        return Err(wrong("it begins or ends with a blank"));
    }
    if name.starts_with('-') {
        return Err(wrong("it begins with a dash, as flags do"));
    }
    if let Some(bad) = name.chars().find(|c| c.is_control() || matches!(c, '/' | '@')) {
        return Err(wrong(&format!("it contains {bad:?}")));
    }
    if name.parse::<WorkspaceId>().is_ok() {
        return Err(wrong("it looks like an id"));
    }
    Ok(())
}

/// Checks the labels of one workspace.
///
/// # Errors
/// `InvalidInput`.
pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<()> {
    if labels.len() > LABELS_MAX {
        let message = format!("a workspace cannot have {} labels", labels.len());
        return Err(Error::new(ErrorKind::InvalidInput, message)
            .hint(format!("at most {LABELS_MAX} are possible")));
    }
    labels.iter().try_for_each(|(key, value)| check_label(key, value))
}

/// Checks a label.
///
/// # Errors
/// `InvalidInput`, which says what keys and values may be.
pub fn check_label(key: &str, value: &str) -> Result<()> {
    let fits = key.len() <= KEY_MAX
        && key.starts_with(|c: char| c.is_ascii_alphanumeric())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !fits {
        let message = format!("{key:?} cannot be a label's key");
        return Err(Error::new(ErrorKind::InvalidInput, message).hint(format!(
            "a key has 1 to {KEY_MAX} of the characters A-Z a-z 0-9 . _ - and begins with a letter or digit"
        )));
    }
    let length = value.chars().count();
    if length == 0 || length > TEXT_MAX || value != value.trim() || value.contains(char::is_control)
    {
        let message = format!("{value:?} cannot be the value of label {key}");
        return Err(Error::new(ErrorKind::InvalidInput, message).hint(format!(
            "a value has 1 to {TEXT_MAX} printable characters, no blanks around them"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_a_person_would_write() {
        for good in ["a", "fix the parser", "überprüfung", "v1.2_rc-3", "0123456789abc"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let long = "x".repeat(TEXT_MAX + 1);
        for bad in ["", " ", " a", "a ", "-x", "a/b", "a@b", "a\nb", "0123456789ab", &long] {
            let error = check_name(bad).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
        }
    }

    #[test]
    fn labels_are_keys_and_values() {
        assert!(check_label("a.b_c-1", "any thing").is_ok());
        let long = "x".repeat(KEY_MAX + 1);
        for bad in ["", ".a", "-a", "a b", "ä", &long] {
            assert!(check_label(bad, "v").is_err(), "{bad}");
        }
        let long = "x".repeat(TEXT_MAX + 1);
        for bad in ["", " ", "a\n", "\t", &long] {
            assert!(check_label("k", bad).is_err(), "{bad}");
        }
    }
}
