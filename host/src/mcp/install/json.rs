//! Servers in JSON, with comments or without.

use super::{Misfit, is_ours};
use jsonc_parser::cst::{CstInputValue, CstObject, CstRootNode};
use jsonc_parser::{ParseOptions, json};
use serde_json::Value;

/// What OpenCode writes into a new file.
const OPENCODE_SCHEMA: &str = "https://opencode.ai/config.json";

/// The form that most clients share: `{"mcpServers": {NAME: {"command", "args"}}}`.
pub(super) fn with_mcp_server(text: &str, name: &str, words: &[String]) -> Result<String, Misfit> {
    let root = parse(text)?;
    let servers = object_in(&root_object(&root)?, "mcpServers")?;
    let (command, args) = words.split_first().ok_or(Misfit::Taken)?;
    let ours = |server: &Value| is_ours(strings(&server["args"]));
    set(
        &servers,
        name,
        vec![
            ("type", json!("stdio")),
            ("command", command.as_str().into()),
            ("args", args.to_vec().into()),
        ],
        ours,
    )?;
    Ok(root.to_string())
}

/// OpenCode's: `{"mcp": {NAME: {"type": "local", "command": [...]}}}`. Its second
/// version reads that too; a file that has the second version's own form,
/// `{"mcp": {"servers": {...}}}`, gets that.
pub(super) fn with_opencode_server(
    text: &str,
    name: &str,
    words: &[String],
) -> Result<String, Misfit> {
    let root = parse(text)?;
    let object = root_object(&root)?;
    if object.properties().is_empty() {
        object.append("$schema", json!(OPENCODE_SCHEMA));
    }
    let mcp = object_in(&object, "mcp")?;
    let mut server = vec![("type", json!("local")), ("command", words.to_vec().into())];
    let nested = mcp.object_value("servers").filter(|servers| servers.get("type").is_none());
    let servers = match nested {
        Some(servers) => servers,
        None => {
            server.push(("enabled", json!(true)));
            mcp
        }
    };
    set(&servers, name, server, |server| is_ours(strings(&server["command"])))?;
    Ok(root.to_string())
}

/// The words by which the first form starts a server; none where there is none.
pub(super) fn mcp_server_words(text: &str, name: &str) -> Vec<String> {
    let file = value(text);
    strings(&file["mcpServers"][name]["args"]).map(str::to_owned).collect()
}

/// The same in OpenCode's forms.
pub(super) fn opencode_server_words(text: &str, name: &str) -> Vec<String> {
    let file = value(text);
    let (first, second) = (&file["mcp"][name], &file["mcp"]["servers"][name]);
    let server = if first.is_null() { second } else { first };
    strings(&server["command"]).map(str::to_owned).collect()
}

/// All of a file, or null where it makes no sense.
fn value(text: &str) -> Value {
    parse(text).ok().and_then(|root| root.to_serde_value()).unwrap_or_default()
}

fn parse(text: &str) -> Result<CstRootNode, Misfit> {
    // What these clients write; nothing looser.
    let strict = ParseOptions {
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        ..ParseOptions::default()
    };
    CstRootNode::parse(text, &strict).map_err(|error| Misfit::Broken(error.to_string()))
}

fn root_object(root: &CstRootNode) -> Result<CstObject, Misfit> {
    root.object_value_or_create().ok_or_else(|| Misfit::NoObject("it".into()))
}

fn object_in(object: &CstObject, key: &str) -> Result<CstObject, Misfit> {
    object.object_value_or_create(key).ok_or_else(|| Misfit::NoObject(format!("\"{key}\"")))
}

/// Sets the fields of a server. What else a person added to it stays, such as
/// its environment.
fn set(
    servers: &CstObject,
    name: &str,
    fields: Vec<(&str, CstInputValue)>,
    ours: impl Fn(&Value) -> bool,
) -> Result<(), Misfit> {
    let Some(property) = servers.get(name) else {
        let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        servers.append(name, CstInputValue::Object(fields));
        return Ok(());
    };
    let server = property.object_value().ok_or(Misfit::Taken)?;
    let found = server.to_serde_value().unwrap_or_default();
    if !ours(&found) {
        return Err(Misfit::Taken);
    }
    for (key, value) in fields {
        match server.get(key) {
            Some(_) if found.get(key) == Some(&plain(&value)) => {}
            Some(property) => property.set_value(value),
            None => drop(server.append(key, value)),
        }
    }
    Ok(())
}

