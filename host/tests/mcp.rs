//! The MCP server of the built `pyro`, spoken to in plain lines.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/client.rs"]
mod client;
#[path = "support/sources.rs"]
mod sources;

use client::Client;
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

fn server(words: &[&str]) -> Command {
    let mut server = Command::new(env!("CARGO_BIN_EXE_pyro"));
    server.args(["mcp", "serve"]).args(words).env("PYRO_HOME", env!("CARGO_TARGET_TMPDIR"));
    server.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    server
}

fn start(words: &[&str]) -> Client {
    Client::of(server(words).spawn().unwrap())
}

fn greeted(words: &[&str]) -> Client {
    let mut client = start(words);
    client.initialize(WITH_HANDSHAKE);
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

/// The eras before and after the handshake was given up; the second is where
/// each request says what it needs.
const WITH_HANDSHAKE: &str = "2025-11-25";
const WITHOUT: &str = "2026-07-28";

#[test]
fn the_handshake_settles_on_a_revision_that_has_one() {
    for (asked, settled) in [
        (WITH_HANDSHAKE, WITH_HANDSHAKE),
        ("2025-06-18", "2025-06-18"),
        (WITHOUT, WITH_HANDSHAKE),
        ("2099-01-01", WITH_HANDSHAKE),
    ] {
        let mut client = start(&[]);
        let answer = client.initialize(asked);
        assert_eq!(answer["protocolVersion"], settled, "{asked}");
        assert_eq!(answer["serverInfo"]["name"], "pyro");
        assert!(answer["instructions"].as_str().is_some_and(|text| text.len() < 1024));
        let list = client.ask("tools/list", json!({}));
        assert!(list["result"]["tools"].is_array(), "{list}");
        assert!(client.leave().status.success());
    }
}

fn meta(version: &str) -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "0" },
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

#[test]
fn the_current_revision_needs_no_handshake() {
    let mut client = start(&[]);
    let answer = client.ask("server/discover", json!({ "_meta": meta(WITHOUT) }));
    let versions = answer["result"]["supportedVersions"].as_array().unwrap();
    assert!(versions.contains(&json!(WITHOUT)) && versions.contains(&json!(WITH_HANDSHAKE)));
    let list = client.ask("tools/list", json!({ "_meta": meta(WITHOUT) }));
    assert_eq!(list["result"]["resultType"], "complete", "{list}");
    let arguments = json!({ "name": "workspace_list", "arguments": {}, "_meta": meta(WITHOUT) });
    let answer = client.ask("tools/call", arguments);
    assert!(answer["result"]["structuredContent"]["workspaces"].is_array(), "{answer}");
    let unknown = client.ask("tools/list", json!({ "_meta": meta("2099-01-01") }));
    assert_eq!(unknown["error"]["code"], -32022, "{unknown}");
    let bare = client.ask("tools/list", json!({}));
    assert_eq!(bare["error"]["code"], -32602, "{bare}");
    assert!(client.leave().status.success());
}

#[test]
fn the_profile_chooses_the_tools() {
    let names = |words: &[&str]| {
        let mut client = greeted(words);
        let answer = client.ask("tools/list", json!({}));
        let tools = answer["result"]["tools"].as_array().unwrap().clone();
        assert!(client.leave().status.success());
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&["--profile", "vm-run"]), ["vm_run"]);
    let (core, full) =
        (names(&["--profile", "workspace-core"]), names(&["--profile=workspace-full"]));
    assert_eq!(names(&[]), core, "the core is the default");
    assert!(core.iter().all(|tool| full.contains(tool)) && core.len() < full.len());
}

/// S9: a model names files of the host below the roots and nowhere else.
#[test]
fn s9_tools_reach_files_of_the_host_below_the_roots_only() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(outside.path(), root.path().join("way-out")).unwrap();
    let dir = root.path().to_str().unwrap();
    let mut client = greeted(&["--root", dir]);
    for path in ["/etc", "..", "way-out", outside.path().to_str().unwrap()] {
        let arguments = json!({ "environment": "debian:12", "seed_path": path });
        let answer = client.call("workspace_create", arguments);
        assert_failed(&answer, "is outside the roots");
        let text = answer["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text.contains(dir), "{text}");
    }
    // Within, it is the missing environment that is complained of.
    let arguments = json!({ "environment": "debian:12-none", "seed_path": "." });
    assert_failed(&client.call("workspace_create", arguments), "debian:12-none");
    assert!(client.leave().status.success());
}

