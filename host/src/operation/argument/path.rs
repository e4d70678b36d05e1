use crate::{Error, ErrorKind, Result};
use clap::builder::{OsStringValueParser, TypedValueParser, ValueParserFactory};
use pyro_protocol::GuestPath;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// A path inside the guest, relative to `/workspace` unless it is absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInGuest(pub GuestPath);

/// For programs.
impl TryFrom<&str> for PathInGuest {
    type Error = Error;

    fn try_from(path: &str) -> Result<Self> {
        GuestPath::new(path).map(Self).map_err(|bad| {
            let message = format!("{path:?} is no path in a guest");
            Error::new(ErrorKind::InvalidInput, message).because(bad)
        })
    }
}

/// For programs that name what is not UTF-8.
impl From<GuestPath> for PathInGuest {
    fn from(path: GuestPath) -> Self {
        Self(path)
    }
}

impl ValueParserFactory for PathInGuest {
    type Parser = clap::builder::ValueParser;

    fn value_parser() -> Self::Parser {
        let parse = |word: OsString| GuestPath::new(word.into_vec()).map(Self);
        OsStringValueParser::new().try_map(parse).into()
    }
}

impl<'de> Deserialize<'de> for PathInGuest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        GuestPath::new(text).map(Self).map_err(de::Error::custom)
    }
}

impl JsonSchema for PathInGuest {
    fn schema_name() -> Cow<'static, str> {
        "PathInGuest".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}
