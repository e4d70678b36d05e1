use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr;

/// One mark of a workspace: `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Up to the first `=`.
    pub key: String,
    /// What comes after.
    pub value: String,
}

/// A word without an `=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a label is KEY=VALUE")]
pub struct NoLabel;

impl FromStr for Label {
    type Err = NoLabel;

    fn from_str(word: &str) -> Result<Self, NoLabel> {
        let (key, value) = word.split_once('=').ok_or(NoLabel)?;
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// How JSON spells a list of labels: an object from keys to values.
#[derive(Debug)]
pub struct Labels;

impl Labels {
    /// Reads the object into labels, in the order of their keys.
    ///
    /// # Errors
    /// When it is no object of strings.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Label>, D::Error> {
        let object = BTreeMap::<String, String>::deserialize(deserializer)?;
        Ok(object.into_iter().map(|(key, value)| Label { key, value }).collect())
    }

    /// The labels as the map they are; of two with one key the last counts.
    #[must_use]
    pub fn collect(labels: Vec<Label>) -> BTreeMap<String, String> {
        labels.into_iter().map(|Label { key, value }| (key, value)).collect()
    }
}

impl JsonSchema for Labels {
    fn schema_name() -> Cow<'static, str> {
        "Labels".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": { "type": "string" } })
    }
}
