//! The MCP server of the built `pyro`, spoken to in plain lines.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/client.rs"]
mod client;

use client::Client;
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

fn start(words: &[&str]) -> Client {
    let server = Command::new(env!("CARGO_BIN_EXE_pyro"))
        .args(["mcp", "serve"])
        .args(words)
        .env("PYRO_HOME", env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    Client::of(server.unwrap())
}

fn greeted(words: &[&str]) -> Client {
    let mut client = start(words);
    client.initialize("2025-11-25");
    client
}

#[track_caller]
fn assert_failed(answer: &Value, words: &str) {
    let result = &answer["result"];
    assert_eq!(result["isError"], true, "{answer}");
    let text = result["content"][0]["text"].as_str().unwrap();
    assert!(text.contains(words) && text.contains("\nnext step: "), "{text}");
    assert!(result.get("structuredContent").is_none(), "{answer}");
    assert!(result["_meta"]["pyro/error"]["kind"].is_string(), "{answer}");
}

#[test]
fn the_current_revision_and_the_previous_are_spoken() {
    for version in ["2025-11-25", "2025-06-18"] {
        let mut client = start(&[]);
        let answer = client.initialize(version);
        assert_eq!(answer["protocolVersion"], version);
        assert_eq!(answer["serverInfo"]["name"], "pyro");
        assert!(client.leave().status.success());
    }
}

#[test]
fn the_profile_chooses_the_tools() {
    let mut names = Vec::new();
    for profile in ["vm-run", "workspace-full"] {
        let mut client = greeted(&["--profile", profile]);
        let answer = client.ask("tools/list", json!({}));
        let tools = answer["result"]["tools"].as_array().unwrap().clone();
        names.push(tools.iter().map(|tool| tool["name"].clone()).collect::<Vec<_>>());
        assert!(client.leave().status.success());
    }
    assert_eq!(names[0], ["vm_run"]);
    assert!(names[1].len() > 1 && names[1].contains(&json!("vm_run")));
}

#[test]
fn an_answer_is_text_first_and_the_same_as_structure() {
    let mut client = greeted(&[]);
    let answer = client.call("env_list", json!({}));
    let result = &answer["result"];
    assert_eq!(result["isError"], false, "{answer}");
    let text = result["content"][0]["text"].as_str().unwrap();
    for environment in result["structuredContent"]["environments"].as_array().unwrap() {
        assert!(text.contains(environment["name"].as_str().unwrap()), "{text}");
    }
    assert!(client.leave().status.success());
}

#[test]
fn a_tool_that_fails_says_what_to_do() {
    let mut client = greeted(&[]);
    let run = |arguments: Value| {
        let mut all = json!({ "environment": "debian:12-none", "command": "true" });
        all.as_object_mut().unwrap().extend(arguments.as_object().unwrap().clone());
        all
    };
    assert_failed(&client.call("vm_run", run(json!({}))), "debian:12-none");
    assert_failed(&client.call("vm_run", json!({ "environment": "x" })), "`command` is missing");
    assert_failed(&client.call("vm_run", run(json!({ "cmd": 1 }))), "no argument `cmd`");
    assert_failed(&client.call("vm_run", run(json!({ "command": [] }))), "argument `command`");
    assert_failed(&client.call("vm_run", run(json!({ "vcpu_count": 33 }))), "from 1 to 32");
    assert_failed(&client.call("vm_run", run(json!({ "env": { "A=B": "" } }))), "argument `env`");
    let unknown = client.call("no_such_tool", json!({}));
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
    assert!(client.leave().status.success());
}

/// P4: calls do not wait for one another, nor does a ping for them.
#[test]
fn calls_are_answered_concurrently() {
    let mut client = greeted(&[]);
    let ids: Vec<u64> = (100..120).collect();
    for id in &ids {
        let params = json!({ "name": "env_list", "arguments": {} });
        client
            .say(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }));
    }
    client.say(&json!({ "jsonrpc": "2.0", "id": 200, "method": "ping" }));
    let mut heard: Vec<_> = (0..21).map(|_| client.hear()["id"].as_u64().unwrap()).collect();
    heard.sort_unstable();
    assert_eq!(heard, ids.into_iter().chain([200]).collect::<Vec<_>>());
    assert!(client.leave().status.success());
}

#[test]
fn nonsense_does_not_end_the_server() {
    let mut client = greeted(&[]);
    writeln!(client.to.as_mut().unwrap(), "this is no JSON").unwrap();
    client.say(&json!({ "jsonrpc": "2.0", "id": 7, "method": "no/such/method" }));
    loop {
        let message = client.hear();
        if message["id"] == 7 {
            assert!(message["error"].is_object(), "{message}");
            break;
        }
    }
    let output = client.leave();
    assert!(output.status.success());
    assert_eq!(output.stderr, b"");
}

#[test]
fn a_client_that_says_nothing_may_leave() {
    let output = start(&[]).leave();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
