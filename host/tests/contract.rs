//! What users and programs rely on is only added to. docs/reference/contract.json
//! has what was promised: commands with their options, tools with their schemas,
//! kinds of errors, profiles, variables. What is there now may be more, never less.
//!
//! `PYRO_BLESS=1` writes additions down. `PYRO_BLESS=break` also writes down what
//! takes something away: that is a new major version.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "contract/compare.rs"]
mod compare;
#[path = "contract/promised.rs"]
mod promised;

use compare::broken;
use serde_json::{Value, json};
use std::path::Path;

/// The version of the contract, whatever that of the program is.
const VERSION: &str = "1.0";

#[test]
fn what_was_promised_is_kept() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/contract.json");
    let bless = std::env::var("PYRO_BLESS").unwrap_or_default();
    let now = promised::now(VERSION);
    let text = format!("{}\n", serde_json::to_string_pretty(&now).unwrap());
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    if bless != "break" && !found.is_empty() {
        let frozen: Value = serde_json::from_str(&found).unwrap();
        let broken = broken(&frozen, &now);
        assert!(
            broken.is_empty(),
            "promised in docs/reference/contract.json, and not kept; `PYRO_BLESS=break cargo test \
             -p pyro --test contract` breaks the promise:\n{}",
            broken.join("\n")
        );
    }
    if bless.is_empty() {
        let hint = "`PYRO_BLESS=1 cargo test -p pyro --test contract` writes down what was added";
        assert!(found == text, "docs/reference/contract.json is stale; {hint}");
    } else {
        std::fs::write(&path, text).unwrap();
    }
}

fn contract(arguments: Value, answer: Value) -> Value {
    let object = |schema: Value| json!({ "type": "object", "properties": schema });
    json!({ "operations": { "run": {
        "tool": "vm_run", "effect": "Changes",
        "arguments": object(arguments), "answer": object(answer),
    } } })
}

#[track_caller]
fn expect(frozen: &Value, now: &Value, complaint: Option<&str>) {
    let found = broken(frozen, now);
    match complaint {
        None => assert!(found.is_empty(), "{found:?}"),
        Some(words) => {
            assert!(found.len() == 1 && found[0].contains(words), "{words}: {found:?}");
        }
    }
}

#[test]
fn more_is_no_breach_and_less_is_one() {
    let number = json!({ "type": "integer", "minimum": 1, "maximum": 8, "default": 1 });
    let frozen = contract(json!({ "n": number }), json!({ "id": { "type": "string" } }));
    let with = |key: &str, value: Value| {
        let mut now = frozen.clone();
        now["operations"]["run"]["arguments"]["properties"]["n"][key] = value;
        now
    };
    expect(&frozen, &frozen, None);
    expect(&frozen, &with("maximum", json!(32)), None);
    expect(&frozen, &with("maximum", json!(4)), Some("arguments.n.maximum"));
    expect(&frozen, &with("minimum", json!(2)), Some("arguments.n.minimum"));
    expect(&frozen, &with("default", json!(2)), Some("arguments.n.default"));
    expect(&frozen, &with("type", json!("string")), Some("arguments.n.type"));

    let mut now = frozen.clone();
    now["operations"]["run"]["arguments"]["properties"]["m"] = json!({ "type": "string" });
    now["operations"]["stop"] = json!({ "tool": null });
    now["operations"]["run"]["answer"]["properties"]["more"] = json!({ "type": "string" });
    expect(&frozen, &now, None);
    now["operations"]["run"]["arguments"]["required"] = json!(["m"]);
    expect(&frozen, &now, Some("arguments.required"));
    assert_eq!(broken(&now, &frozen).len(), 3, "an operation, an argument and a field are gone");

    let mut now = frozen.clone();
    now["operations"]["run"]["answer"]["properties"] = json!({});
    expect(&frozen, &now, Some("answer.id"));
    let mut now = frozen.clone();
    now["operations"]["run"]["tool"] = json!("run");
    expect(&frozen, &now, Some("run.tool"));
}

#[test]
fn words_are_added_and_not_taken_away() {
    let words = |words: Value| json!({ "how": { "type": "string", "enum": words } });
    let two = contract(words(json!(["a", "b"])), words(json!(["a", "b"])));
    let three = contract(words(json!(["a", "b", "c"])), words(json!(["a", "b", "c"])));
    expect(&two, &three, None);
    assert_eq!(broken(&three, &two).len(), 2);
    let maybe = json!({ "how": { "anyOf": [{ "type": "string" }, { "type": "null" }] } });
    let sure = json!({ "how": { "type": "string" } });
    expect(&contract(sure.clone(), json!({})), &contract(maybe.clone(), json!({})), None);
    expect(&contract(json!({}), maybe.clone()), &contract(json!({}), sure.clone()), None);
    expect(&contract(json!({}), sure), &contract(json!({}), maybe), Some("answer.how"));
}

#[test]
fn options_are_kept() {
    let command = |option: Value| {
        json!({ "commands": { "run": {
        "positionals": [{ "name": "ENVIRONMENT", "required": true, "many": false }],
        "options": { "--user": option },
    } } })
    };
    let given = |value: Value, many: bool| json!({ "short": null, "takes_value": value, "required": false, "many": many, "default": [] });
    let frozen = command(given(json!(true), false));
    expect(&frozen, &command(given(json!(true), true)), None);
    expect(&frozen, &command(given(json!(false), false)), Some("--user.takes_value"));
    let mut now = frozen.clone();
    now["commands"]["run"]["options"]["--group"] = json!({ "short": null, "takes_value": true, "required": true, "many": false, "default": [] });
    expect(&frozen, &now, Some("--group"));
    let mut now = frozen.clone();
    now["commands"]["run"]["positionals"] = json!([]);
    expect(&frozen, &now, Some("positionals"));
}
