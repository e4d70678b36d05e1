use super::HostPath;
use crate::Context;
use crate::secret::{BadName, SecretName, SecretValue, SecretVariable};
use crate::{Error, ErrorKind, Result};
use clap::builder::{OsStringValueParser, TypedValueParser, ValueParserFactory};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The names of secrets and of variables, as a schema has them.
const PATTERN: &str = "^[A-Za-z_][A-Za-z0-9_]{0,63}$";

impl Serialize for SecretName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for SecretName {
    fn schema_name() -> Cow<'static, str> {
        "SecretName".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN })
    }
}

/// How JSON spells which secrets become which variables: an object from the
/// secrets' names to the variables'.
#[derive(Debug)]
pub struct SecretVariables;

impl SecretVariables {
    /// Reads the object, in the order of the secrets' names.
    ///
    /// # Errors
    /// When a name is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<SecretVariable>, D::Error> {
        let object = BTreeMap::<SecretName, SecretName>::deserialize(deserializer)?;
        let pairs = object.into_iter();
        Ok(pairs.map(|(secret, variable)| SecretVariable { secret, variable }).collect())
    }
}

impl JsonSchema for SecretVariables {
    fn schema_name() -> Cow<'static, str> {
        "SecretVariables".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": { "type": "string" } })
    }
}

/// A secret whose value is that of a file of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOfSecret {
    /// What the secret is called.
    pub name: SecretName,
    /// The file.
    pub path: HostPath,
}

/// What is no `NAME=PATH`.
#[derive(Debug, thiserror::Error)]
enum BadFile {
    #[error("it is NAME=PATH")]
    NoPath,
    #[error(transparent)]
    Name(#[from] BadName),
}

impl FileOfSecret {
    fn from_word(word: OsString) -> Result<Self, BadFile> {
        let bytes = word.as_bytes();
        let at = bytes.iter().position(|byte| *byte == b'=').ok_or(BadFile::NoPath)?;
        let name = String::from_utf8_lossy(&bytes[..at]).parse()?;
        match &bytes[at + 1..] {
            [] => Err(BadFile::NoPath),
            path => {
                let path = std::path::PathBuf::from(OsStr::from_bytes(path));
                Ok(Self { name, path: path.into() })
            }
        }
    }

    /// The value.
    ///
    /// # Errors
    /// When the caller may not name the file, or it cannot be a value.
    pub async fn read(&self, context: &Context) -> Result<SecretValue> {
        read_secret(&self.name, &self.path, context).await
    }
}

/// The value of a secret from a file of the host.
///
/// # Errors
/// When the caller may not name the file, or it cannot be a value.
pub(in crate::operation) async fn read_secret(
    name: &SecretName,
    path: &HostPath,
    context: &Context,
) -> Result<SecretValue> {
    let shown = path.as_path().to_owned();
    let file = path.open(context).await?;
    let reading = crate::blocking::blocking(move || {
        SecretValue::read(file).map_err(|error| Error::unreadable(&shown, error))
    });
    let value = context.unless_cancelled(reading).await?;
    value.map_err(|error| {
        let message = format!("{} cannot be the value of secret {name}", path.as_path().display());
        Error::new(ErrorKind::InvalidInput, message).because(error)
    })
}

impl ValueParserFactory for FileOfSecret {
    type Parser = clap::builder::ValueParser;

    fn value_parser() -> Self::Parser {
        OsStringValueParser::new().try_map(Self::from_word).into()
    }
}

/// The secrets of what is made. JSON spells them as an object from names to the
/// files that have the values: a tool's caller must not read the host's
/// environment.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(id = "secrets", multiple = true)]
pub struct NewSecrets {
    /// Give it a secret with the value that this file of the host has.
    #[arg(long, value_name = "NAME=PATH")]
    pub secret_file: Vec<FileOfSecret>,
    /// Give it a secret with the value of a variable of the caller's, of the
    /// secret's own name if only that is given.
    #[arg(long, value_name = "NAME[=VARIABLE]")]
    pub secret_env: Vec<SecretVariable>,
}

impl<'de> Deserialize<'de> for NewSecrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = BTreeMap::<SecretName, HostPath>::deserialize(deserializer)?;
        let files = object.into_iter().map(|(name, path)| FileOfSecret { name, path });
        Ok(Self { secret_file: files.collect(), secret_env: Vec::new() })
    }
}

impl JsonSchema for NewSecrets {
    fn schema_name() -> Cow<'static, str> {
        "NewSecrets".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": { "type": "string" } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_after_the_first_equals_sign() {
        let file = FileOfSecret::from_word("TOKEN=./a=b".into()).expect("a file");
        assert_eq!((file.name.as_str(), file.path.as_path()), ("TOKEN", "./a=b".as_ref()));
        for bad in ["TOKEN", "TOKEN=", "=a", "a-b=c"] {
            assert!(FileOfSecret::from_word(bad.into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn json_maps_secrets_to_variables() {
        let read = |text: &str| {
            SecretVariables::deserialize(&mut serde_json::Deserializer::from_str(text)).ok()
        };
        let one = "TOKEN=KEY".parse().expect("a word");
        assert_eq!(read(r#"{"TOKEN": "KEY"}"#), Some(vec![one]));
        for bad in [r#"{"TOKEN": null}"#, r#"{"a-b": "A"}"#, r#"{"A": "1"}"#, r#"["A"]"#] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
