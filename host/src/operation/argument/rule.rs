use crate::egress::policy::{BadRule, Matcher};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::str::FromStr;

/// What a rule of a network policy speaks of: `pypi.org:443`, `*.debian.org`,
/// `udp:10.0.0.0/8:53`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRule(pub Matcher);

impl FromStr for NetworkRule {
    type Err = BadRule;

    fn from_str(word: &str) -> Result<Self, BadRule> {
        word.parse().map(Self)
    }
}

impl<'de> Deserialize<'de> for NetworkRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for NetworkRule {
    fn schema_name() -> Cow<'static, str> {
        "NetworkRule".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}
