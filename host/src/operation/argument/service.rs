use pyro_protocol::service::{BadServiceName, NAME_MAX, ServiceName};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;
use std::str::FromStr;

/// A service of a workspace's, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRef(pub ServiceName);

impl FromStr for ServiceRef {
    type Err = BadServiceName;

    fn from_str(name: &str) -> Result<Self, BadServiceName> {
        name.parse().map(Self)
    }
}

impl<'de> Deserialize<'de> for ServiceRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for ServiceRef {
    fn schema_name() -> Cow<'static, str> {
        "ServiceRef".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let rest = NAME_MAX - 1;
        let pattern = format!("^[A-Za-z0-9][A-Za-z0-9._-]{{0,{rest}}}$");
        json_schema!({ "type": "string", "pattern": pattern })
    }
}
