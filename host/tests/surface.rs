//! The command line and the tools say the same, and say it well.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/sources.rs"]
mod sources;

use clap::{ArgAction, Command};
use pyro::cli;
use pyro::operation::{Entry, OPERATIONS};
use serde_json::{Map, Value, json};
use sources::sources_of_workspace;
use std::collections::{BTreeMap, BTreeSet};

/// What the command line adds to every operation.
const OWN_ARGUMENTS: &[&str] = &["help", "json", "id-only", "interactive"];

fn tree() -> Command {
    let mut tree = cli::command(OPERATIONS).term_width(100);
    tree.build();
    tree
}

fn command_of(entry: &Entry) -> Command {
    let find = |command: Command, word: &&str| command.find_subcommand(word).cloned().unwrap();
    entry.path.iter().fold(tree(), find)
}

fn properties(schema: &Map<String, Value>) -> &Map<String, Value> {
    schema["properties"].as_object().unwrap()
}

fn required_of(schema: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let required = schema.get("required").and_then(Value::as_array);
    required.into_iter().flatten().filter_map(Value::as_str)
}

/// Every command with the words that lead to it.
fn all_commands(command: &Command, path: &str) -> Vec<(String, Command)> {
    let mut found = vec![(path.to_owned(), command.clone())];
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        found.extend(all_commands(inner, &format!("{path} {}", inner.get_name())));
    }
    found
}

#[test]
fn the_tree_of_commands_is_sound() {
    cli::command(OPERATIONS).debug_assert();
}

#[test]
fn paths_and_tools_are_unique() {
    let paths: BTreeSet<_> = OPERATIONS.iter().map(|entry| entry.path).collect();
    assert_eq!(paths.len(), OPERATIONS.len());
    let tools: Vec<_> = OPERATIONS.iter().filter_map(|entry| entry.tool).collect();
    assert_eq!(tools.iter().collect::<BTreeSet<_>>().len(), tools.len());
}

/// A next step that cannot be taken is worse than none.
#[test]
fn hints_name_commands_that_exist() {
    let mut seen = 0;
    for source in sources_of_workspace().iter().filter(|s| s.path.starts_with("host/src")) {
        for code in source.text.split('`').filter(|code| code.starts_with("pyro ")) {
            let code = code.replace("\\\n", " ");
            // What is put in while it runs, and what the reader is to put in.
            let words = code.split_whitespace().map(|word| match word.contains(['{', '<']) {
                true => "x",
                false => word,
            });
            seen += 1;
            let verdict = tree().try_get_matches_from(words);
            let Err(error) = verdict else { continue };
            let unknown = [
                clap::error::ErrorKind::InvalidSubcommand,
                clap::error::ErrorKind::UnknownArgument,
            ];
            assert!(!unknown.contains(&error.kind()), "{}: `{code}`", source.path);
        }
    }
    assert!(seen > 10, "only {seen} commands were found");
}

#[test]
fn everything_is_documented() {
    for (path, command) in all_commands(&tree(), "pyro") {
        assert!(command.get_about().is_some_and(|about| !about.to_string().is_empty()), "{path}");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{path}: {}", argument.get_id());
        }
    }
    for entry in OPERATIONS {
        let path = entry.path;
        let description = entry.description();
        let first = description.split("\n\n").next().unwrap_or_default();
        assert!(first.ends_with('.') && first.len() < 90, "{path:?}: {first}");
        let help = command_of(entry).render_help().to_string();
        assert!(help.contains("Examples:\n  "), "{path:?} has no example");
        for schema in [entry.arguments_schema(), entry.answer_schema()] {
            for (name, property) in properties(&schema) {
                assert!(property["description"].is_string(), "{path:?}: {name}");
            }
        }
    }
}

#[test]
fn words_and_json_require_the_same() {
    for entry in OPERATIONS {
        let command = command_of(entry);
        let arguments = command.get_arguments().filter(|argument| argument.is_required_set());
        let groups = command.get_groups().filter(|group| group.is_required_set());
        let required: BTreeSet<&str> = arguments
            .map(|argument| argument.get_id().as_str())
            .chain(groups.map(|group| group.get_id().as_str()))
            .collect();
        let schema = entry.arguments_schema();
        let expected: BTreeSet<&str> = required_of(&schema).collect();
        assert_eq!(required, expected, "{:?}", entry.path);
    }
}

