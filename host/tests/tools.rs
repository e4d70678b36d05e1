//! What models are told of the tools.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use pyro::mcp::{PROFILES, Tools};
use pyro::operation::OPERATIONS;
use serde_json::{Value, json};

#[test]
fn profiles_offer_what_exists() {
    for profile in PROFILES {
        for offer in profile.tools.into_iter().flatten() {
            let entry = OPERATIONS.iter().find(|entry| entry.tool == Some(offer.tool));
            let entry = entry.unwrap_or_else(|| panic!("{}: {}", profile.name, offer.tool));
            let schema = entry.arguments_schema();
            let required = schema.get("required").cloned().unwrap_or_default();
            for hidden in offer.without {
                assert!(schema["properties"].get(hidden).is_some(), "{}: {hidden}", offer.tool);
                assert!(!required.as_array().is_some_and(|all| all.contains(&json!(hidden))));
            }
        }
    }
}

/// How much of every conversation a list of tools may take.
#[test]
fn the_core_is_small() {
    const TOOLS_MAX: usize = 16;
    const BYTES_MAX: usize = 16 * 1024;
    const DESCRIPTION_MAX: usize = 400;
    let core = PROFILES.iter().find(|profile| profile.name == "workspace-core").unwrap();
    let tools = Tools::of(OPERATIONS, core).list();
    assert!(tools.len() <= TOOLS_MAX, "{} tools", tools.len());
    let sizes: Vec<_> = tools
        .iter()
        .map(|tool| (tool.name.as_ref(), serde_json::to_string(tool).unwrap().len()))
        .collect();
    let list = json!({ "tools": tools });
    let bytes = serde_json::to_string(&list).unwrap().len();
    assert!(bytes <= BYTES_MAX, "{bytes} bytes: {sizes:?}");
    for entry in OPERATIONS.iter().filter(|entry| entry.tool.is_some()) {
        let length = entry.description().len();
        assert!(length <= DESCRIPTION_MAX, "{:?}: {length} bytes", entry.tool);
    }
}

/// What clients refuse of schemas, as far as any is known to.
#[test]
fn schemas_are_plain() {
    fn visit(schema: &Value, at: &str) {
        if let Some(object) = schema.as_object() {
            assert!(!object.contains_key("$ref") && !object.contains_key("$defs"), "{at}");
            assert!(!object.get("type").is_some_and(Value::is_array), "{at}: several types");
            let own = ["description", "default"];
            assert!(object.keys().any(|key| !own.contains(&key.as_str())), "{at}: anything goes");
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            visit(property, &format!("{at}.{name}"));
        }
        for keyword in ["anyOf", "oneOf", "allOf"] {
            for schema in schema[keyword].as_array().into_iter().flatten() {
                visit(schema, at);
            }
        }
        for keyword in ["items", "additionalProperties"] {
            if schema[keyword].is_object() {
                visit(&schema[keyword], at);
            }
        }
    }
    for profile in PROFILES {
        for tool in Tools::of(OPERATIONS, profile).list() {
            let (arguments, answer) = (&*tool.input_schema, tool.output_schema.unwrap());
            for schema in [arguments, &*answer] {
                let schema = Value::Object(schema.clone());
                jsonschema::draft202012::meta::validate(&schema).unwrap();
                assert_eq!(schema["type"], "object", "{}", tool.name);
                visit(&schema, &tool.name);
            }
            assert_eq!(arguments["additionalProperties"], false);
        }
    }
}

#[test]
fn tools_say_what_they_do_to_what_is_there() {
    for tool in Tools::of(OPERATIONS, &PROFILES[1]).list() {
        let hints = tool.annotations.unwrap();
        assert_eq!(hints.open_world_hint, Some(false), "{}", tool.name);
        match hints.read_only_hint {
            Some(true) => assert_eq!(hints.destructive_hint, None, "{}", tool.name),
            _ => assert!(hints.destructive_hint.is_some(), "{}", tool.name),
        }
        assert!(tool.title.is_some_and(|title| title.starts_with(char::is_uppercase)));
    }
}

/// A word in a description that is an argument of the operation is one that the
/// model may give.
#[test]
fn descriptions_name_what_is_offered() {
    for profile in PROFILES {
        let tools = Tools::of(OPERATIONS, profile).list();
        for tool in &tools {
            let entry = OPERATIONS.iter().find(|entry| entry.tool == Some(&*tool.name)).unwrap();
            let all = entry.arguments_schema();
            let description = tool.description.as_deref().unwrap();
            for word in description.split('`').skip(1).step_by(2) {
                let is_argument = all["properties"].get(word).is_some();
                let is_offered = tool.input_schema["properties"].get(word).is_some();
                let is_tool = tools.iter().any(|tool| tool.name == format!("workspace_{word}"));
                let is_word = word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                assert!(is_offered || !is_argument, "{}: {}: {word}", profile.name, tool.name);
                // An argument of another tool, as one that has to be given before.
                let is_anothers =
                    tools.iter().any(|tool| tool.input_schema["properties"].get(word).is_some());
                let is_known = is_offered || is_tool || is_anothers;
                assert!(is_known || !is_word, "{}: {}: {word}", profile.name, tool.name);
            }
        }
    }
}

/// A client asks its person before a call that may destroy something.
#[test]
fn tools_that_can_destroy_say_so() {
    let can = [
        "workspace_exec",
        "process_signal",
        "service_start",
        "service_stop",
        "service_restart",
        "service_remove",
        "shell_write",
        "shell_signal",
        "shell_close",
        "workspace_file_write",
        "workspace_file_delete",
        "workspace_file_move",
        "workspace_sync_push",
        "workspace_export",
        "workspace_disk_export",
        "workspace_patch_apply",
        "secret_set",
        "secret_delete",
        "snapshot_delete",
        "workspace_reset",
        "workspace_delete",
    ];
    for tool in Tools::of(OPERATIONS, &PROFILES[1]).list() {
        let destroys = tool.annotations.unwrap().destructive_hint == Some(true);
        assert_eq!(destroys, can.contains(&&*tool.name), "{}", tool.name);
    }
}

/// What answers point to, every model that gets them can call.
#[test]
fn the_core_can_read_all_of_an_output() {
    let offer = PROFILES[0].offer("workspace_logs").unwrap();
    for needed in ["sequence", "offset_bytes", "output_limit_bytes"] {
        assert!(!offer.without.contains(&needed));
    }
}

#[test]
fn tools_list() {
    for profile in PROFILES {
        let name = format!("tools-{}", profile.name);
        insta::assert_json_snapshot!(name, Tools::of(OPERATIONS, profile).list());
    }
}
