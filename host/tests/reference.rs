//! docs/reference is written from the table. `PYRO_BLESS=1` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use clap::Command;
use pyro::mcp::{PROFILES, Tools};
use pyro::operation::{Entry, OPERATIONS};
use pyro::{ErrorKind, cli};
use serde_json::{Map, Value};
use std::fmt::Write;
use std::path::Path;

const HEADER: &str =
    "<!-- Written by host/tests/reference.rs from the table of operations. -->\n\n";

fn check(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference").join(name);
    if std::env::var_os("PYRO_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let hint = format!("`PYRO_BLESS=1 cargo test -p pyro --test reference` writes {name} anew");
    assert!(found == expected, "docs/reference/{name} is stale; {hint}");
}

#[test]
fn of_the_command_line() {
    let mut tree = cli::command(OPERATIONS).term_width(100);
    tree.build();
    let mut page = format!("{HEADER}# The command line\n");
    write_command(&mut page, &tree, "pyro");
    page.push_str("\n## Answers in JSON\n\n");
    page.push_str(
        "With `--json` an operation writes one document to stdout. An error is\n\
         `{\"ok\": false, \"error\": {\"kind\", \"message\", \"hint\"}}`, with the exit code that it\n\
         has without `--json`.\n",
    );
    for entry in OPERATIONS {
        write!(page, "\n### Answer of `pyro {}`\n\n", entry.path.join(" ")).unwrap();
        write_fields(&mut page, &entry.answer_schema());
    }
    page.push_str("\n### Kinds of errors\n\n| kind | exit code | when |\n|---|---|---|\n");
    write_kinds(&mut page);
    check("cli.md", &page);
}

#[test]
fn of_the_tools() {
    let mut page = format!("{HEADER}# The MCP tools\n\n");
    page.push_str("`pyro mcp serve --profile PROFILE` offers:\n\n| profile | tools |\n|---|---|\n");
    for profile in PROFILES {
        let tools = Tools::of(OPERATIONS, profile).list();
        let names: Vec<_> = tools.iter().map(|tool| format!("`{}`", tool.name)).collect();
        writeln!(page, "| `{}`: {} | {} |", profile.name, profile.about, names.join(", ")).unwrap();
    }
    for entry in OPERATIONS {
        let Some(tool) = entry.tool else { continue };
        let (path, effect) = (entry.path.join(" "), entry.effect);
        write!(page, "\n## `{tool}`\n\n{}\n\n", entry.description()).unwrap();
        write!(page, "On the command line: `pyro {path}`. Effect: {effect:?}.\n\n").unwrap();
        write_arguments(&mut page, entry);
        page.push_str("Structured content:\n\n");
        write_fields(&mut page, &entry.answer_schema());
    }
    check("mcp.md", &page);
}

fn write_command(page: &mut String, command: &Command, path: &str) {
    let help = command.clone().render_long_help().to_string();
    let help: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    write!(page, "\n## `{path}`\n\n```text\n{}\n```\n", help.trim_end()).unwrap();
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        write_command(page, inner, &format!("{path} {}", inner.get_name()));
    }
}

fn write_arguments(page: &mut String, entry: &Entry) {
    let schema = entry.arguments_schema();
    let Some(properties) = schema["properties"].as_object().filter(|all| !all.is_empty()) else {
        page.push_str("It takes no arguments.\n\n");
        return;
    };
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    page.push_str("| argument | type | default | |\n|---|---|---|---|\n");
    for (name, property) in properties {
        let default = match property.get("default") {
            _ if required.contains(&Value::String(name.clone())) => "required".to_owned(),
            Some(value) => format!("`{value}`"),
            None => String::new(),
        };
        let what = description(property);
        writeln!(page, "| `{name}` | {} | {default} | {what} |", kind(property)).unwrap();
    }
    page.push('\n');
}

fn write_fields(page: &mut String, schema: &Map<String, Value>) {
    let mut fields = Vec::new();
    collect_fields(&mut fields, &Value::Object(schema.clone()), "");
    page.push_str("| field | type | |\n|---|---|---|\n");
    for (path, kinds, what) in fields {
        writeln!(page, "| `{path}` | {} | {what} |", kinds.join(" or ")).unwrap();
    }
}

/// Path, types and description of the fields of an object, of its variants and
/// of the objects within it.
fn collect_fields(fields: &mut Vec<(String, Vec<String>, String)>, schema: &Value, prefix: &str) {
    let variants = schema["oneOf"].as_array().into_iter().flatten();
    for object in std::iter::once(schema).chain(variants) {
        for (name, property) in object["properties"].as_object().into_iter().flatten() {
            let path = format!("{prefix}{name}");
            match fields.iter_mut().find(|(known, ..)| *known == path) {
                Some((_, kinds, _)) if kinds.contains(&kind(property)) => {}
                Some((_, kinds, _)) => kinds.push(kind(property)),
                None => fields.push((path.clone(), vec![kind(property)], description(property))),
            }
            collect_fields(fields, property, &format!("{path}."));
            collect_fields(fields, &property["items"], &format!("{path}[]."));
        }
    }
}

fn description(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.replace("\n\n", " ").replace('|', "\\|")
}

/// A type in a word or two.
fn kind(schema: &Value) -> String {
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ");
    }
    for alternatives in ["anyOf", "oneOf"] {
        if let Some(alternatives) = schema[alternatives].as_array() {
            let mut kinds: Vec<_> = alternatives.iter().map(kind).collect();
            kinds.dedup();
            return kinds.join(" or ");
        }
    }
    let names = schema["type"].as_array().cloned().unwrap_or(vec![schema["type"].clone()]);
    let names: Vec<_> = names.iter().map(|name| name.as_str().unwrap_or("any")).collect();
    let mut text = names.join(" or ");
    if text == "array" {
        text = format!("array of {}", kind(&schema["items"]));
    }
    match (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
        (Some(min), Some(max)) => format!("{text}, {min} to {max}"),
        (Some(min), None) if min > 0 => format!("{text}, at least {min}"),
        _ => text,
    }
}

fn write_kinds(page: &mut String) {
    let schema = schemars::schema_for!(ErrorKind);
    for variant in schema.as_value()["oneOf"].as_array().into_iter().flatten() {
        let kind: ErrorKind = serde_json::from_value(variant["const"].clone()).unwrap();
        let (name, code) = (&variant["const"], kind.exit_code());
        let name = name.as_str().unwrap_or_default();
        writeln!(page, "| `{name}` | {code} | {} |", description(variant).replace('\n', " "))
            .unwrap();
    }
}
