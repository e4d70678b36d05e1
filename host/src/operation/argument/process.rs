use pyro_protocol::kept::ProcessId;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;
use std::str::FromStr;

/// A process of a workspace's, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessRef(pub ProcessId);

/// What is no process id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a process id is twelve hexadecimal digits, as `process list` shows them")]
pub struct NoProcess;

impl FromStr for ProcessRef {
    type Err = NoProcess;

    fn from_str(text: &str) -> Result<Self, NoProcess> {
        text.parse().map(Self).map_err(|_| NoProcess)
    }
}

impl<'de> Deserialize<'de> for ProcessRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for ProcessRef {
    fn schema_name() -> Cow<'static, str> {
        "ProcessRef".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9a-f]{12}$" })
    }
}
