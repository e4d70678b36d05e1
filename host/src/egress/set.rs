//! Rules under a name, from the user's configuration:
//!
//! ```toml
//! [network.sets.python]
//! allow = ["pypi.org:443", "files.pythonhosted.org:443"]
//! deny = ["tcp:*:25"]
//! ```
//!
//! What a set denies goes before what it allows. Whoever names it, as `@python`,
//! gets its rules as they are then.

use super::policy::{Effect, Matcher, Said};
use crate::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind as IoErrorKind, Read};
use std::path::Path;
use std::str::FromStr;
use toml::Spanned;

/// The longest name of a set.
const NAME_MAX: usize = 64;

/// The largest file of settings.
const FILE_MAX: u64 = 1 << 20;

/// What a set is called: `@` and this.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SetName(String);

/// A word that names no set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a set of rules is named `@NAME`, of at most {NAME_MAX} letters, digits, `-` and `_`")]
pub struct NoSetName;

/// A file of settings, as far as there are any.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    network: NetworkSettings,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkSettings {
    #[serde(default)]
    sets: BTreeMap<String, Texts>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Texts {
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    #[serde(default)]
    deny: Vec<Spanned<String>>,
}

/// The rules of a set, in the order in which they are asked.
///
/// # Errors
/// `InvalidInput` when there is no such set in the file, or the file says
/// something that it cannot mean; then with the line.
pub fn rules(file: &Path, name: &SetName) -> Result<Vec<Said>> {
    rules_in(&file.display().to_string(), &read(file)?, name)
}

fn read(file: &Path) -> Result<String> {
    let mut text = String::new();
    let read = File::open(file).and_then(|open| open.take(FILE_MAX + 1).read_to_string(&mut text));
    match read {
        // A part of it may allow what the rest denies.
        Ok(length) if length as u64 > FILE_MAX => {
            let message = format!("{} has more than {FILE_MAX} bytes", file.display());
            Err(Error::new(ErrorKind::InvalidInput, message))
        }
        Ok(_) => Ok(text),
        Err(error) if error.kind() == IoErrorKind::NotFound => Ok(text),
        Err(error) => Err(Error::io(format!("cannot read {}", file.display()), error)),
    }
}

fn rules_in(file: &str, text: &str, name: &SetName) -> Result<Vec<Said>> {
    let wrong = |at: usize, problem: &str| {
        let line = text.get(..at).unwrap_or(text).matches('\n').count() + 1;
        Error::new(ErrorKind::InvalidInput, format!("{file}:{line}: {problem}"))
    };
    let settings: Settings = toml::from_str(text)
        .map_err(|error| wrong(error.span().map_or(0, |span| span.start), error.message()))?;
    let sets = settings.network.sets;
    let Some(texts) = sets.get(&name.0) else {
        let message = format!("there is no set of rules {name} in {file}");
        let others: Vec<_> = sets.keys().map(|other| format!("@{other}")).collect();
        return Err(Error::new(ErrorKind::InvalidInput, message).hint(match others.is_empty() {
            true => format!("write it there: `[network.sets.{}]`, `allow = [\"RULE\"]`", name.0),
            false => format!("there are {}", others.join(", ")),
        }));
    };
    let said = |effect: Effect, text: &Spanned<String>| {
        let matcher: Matcher = text.as_ref().parse().map_err(|error: super::policy::BadRule| {
            wrong(text.span().start, &format!("in the set of rules {name}, {error}"))
        })?;
        Ok(Said { effect, matcher, set: Some(name.clone()) })
    };
    let denied = texts.deny.iter().map(|text| said(Effect::Deny, text));
    denied.chain(texts.allow.iter().map(|text| said(Effect::Allow, text))).collect()
}

impl FromStr for SetName {
    type Err = NoSetName;

    /// With its `@`.
    fn from_str(word: &str) -> Result<Self, NoSetName> {
        word.strip_prefix('@').ok_or(NoSetName).and_then(|name| Self::try_from(name.to_owned()))
    }
}

impl TryFrom<String> for SetName {
    type Error = NoSetName;

    /// Without its `@`.
    fn try_from(name: String) -> Result<Self, NoSetName> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        match (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(is_name) {
            true => Ok(Self(name)),
            false => Err(NoSetName),
        }
    }
}

impl From<SetName> for String {
    fn from(name: SetName) -> Self {
        name.0
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
# What our builds need.
[network.sets.python]
allow = [
    "pypi.org:443",
    "*.pythonhosted.org:443",
]
deny = ["evil.pythonhosted.org"]

[network.sets.none]
"#;

    fn rules(text: &str, name: &str) -> Result<Vec<String>> {
        let rules = rules_in("/c/config.toml", text, &name.parse().expect("a name"))?;
        Ok(rules.iter().map(|said| format!("{} {}", said.effect, said.matcher)).collect())
    }

    #[test]
    fn what_a_set_denies_goes_first() {
        assert_eq!(
            rules(FILE, "@python").expect("a set"),
            ["deny evil.pythonhosted.org", "allow pypi.org:443", "allow *.pythonhosted.org:443"]
        );
        assert!(rules(FILE, "@none").expect("a set").is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let cases = [
            (FILE.replace("\"*.pythonhosted", "\"*.python hosted"), "/c/config.toml:6: in the set"),
            (FILE.replace("allow =", "alow ="), "/c/config.toml:4: unknown field `alow`"),
            (FILE.replace("[network.", "[netwrok."), "/c/config.toml:3: unknown field `netwrok`"),
            (FILE.replace("deny = [", "deny = {"), "/c/config.toml:8: "),
        ];
        for (text, expected) in cases {
            let error = rules(&text, "@python").expect_err(expected);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_file_is_read_as_a_whole_or_not_at_all() {
        let home = tempfile::tempdir().expect("a directory");
        let (file, name) = (home.path().join("config.toml"), "@python".parse().expect("a name"));
        let long = format!("{FILE}\n#{}", "-".repeat(1 << 20));
        std::fs::write(&file, &long).expect("written");
        let error = super::rules(&file, &name).expect_err("too long");
        assert!(error.to_string().contains("config.toml has more than 1048576 bytes"), "{error}");
        std::fs::write(&file, &long[..1 << 20]).expect("written");
        assert_eq!(super::rules(&file, &name).expect("a set").len(), 3);
    }

    #[test]
    fn a_set_that_is_not_there_is_told_with_those_that_are() {
        let error = rules(FILE, "@node").expect_err("not there");
        assert_eq!(error.next_step(), Some("there are @none, @python"));
        let error = rules("", "@node").expect_err("not there");
        assert!(error.next_step().is_some_and(|step| step.contains("[network.sets.node]")));
        for bad in ["python", "@", "@a b", "@a/b"] {
            assert!(bad.parse::<SetName>().is_err(), "{bad}");
        }
    }
}
