use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// What a caller calls a workspace: its id, its name, or a prefix of its id
/// that no other shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceRef(String);

/// Nothing is no reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a workspace's id or name is needed")]
pub struct Nameless;

impl WorkspaceRef {
    /// The reference as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkspaceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<crate::id::WorkspaceId> for WorkspaceRef {
    fn from(id: crate::id::WorkspaceId) -> Self {
        Self(id.to_string())
    }
}

/// For programs. Nothing is nobody's name, so an empty one is not found.
impl From<&str> for WorkspaceRef {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl FromStr for WorkspaceRef {
    type Err = Nameless;

    fn from_str(text: &str) -> Result<Self, Nameless> {
        if text.is_empty() { Err(Nameless) } else { Ok(Self(text.to_owned())) }
    }
}

impl<'de> Deserialize<'de> for WorkspaceRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for WorkspaceRef {
    fn schema_name() -> Cow<'static, str> {
        "WorkspaceRef".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}