/// Every argument that names a file of the host, in a call that lacks nothing
/// else; whether the workspace is there does not come into it.
fn host_paths() -> Vec<(&'static str, &'static str, Value)> {
    let of = |more: Value| {
        let mut all = json!({ "workspace_id": "no-such" });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    vec![
        ("workspace_create", "seed_path", json!({ "environment": "debian:12" })),
        ("workspace_create", "seed_git", json!({ "environment": "debian:12" })),
        ("workspace_sync_push", "source_path", of(json!({}))),
        ("workspace_export", "output_path", of(json!({ "path": "file" }))),
        ("workspace_disk_export", "output_path", of(json!({}))),
        ("workspace_patch_apply", "patch_file", of(json!({}))),
        ("workspace_file_write", "text_file", of(json!({ "path": "file" }))),
        ("secret_set", "file", of(json!({ "name": "NAME" }))),
    ]
}

#[test]
fn s9_no_argument_names_a_file_outside_the_roots() {
    let marked = |source: &sources::Source| {
        let ours = source.path.starts_with("host/src/operation/");
        if ours { source.text.matches(r#"#[schemars(with = "HostPath")]"#).count() } else { 0 }
    };
    let marked: usize = sources::sources_of_workspace().iter().map(marked).sum();
    assert_eq!(marked, host_paths().len(), "each is tried below");
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("file"), "secret").unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("way-out")).unwrap();
    let words = ["--profile", "workspace-full", "--root", root.path().to_str().unwrap()];
    let mut client = greeted(&words);
    let absolute = outside.path().join("file");
    for (tool, argument, arguments) in host_paths() {
        for path in [absolute.to_str().unwrap(), "way-out/file", "../file", "way-out/new"] {
            let mut arguments = arguments.clone();
            arguments[argument] = path.into();
            assert_failed(&client.call(tool, arguments), "is outside the roots");
        }
    }
    assert!(client.leave().status.success());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn s9_the_roots_are_where_the_server_was_started() {
    for (started, allowed) in [("/usr", "/usr/lib"), ("/", "")] {
        let server = server(&[]).current_dir(started).spawn();
        let mut client = Client::of(server.unwrap());
        client.initialize(WITH_HANDSHAKE);
        let create = |path: &str| json!({ "environment": "debian:12-none", "seed_path": path });
        let outside = client.call("workspace_create", create("/etc"));
        assert_failed(&outside, "is outside the roots");
        if !allowed.is_empty() {
            assert_failed(&client.call("workspace_create", create(allowed)), "debian:12-none");
        }
        assert!(client.leave().status.success());
    }
}

#[test]
fn a_root_must_be_there() {
    let output = start(&["--root", "/nowhere"]).leave();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere cannot be a root"));
}

#[test]
fn next_steps_are_tools() {
    let mut client = greeted(&[]);
    let missing = client.call("workspace_reset", json!({ "workspace_id": "no-such" }));
    assert_failed(&missing, "next step: `workspace_list` shows");
    let stranger = client.call("workspace_create", json!({ "environment": "debian:12" }));
    assert_failed(&stranger, "(on the host; ask the person who runs it)");
    assert!(client.leave().status.success());
}

/// What is answered without a guest fits what `tools/list` says of it; what goes
/// wrong claims nothing.
#[test]
fn answers_fit_their_schemas() {
    let mut client = greeted(&["--profile", "workspace-full"]);
    let list = client.ask("tools/list", json!({}));
    for tool in list["result"]["tools"].as_array().unwrap() {
        let name = tool["name"].as_str().unwrap();
        let schema = jsonschema::draft202012::new(&tool["outputSchema"]).unwrap();
        if ["env_list", "workspace_list"].contains(&name) {
            let answer = client.call(name, json!({}));
            let content = &answer["result"]["structuredContent"];
            assert!(schema.is_valid(content), "{name}: {content}");
        }
        let answer = client.call(name, json!({ "no_such_argument": 1 }));
        assert_failed(&answer, "no argument `no_such_argument`");
    }
    assert!(client.leave().status.success());
}

#[test]
fn an_answer_is_text_first_and_the_same_as_structure() {
    let mut client = greeted(&["--profile", "workspace-full"]);
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
    let mut client = greeted(&["--profile", "workspace-full"]);
    let run = |arguments: Value| {
        let mut all = json!({ "environment": "debian:12-none", "command": "true" });
        all.as_object_mut().unwrap().extend(arguments.as_object().unwrap().clone());
        all
    };
    assert_failed(&client.call("vm_run", run(json!({}))), "debian:12-none");
    let silent = json!({ "environment": "debian:12" });
    assert_failed(&client.call("vm_run", silent), "debian:12 does not say what to run");
    assert_failed(&client.call("vm_run", json!({ "command": "x" })), "`environment` is missing");
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
fn p4_calls_are_answered_concurrently() {
    let mut client = greeted(&["--profile", "workspace-full"]);
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
