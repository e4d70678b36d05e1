//! Programs that others wrote speak to the server: the official client library,
//! and the inspector, which finds fault with schemas. Both in both eras of the
//! protocol: with the handshake, and without.

use pyro_smoke::installed::{from_npm, from_pypi};
use pyro_smoke::{Home, pyro_executable, stderr};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

/// The library, pinned: what it accepts today it accepts tomorrow.
const LIBRARY: &str = "mcp==2.3.0";
const AGENTS: &str = "openai-agents==0.24.0";
const INSPECTOR: &str = "@modelcontextprotocol/inspector@2.12.0";

fn tell_the_story(mode: &str) {
    let Some(library) = from_pypi(LIBRARY) else { return };
    let home = Home::new();
    let root = TempDir::new().expect("a directory");
    let seed = root.path().join("seed");
    std::fs::create_dir(&seed).expect("made");
    std::fs::write(seed.join("hello.txt"), "hello\n").expect("written");
    let story = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp_clients/story.py");
    let output = Command::new("python3")
        .arg(story)
        .arg(pyro_executable())
        .arg(mode)
        .args([&seed, root.path()])
        .env("PYTHONPATH", library)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYRO_HOME", home.path())
        .output()
        .expect("python3 starts");
    assert!(output.status.success(), "{}", stderr(&output));
    home.expect_clean_within(Duration::from_secs(5));
}

#[test]
fn the_official_client_works_through_a_workspace_with_the_handshake() {
    tell_the_story("legacy");
}

#[test]
fn the_official_client_works_through_a_workspace_without_the_handshake() {
    tell_the_story("auto");
}

/// The program of docs/integrations.md, a model's part played by a few calls.
#[test]
fn the_agents_sdk_works_as_documented() {
    let Some(library) = from_pypi(AGENTS) else { return };
    let home = Home::new();
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/integrations.md");
    let program = pyro_executable().canonicalize().expect("it is there");
    let directory = program.parent().expect("it is in a directory");
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").expect("PATH is set"));
    let story = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp_clients/agents_sdk.py");
    let output = Command::new("python3")
        .args([story, document])
        .env("PATH", path)
        .env("PYTHONPATH", library)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYRO_HOME", home.path())
        .current_dir(home.path())
        .output()
        .expect("python3 starts");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Linux\n");
    home.expect_clean_within(Duration::from_secs(5));
}

fn inspect(inspector: &Path, home: &Home, words: &[&str]) -> Output {
    let program = inspector.join("node_modules/.bin/mcp-inspector");
    let mut command = Command::new(program);
    command.arg("--cli").args(words).arg("--").arg(pyro_executable());
    command.args(["mcp", "serve", "--profile", "workspace-full"]).env("PYRO_HOME", home.path());
    command.output().expect("node starts")
}

#[test]
fn the_inspector_finds_no_fault() {
    let Some(inspector) = from_npm(INSPECTOR) else { return };
    let home = Home::new();
    for era in ["legacy", "modern"] {
        let list = ["--protocol-era", era, "--method", "tools/list", "--strict"];
        let output = inspect(&inspector, &home, &list);
        let said = stderr(&output);
        assert!(output.status.success(), "{era}: {said}");
        // Not even a warning, which would not fail it.
        assert!(!said.contains("tool \""), "{era}: {said}");
        let call = ["--protocol-era", era, "--method", "tools/call", "--tool-name", "vm_run"];
        let arguments = r#"{"environment":"debian:12","command":"uname -s"}"#;
        let words: Vec<_> = call.into_iter().chain(["--tool-args-json", arguments]).collect();
        let output = inspect(&inspector, &home, &words);
        let answer: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(answer["structuredContent"]["stdout"], "Linux\n", "{era}: {answer}");
    }
    home.expect_clean_within(Duration::from_secs(5));
}