fn plain(value: &CstInputValue) -> Value {
    match value {
        CstInputValue::Null => Value::Null,
        CstInputValue::Bool(truth) => (*truth).into(),
        CstInputValue::Number(digits) => serde_json::from_str(digits).unwrap_or_default(),
        CstInputValue::String(text) => text.as_str().into(),
        CstInputValue::Array(items) => items.iter().map(plain).collect(),
        CstInputValue::Object(fields) => {
            fields.iter().map(|(key, value)| (key.clone(), plain(value))).collect()
        }
    }
}

fn strings(array: &Value) -> impl Iterator<Item = &str> {
    array.as_array().into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(extra: &[&str]) -> Vec<String> {
        ["/opt/py\"ro", "mcp", "serve"].iter().chain(extra).map(|&word| word.into()).collect()
    }

    fn read(text: &str) -> Value {
        let value = value(text);
        assert!(!value.is_null(), "{text:?} is no JSON");
        value
    }

    #[test]
    fn a_new_file() {
        insta::assert_snapshot!(with_mcp_server("", "pyro", &words(&[])).expect("it fits"));
        insta::assert_snapshot!(with_opencode_server("", "pyro", &words(&[])).expect("it fits"));
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        let text = "{\n    // dear\n    \"cost\": 1.10, \"huge\": 1e400,\n    \"mcpServers\": {\n        \"other\": {\"command\":\"x\"}\n    }, /* and */ \"z\": [1,2]\n}\n";
        let after = with_mcp_server(text, "pyro", &words(&[])).expect("it fits");
        let mut rest = after.as_str();
        for line in text.lines() {
            let line = line.strip_suffix('}').unwrap_or(line);
            let at = rest.find(line).unwrap_or_else(|| panic!("{line:?} is gone from {after}"));
            rest = &rest[at + line.len()..];
        }
        assert_eq!(after.replace("1e400", "0").parse::<Value>().ok(), None, "comments are kept");
    }

    #[test]
    fn what_a_server_was_told_is_found_again() {
        let told = words(&["--root", "/a"]);
        let text = with_mcp_server("", "pyro", &told).expect("it fits");
        assert_eq!(mcp_server_words(&text, "pyro"), told[1..]);
        for before in ["", r#"{"mcp": {"servers": {}}}"#] {
            let text = with_opencode_server(before, "pyro", &told).expect("it fits");
            assert_eq!(opencode_server_words(&text, "pyro"), told);
        }
        assert!(mcp_server_words("{", "pyro").is_empty());
    }

    #[test]
    fn twice_is_once() {
        for with in [with_mcp_server, with_opencode_server] {
            let once = with("{\"a\":1}", "pyro", &words(&["--root", "/a"])).expect("it fits");
            assert_eq!(with(&once, "pyro", &words(&["--root", "/a"])).as_ref(), Ok(&once));
        }
    }

    #[test]
    fn an_own_server_is_brought_up_to_date() {
        let text =
            r#"{"mcpServers":{"pyro":{"command":"old","args":["mcp","serve"],"env":{"A":"b"}}}}"#;
        let after = read(&with_mcp_server(text, "pyro", &words(&["--root", "/a"])).expect("fits"));
        let server = &after["mcpServers"]["pyro"];
        assert_eq!(server["command"], "/opt/py\"ro");
        assert_eq!(server["args"], serde_json::json!(["mcp", "serve", "--root", "/a"]));
        assert_eq!(server["env"]["A"], "b");
    }

    #[test]
    fn anothers_server_is_left_alone() {
        let text = r#"{"mcpServers":{"pyro":{"command":"python3","args":["-m","pyro"]}}}"#;
        assert_eq!(with_mcp_server(text, "pyro", &words(&[])), Err(Misfit::Taken));
        let text = r#"{"mcp":{"pyro":{"type":"remote","url":"https://pyro.test"}}}"#;
        assert_eq!(with_opencode_server(text, "pyro", &words(&[])), Err(Misfit::Taken));
    }

    #[test]
    fn the_second_form_of_opencode_is_kept() {
        let text = r#"{"mcp": {"servers": {"x": {"type": "local", "command": ["x"]}}}}"#;
        let after = read(&with_opencode_server(text, "pyro", &words(&[])).expect("it fits"));
        assert_eq!(after["mcp"]["servers"]["pyro"]["type"], "local");
        assert!(after["mcp"]["servers"]["pyro"].get("enabled").is_none());
        assert!(after["mcp"].get("pyro").is_none());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["{", "[]", "3", "{\"mcpServers\": []}", "{a: 1}", "{} {}"] {
            assert!(with_mcp_server(text, "pyro", &words(&[])).is_err(), "{text}");
        }
    }
}
