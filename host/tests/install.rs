//! `pyro mcp install`: the server enters other programs' configurations, and
//! nothing else in them changes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Each client, its file, and what it has after a first installation.
const CLIENTS: [(&str, &str, &str); 4] = [
    ("claude", ".claude.json", "\"mcpServers\""),
    ("codex", ".codex/config.toml", "[mcp_servers.pyro]"),
    ("opencode", ".config/opencode/opencode.json", "\"type\": \"local\""),
    ("cursor", ".cursor/mcp.json", "\"mcpServers\""),
];

struct Person {
    home: TempDir,
}

impl Person {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn has(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn install(&self, words: &[&str]) -> Output {
        let mut pyro = Command::new(env!("CARGO_BIN_EXE_pyro"));
        pyro.args(["mcp", "install"]).args(words).env_clear().env("HOME", self.home.path());
        pyro.current_dir(self.home.path()).output().unwrap()
    }

    #[track_caller]
    fn installs(&self, words: &[&str]) -> String {
        let output = self.install(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn is_refused(&self, words: &[&str], why: &str) {
        let output = self.install(words);
        assert!(!output.status.success(), "{words:?}: {output:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(why), "{stderr}");
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn it_starts_where_there_was_nothing() {
    for (client, file, expected) in CLIENTS {
        let person = Person::new();
        let shown = person.installs(&[client, "--dry-run"]);
        assert!(shown.contains(file) && shown.contains("\n@@ -0,0 +1,"), "{shown}");
        assert!(!person.path(file).exists(), "nothing is written to look");
        person.installs(&[client, "--root", "."]);
        let text = read(&person.path(file));
        assert!(text.contains(expected) && text.contains(env!("CARGO_BIN_EXE_pyro")), "{text}");
        assert!(text.contains(person.home.path().to_str().unwrap()), "a root is absolute: {text}");
        let again = person.installs(&[client, "--root", "."]);
        assert!(again.contains("has it already"), "{again}");
        assert!(!person.path(&format!("{file}.before-pyro")).exists());
    }
}

/// What docs/integrations.md has to be written by hand is what is written.
#[test]
fn the_document_shows_what_is_written() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/integrations.md");
    let document = read(&document);
    for (client, file, _) in CLIENTS {
        let person = Person::new();
        fs::create_dir(person.path("src")).unwrap();
        person.installs(&[client, "--root", "src"]);
        let src = person.path("src");
        let written = read(&person.path(file))
            .replace(env!("CARGO_BIN_EXE_pyro"), "/usr/local/bin/pyro")
            .replace(src.to_str().unwrap(), "/home/me/src");
        let kind = if client == "codex" { "toml" } else { "json" };
        let block = format!("```{kind}\n{}\n```", written.trim_end());
        assert!(document.contains(&block), "{client} has:\n{block}");
    }
}

#[test]
fn what_was_there_is_kept_beside_it() {
    for (client, file, _) in CLIENTS {
        let person = Person::new();
        let before = if client == "codex" { "model = \"x\"\n" } else { "{\n  \"a\": 1.0\n}\n" };
        person.has("dotfiles/real", before);
        let path = person.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(person.path("dotfiles/real"), &path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let told = person.installs(&[client]);
        assert_eq!(read(&person.path(&format!("{file}.before-pyro"))), before, "{told}");
        assert!(path.is_symlink(), "a link stays a link");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert!(read(&path).contains("\"serve\""));
    }
}

#[test]
fn s9_once_more_neither_widens_what_it_may_nor_loses_what_was_there() {
    for (client, file, _) in CLIENTS {
        let person = Person::new();
        let before = if client == "codex" { "model = \"x\"\n" } else { "{\n  \"a\": 1.0\n}\n" };
        person.has(file, before);
        person.installs(&[client, "--profile", "vm-run", "--root", "."]);
        let confined = read(&person.path(file));
        assert!(person.installs(&[client]).contains("has it already"));
        assert_eq!(read(&person.path(file)), confined);
        let told = person.installs(&[client, "--profile", "workspace-full"]);
        let text = read(&person.path(file));
        assert!(text.contains("workspace-full") && text.contains("--root"), "{text}");
        assert!(told.contains(".before-pyro-2"), "{told}");
        assert_eq!(read(&person.path(&format!("{file}.before-pyro"))), before);
        assert_eq!(read(&person.path(&format!("{file}.before-pyro-2"))), confined);
    }
}

#[test]
fn the_environment_says_where_files_are() {
    let person = Person::new();
    let mut pyro = Command::new(env!("CARGO_BIN_EXE_pyro"));
    pyro.args(["mcp", "install", "claude"]).env_clear().env("HOME", person.home.path());
    assert!(pyro.env("CLAUDE_CONFIG_DIR", person.path("c")).status().unwrap().success());
    assert!(person.path("c/.claude.json").exists());
    person.has(".config/opencode/opencode.jsonc", "{ // mine\n}\n");
    person.installs(&["opencode"]);
    assert!(read(&person.path(".config/opencode/opencode.jsonc")).contains("// mine"));
    assert!(!person.path(".config/opencode/opencode.json").exists());
}

#[test]
fn what_makes_no_sense_is_refused_and_left() {
    let person = Person::new();
    person.is_refused(&["emacs"], "[possible values: claude, codex, opencode, cursor]");
    person.is_refused(&["claude", "--name", "a b"], "cannot be the name");
    person.is_refused(&["claude", "--root", "nowhere"], "cannot be a root");
    person.has(".cursor/mcp.json", "{\"mcpServers\": {\"pyro\": {\"command\": \"other\"}");
    person.is_refused(&["cursor"], "is no configuration of Cursor");
    person.has(".cursor/mcp.json", "{\"mcpServers\": {\"pyro\": {\"command\": \"other\"}}}");
    person.is_refused(&["cursor"], "another server with the name pyro");
    person.is_refused(&["cursor"], "`--name`");
    person.installs(&["cursor", "--name", "mine", "--profile", "vm-run"]);
    assert!(read(&person.path(".cursor/mcp.json")).contains("\"vm-run\""));
    fs::write(person.path(".claude.json"), b"{\xff}").unwrap();
    person.is_refused(&["claude"], ".claude.json");
    assert_eq!(fs::read(person.path(".claude.json")).unwrap(), b"{\xff}");
}
