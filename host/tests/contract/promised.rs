//! What is promised now, without the words that describe it.

use clap::{Arg, ArgAction, Command};
use pyro::mcp::PROFILES;
use pyro::operation::{Entry, OPERATIONS};
use pyro::{ErrorKind, cli};
use serde_json::{Map, Value, json};

pub fn now(version: &str) -> Value {
    let mut commands = Map::new();
    let mut tree = cli::command(OPERATIONS);
    tree.build();
    collect_commands(&tree, "", &mut commands);
    let operations: Map<_, _> =
        OPERATIONS.iter().map(|entry| (entry.path.join(" "), operation(entry))).collect();
    let profiles: Map<_, _> = PROFILES
        .iter()
        .map(|profile| (profile.name.to_owned(), json!(profile.tools.is_none())))
        .collect();
    json!({
        "contract": version,
        "commands": commands,
        "operations": operations,
        "profiles_with_every_tool": profiles,
        "errors": errors(),
    })
}

fn collect_commands(command: &Command, path: &str, all: &mut Map<String, Value>) {
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        let path = format!("{path}{}", inner.get_name());
        if inner.has_subcommands() {
            collect_commands(inner, &format!("{path} "), all);
            continue;
        }
        let shown = |arg: &&Arg| arg.get_id() != "help" && !arg.is_hide_set();
        let mut positionals: Vec<&Arg> = inner.get_positionals().filter(shown).collect();
        positionals.sort_by_key(|arg| arg.get_index());
        let positionals: Vec<_> = positionals.into_iter().map(positional).collect();
        let options = inner.get_opts().chain(inner.get_arguments().filter(|arg| is_switch(arg)));
        let mut options: Vec<_> = options.filter(shown).filter_map(option).collect();
        options.sort_by(|one, other| one.0.cmp(&other.0));
        let options: Map<_, _> = options.into_iter().collect();
        all.insert(path, json!({ "positionals": positionals, "options": options }));
    }
}

fn is_switch(arg: &Arg) -> bool {
    !arg.is_positional() && !arg.get_action().takes_values()
}

fn positional(arg: &Arg) -> Value {
    json!({
        "name": arg.get_value_names().and_then(|names| names.first()).map(|name| name.as_str()),
        "required": arg.is_required_set(),
        "many": is_many(arg),
    })
}

fn option(arg: &Arg) -> Option<(String, Value)> {
    let defaults: Vec<_> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let about = json!({
        "short": arg.get_short().map(String::from),
        "takes_value": arg.get_action().takes_values(),
        "required": arg.is_required_set(),
        "many": is_many(arg),
        "default": defaults,
    });
    Some((format!("--{}", arg.get_long()?), about))
}

fn is_many(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
        || arg.get_num_args().is_some_and(|count| count.max_values() > 1)
}

fn operation(entry: &Entry) -> Value {
    json!({
        "tool": entry.tool,
        "effect": format!("{:?}", entry.effect),
        "arguments": bare(Value::Object(entry.arguments_schema())),
        "answer": bare(Value::Object(entry.answer_schema())),
    })
}

/// A schema without prose, but for properties that are called like it.
fn bare(mut schema: Value) -> Value {
    match &mut schema {
        Value::Object(object) => {
            object.remove("description");
            for (key, value) in object.iter_mut() {
                // What is a value and no schema.
                if ["default", "const", "enum"].contains(&key.as_str()) {
                    continue;
                }
                if key == "properties"
                    && let Value::Object(properties) = value
                {
                    for property in properties.values_mut() {
                        *property = bare(property.take());
                    }
                } else {
                    *value = bare(value.take());
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                *item = bare(item.take());
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    schema
}

fn errors() -> Map<String, Value> {
    let schema = schemars::schema_for!(ErrorKind);
    let variants = schema.as_value()["oneOf"].as_array().cloned().unwrap_or_default();
    let code = |variant: &Value| {
        let kind: ErrorKind = serde_json::from_value(variant["const"].clone()).unwrap();
        (variant["const"].as_str().unwrap().to_owned(), json!(kind.exit_code()))
    };
    variants.iter().map(code).collect()
}
