//! What `tools/list` says of answers. A list is read by a model before every
//! conversation, so it is kept short; docs/reference/mcp.md tells all of it.

use serde_json::{Map, Value};

/// Keywords that tell of a value what a client could not act on.
const TOLD_ELSEWHERE: &[&str] = &["description", "minimum", "maximum"];

/// The schema with types alone.
pub(super) fn typed(mut schema: Map<String, Value>) -> Map<String, Value> {
    strip(&mut schema);
    schema
}

/// The schema with the names of the fields alone that are always there.
pub(super) fn named(mut schema: Map<String, Value>) -> Map<String, Value> {
    schema.retain(|keyword, _| keyword == "type" || keyword == "required");
    schema
}

fn strip(schema: &mut Map<String, Value>) {
    schema.retain(|keyword, _| !TOLD_ELSEWHERE.contains(&keyword.as_str()));
    for (keyword, value) in schema {
        match value {
            // Their keys are names of fields, whatever they are called.
            Value::Object(fields) if keyword == "properties" => {
                fields.values_mut().filter_map(Value::as_object_mut).for_each(strip);
            }
            Value::Object(schema) => strip(schema),
            Value::Array(schemas) => {
                schemas.iter_mut().filter_map(Value::as_object_mut).for_each(strip);
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
