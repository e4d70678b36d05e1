use crate::Config;
use clap::builder::{OsStringValueParser, TypedValueParser, ValueParserFactory};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A variable for the guest's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// `NAME=VALUE`.
    Set(OsString, OsString),
    /// `NAME`: with the value it has for the caller, if it has one. Only the
    /// command line can say this; a tool's caller must not read the host's
    /// environment.
    Passed(OsString),
}

#[derive(Debug, thiserror::Error)]
enum BadVariable {
    #[error("a variable needs a name before the `=`")]
    Nameless,
    #[error("the name of a variable holds neither `=` nor NUL, its value no NUL")]
    Unspeakable,
}

impl Variable {
    /// A variable with a value.
    fn set(name: OsString, value: OsString) -> Result<Self, BadVariable> {
        check_name(name.as_bytes())?;
        if value.as_bytes().contains(&0) {
            return Err(BadVariable::Unspeakable);
        }
        Ok(Self::Set(name, value))
    }

    fn from_word(word: OsString) -> Result<Self, BadVariable> {
        let bytes = word.as_bytes();
        match bytes.iter().position(|byte| *byte == b'=') {
            None => check_name(bytes).map(|()| Self::Passed(word)),
            Some(at) => {
                let (name, value) = (bytes[..at].to_vec(), bytes[at + 1..].to_vec());
                Self::set(OsString::from_vec(name), OsString::from_vec(value))
            }
        }
    }

    /// Name and value as bytes; nothing when the caller has no such variable.
    #[must_use]
    pub fn resolve(self, config: &Config) -> Option<(Vec<u8>, Vec<u8>)> {
        let (name, value) = match self {
            Self::Set(name, value) => (name, value),
            Self::Passed(name) => {
                let value = config.host_variable(&name)?;
                (name, value)
            }
        };
        Some((name.into_vec(), value.into_vec()))
    }
}

fn check_name(name: &[u8]) -> Result<(), BadVariable> {
    match name {
        [] => Err(BadVariable::Nameless),
        name if name.contains(&b'=') || name.contains(&0) => Err(BadVariable::Unspeakable),
        _ => Ok(()),
    }
}

impl ValueParserFactory for Variable {
    type Parser = clap::builder::ValueParser;

    fn value_parser() -> Self::Parser {
        OsStringValueParser::new().try_map(Self::from_word).into()
    }
}

/// How JSON spells a list of variables: an object from names to values.
#[derive(Debug)]
pub struct Variables;

impl Variables {
    /// Those that have a value.
    #[must_use]
    pub fn resolve(variables: Vec<Variable>, config: &Config) -> Vec<(Vec<u8>, Vec<u8>)> {
        variables.into_iter().filter_map(|variable| variable.resolve(config)).collect()
    }

    /// Reads the object into variables, in the order of their names.
    ///
    /// # Errors
    /// When a name or a value is impossible.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Variable>, D::Error> {
        let object = BTreeMap::<String, String>::deserialize(deserializer)?;
        let variables =
            object.into_iter().map(|(name, value)| Variable::set(name.into(), value.into()));
        variables.collect::<Result<_, _>>().map_err(de::Error::custom)
    }
}

impl JsonSchema for Variables {
    fn schema_name() -> Cow<'static, str> {
        "Variables".into()
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

    fn word(bytes: &[u8]) -> Option<Variable> {
        Variable::from_word(OsString::from_vec(bytes.to_vec())).ok()
    }

    #[test]
    fn words_are_split_at_the_first_equals_sign() {
        let set = |name: &str, value: &[u8]| {
            Some(Variable::Set(name.into(), OsString::from_vec(value.to_vec())))
        };
        assert_eq!(word(b"A=b=c"), set("A", b"b=c"));
        assert_eq!(word(b"A="), set("A", b""));
        assert_eq!(word(b"A=\xff"), set("A", b"\xff"));
        assert_eq!(word(b"A"), Some(Variable::Passed("A".into())));
        assert_eq!(word(b"=b").or(word(b"")), None);
    }

    #[test]
    fn json_cannot_reach_for_the_callers_own() {
        let read =
            |text: &str| Variables::deserialize(&mut serde_json::Deserializer::from_str(text)).ok();
        assert_eq!(read(r#"{"A": "b"}"#), Some(vec![Variable::Set("A".into(), "b".into())]));
        for bad in
            [r#"{"A": null}"#, r#"["A"]"#, r#"{"": "b"}"#, r#"{"A=": "b"}"#, r#"{"A": "\u0000"}"#]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
