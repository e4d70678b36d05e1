//! JSON Schemas of what operations take and answer, as MCP clients like them:
//! one self-contained object without references.

use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

/// The schema of an operation's arguments: an object that admits no others.
pub(super) fn of_arguments<T: JsonSchema>() -> Map<String, Value> {
    let mut schema = object_of::<T>(settings().for_deserialize());
    schema.insert("additionalProperties".into(), false.into());
    schema
}

/// The schema of an answer.
pub(super) fn of_answer<T: JsonSchema>() -> Map<String, Value> {
    object_of::<T>(settings().for_serialize())
}

fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    })
}

fn object_of<T: JsonSchema>(settings: SchemaSettings) -> Map<String, Value> {
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    tidy(&mut schema);
    // A struct's schema is an object, never `true` or `false`.
    let mut object = std::mem::take(schema.ensure_object());
    object.insert("type".into(), "object".into());
    object.entry("properties").or_insert_with(|| Map::new().into());
    object
}

/// Joins the lines of each paragraph of a doc comment, and drops what tells a
/// reader nothing: titles and formats that name Rust types, defaults of null.
fn tidy(schema: &mut Schema) {
    schema.remove("title");
    schema.remove("format");
    if schema.get("default") == Some(&Value::Null) {
        schema.remove("default");
    }
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = unwrap_lines(text);
    }
    transform_subschemas(&mut tidy, schema);
}

fn unwrap_lines(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}
