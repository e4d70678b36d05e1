//! What `tools/list` says of arguments and answers. A list is read by a model
//! before every conversation, so it is kept short; docs/reference/mcp.md tells
//! all of it.

use serde_json::{Map, Value};

/// What is left out of answers: a client could not act on it.
const OF_ANSWERS: &[&str] = &["description", "minimum", "maximum"];

/// What is left out of arguments: that something must not be empty goes without
/// saying, and an error says it when it must.
const OF_ARGUMENTS: &[&str] = &["minLength", "minItems"];

/// How many fields of an answer have their names told, where only names are. An
/// answer begins with what matters.
const NAMES_MAX: usize = 8;

/// The schema of a tool's arguments, but for those that are not to be told of.
pub(super) fn arguments(mut schema: Map<String, Value>, without: &[&str]) -> Map<String, Value> {
    strip(&mut schema, OF_ARGUMENTS);
    // The tool itself says it.
    schema.remove("description");
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.retain(|name, _| !without.contains(&name.as_str()));
    }
    schema
}

/// The schema with types alone.
pub(super) fn typed(mut schema: Map<String, Value>) -> Map<String, Value> {
    strip(&mut schema, OF_ANSWERS);
    schema
}

/// The schema with the names alone of the first fields that are always there.
pub(super) fn named(mut schema: Map<String, Value>) -> Map<String, Value> {
    schema.retain(|keyword, _| keyword == "type" || keyword == "required");
    if let Some(Value::Array(names)) = schema.get_mut("required") {
        names.truncate(NAMES_MAX);
    }
    schema
}

fn strip(schema: &mut Map<String, Value>, unsaid: &[&str]) {
    schema.retain(|keyword, _| !unsaid.contains(&keyword.as_str()));
    for (keyword, value) in schema {
        match value {
            // Their keys are names of fields, whatever they are called.
            Value::Object(fields) if keyword == "properties" => {
                let schemas = fields.values_mut().filter_map(Value::as_object_mut);
                schemas.for_each(|schema| strip(schema, unsaid));
            }
            Value::Object(schema) => strip(schema, unsaid),
            Value::Array(schemas) => {
                let schemas = schemas.iter_mut().filter_map(Value::as_object_mut);
                schemas.for_each(|schema| strip(schema, unsaid));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
