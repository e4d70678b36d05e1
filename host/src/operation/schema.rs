//! JSON Schemas of what operations take and answer, as MCP clients like them:
//! one self-contained object without references, each value of one type or
//! plainly one of several.

use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

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
    join_words(schema);
    part_types(schema);
    transform_subschemas(&mut tidy, schema);
}

fn unwrap_lines(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

/// Turns a choice of documented words into the plain `enum` that every client
/// understands; what the words mean, the field says.
fn join_words(schema: &mut Schema) {
    let Some(Value::Array(choices)) = schema.get("oneOf") else { return };
    let words: Option<Vec<&str>> = choices.iter().map(|choice| choice["const"].as_str()).collect();
    if let Some(words) = words {
        let words = json!(words);
        schema.remove("oneOf");
        schema.insert("type".into(), "string".into());
        schema.insert("enum".into(), words);
    }
}

/// Turns a list of types into alternatives of one type each: some clients take
/// no lists.
fn part_types(schema: &mut Schema) {
    let Some(Value::Array(types)) = schema.get("type").cloned() else { return };
    let own = ["description", "default"];
    let object = schema.ensure_object();
    let constraints: Map<_, _> =
        object.iter().filter(|(key, _)| !own.contains(&key.as_str())).map(entry).collect();
    object.retain(|key, _| own.contains(&key.as_str()));
    let alternatives = types.into_iter().map(|kind| {
        let mut alternative = match kind.as_str() {
            Some("null") => Map::new(),
            _ => constraints.clone(),
        };
        alternative.insert("type".into(), kind);
        Value::Object(alternative)
    });
    object.insert("anyOf".into(), alternatives.collect());
}

fn entry((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}