#[test]
fn words_and_json_have_the_same_arguments() {
    for entry in OPERATIONS {
        let command = command_of(entry);
        let schema = entry.arguments_schema();
        let known: BTreeSet<&str> = properties(&schema).keys().map(String::as_str).collect();
        // An argument with several spellings is one group of that name.
        let spelled: BTreeMap<&str, &str> = command
            .get_groups()
            .filter(|group| known.contains(group.get_id().as_str()))
            .flat_map(|group| group.get_args().map(|id| (id.as_str(), group.get_id().as_str())))
            .collect();
        let words: BTreeSet<&str> = command
            .get_arguments()
            .map(|argument| argument.get_id().as_str())
            .filter(|name| !OWN_ARGUMENTS.contains(name))
            .map(|name| spelled.get(name).copied().unwrap_or(name))
            .collect();
        assert_eq!(words, known, "{:?}", entry.path);
    }
}

#[test]
fn words_and_json_have_the_same_defaults() {
    for entry in OPERATIONS {
        let schema = entry.arguments_schema();
        for argument in command_of(entry).get_arguments() {
            let name = argument.get_id().as_str();
            let Some(property) = properties(&schema).get(name) else { continue };
            let default = match argument.get_default_values() {
                [] => None,
                [value] if matches!(argument.get_action(), ArgAction::SetTrue) => {
                    Some(value.to_string_lossy().parse::<bool>().unwrap().into())
                }
                values => {
                    let text = values[0].to_string_lossy().into_owned();
                    Some(serde_json::from_str(&text).unwrap_or(Value::String(text)))
                }
            };
            // A list that is left out is empty; on the command line that goes
            // without saying.
            let stated = property.get("default").filter(|value| **value != json!([]));
            // Where they differ, help says so.
            let help = property["description"].as_str().unwrap_or_default();
            if stated.is_some_and(|stated| help.contains(&format!("In JSON {stated} if not given")))
            {
                continue;
            }
            assert_eq!(default.as_ref(), stated, "{:?} {name}", entry.path);
        }
    }
}

#[test]
fn words_and_json_have_the_same_bounds() {
    for entry in OPERATIONS {
        let schema = entry.arguments_schema();
        for (name, property) in properties(&schema) {
            let bound = |which: &str| property.get(which).and_then(Value::as_i64);
            let flag = format!("--{}", name.replace('_', "-"));
            let refused = |value: i64| {
                let words = entry.path.iter().map(|word| (*word).to_owned());
                let words = ["pyro".to_owned()].into_iter().chain(words);
                let verdict = tree()
                    .try_get_matches_from(words.chain([format!("{flag}={value}")]))
                    .map_err(|error| error.kind());
                verdict.err() == Some(clap::error::ErrorKind::ValueValidation)
            };
            let refused_json = |value: i64| {
                let complaint = entry.from_object(one_argument(&schema, name, value.into()));
                complaint.err().is_some_and(|error| error.message().contains(&format!("`{name}`")))
            };
            for (at, beyond) in [("minimum", -1), ("maximum", 1)] {
                let Some(bound) = bound(at) else { continue };
                let path = entry.path;
                assert!(!refused(bound) && !refused_json(bound), "{path:?} {name} {bound}");
                let outside = bound + beyond;
                assert!(refused(outside) && refused_json(outside), "{path:?} {name} {outside}");
            }
        }
    }
}

/// An object in which the required arguments are there, and this one.
fn one_argument(schema: &Map<String, Value>, name: &str, value: Value) -> Map<String, Value> {
    // The only pattern there is, is that of an id.
    let filler = |name: &str| {
        let property = &properties(schema)[name];
        match (property.get("pattern"), property.get("minimum")) {
            (Some(_), _) => json!("0123456789ab"),
            (None, Some(minimum)) => minimum.clone(),
            (None, None) => json!("x"),
        }
    };
    let mut object: Map<_, _> =
        required_of(schema).map(|name| (name.to_owned(), filler(name))).collect();
    object.insert(name.to_owned(), value);
    object
}

#[test]
fn json_is_taken_by_its_own_schema_only() {
    for entry in OPERATIONS {
        let stranger = Map::from_iter([("no_such_argument".to_owned(), Value::Null)]);
        let error = entry.from_object(stranger).err().expect("a stranger is refused");
        assert_eq!(error.kind(), pyro::ErrorKind::InvalidInput);
        let schema = entry.arguments_schema();
        if schema.get("required").is_some() {
            let error = entry.from_object(Map::new()).err().expect("nothing is too little");
            assert!(error.message().contains("is missing"), "{:?}: {error}", entry.path);
        }
    }
}

#[test]
fn help_pages() {
    for (path, mut command) in all_commands(&tree(), "pyro") {
        let name = format!("help {path}").replace(' ', "-");
        insta::assert_snapshot!(name, command.render_long_help().to_string());
    }
}
