//! The built `pyro`, as far as it needs no guest.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// `pyro` with these words, on a host on which nothing is built.
    fn pyro(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pyro"));
        command.args(words).env("PYRO_HOME", self.0.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.pyro(words).output().unwrap()
    }
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn error_of(output: &Output) -> Value {
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["ok"], false, "{document}");
    assert_eq!(output.stderr, b"");
    document["error"].clone()
}

#[test]
fn the_version_is_one_line() {
    let output = Home::new().run(&["--version"]);
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), concat!("pyro ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn help_is_an_answer_and_no_words_are_a_mistake() {
    let home = Home::new();
    let help = home.run(&["run", "--help"]);
    assert_code(&help, 0);
    assert!(text(&help.stdout).contains("--vcpu-count") && help.stderr.is_empty());
    let nothing = home.run(&[]);
    assert_code(&nothing, 2);
    assert!(nothing.stdout.is_empty() && text(&nothing.stderr).contains("Usage: pyro"));
}

#[test]
fn wrong_words_exit_with_2() {
    let home = Home::new();
    let wrong: &[&[&str]] = &[
        &["nonsense"],
        &["run"],
        &["run", "debian:12"],
        &["run", "debian:12", "--nonsense", "--", "true"],
        &["run", "debian:12", "--vcpu-count", "0", "--", "true"],
        &["run", "debian:12", "--vcpu-count", "33", "--", "true"],
        &["run", "debian:12", "--mem-mib", "127", "--", "true"],
        &["run", "debian:12", "--mem-mib", "much", "--", "true"],
        &["run", "debian:12", "--timeout-seconds", "-1", "--", "true"],
        &["run", "debian:12", "--cwd", "", "--", "true"],
        &["run", "debian:12", "--env", "=x", "--", "true"],
        &["run", "debian:12", "--shell", "true", "--", "true"],
        &["mcp", "serve", "--profile", "nonsense"],
        &["completions", "nonsense"],
    ];
    for words in wrong {
        let output = home.run(words);
        assert_code(&output, 2);
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{words:?}: {output:?}");
    }
}

#[test]
fn wrong_words_are_json_for_who_asks_for_json() {
    let home = Home::new();
    let output = home.run(&["run", "debian:12", "--json", "--vcpu-count", "99", "--", "true"]);
    assert_code(&output, 2);
    let error = error_of(&output);
    assert_eq!(error["kind"], "invalid_input");
    assert!(error["message"].as_str().unwrap().contains("from 1 to 32"), "{error}");
    // What stands after `--` is the program's.
    let output = home.run(&["run", "debian:12", "--nonsense", "--", "true", "--json"]);
    assert!(output.stdout.is_empty(), "{output:?}");
}

/// I4: flags stand before and after the environment.
#[test]
fn i4_flags_stand_anywhere_before_the_program() {
    let home = Home::new();
    for words in [
        ["run", "--vcpu-count", "2", "debian:12-none", "--", "true"],
        ["run", "debian:12-none", "--vcpu-count", "2", "--", "true"],
    ] {
        let output = home.run(&words);
        assert_code(&output, 125);
        assert!(text(&output.stderr).contains("debian:12-none"), "{output:?}");
    }
}

#[test]
fn a_program_need_not_be_utf8() {
    let home = Home::new();
    let mut command = home.pyro(&["run", "debian:12-none", "--"]);
    let output = command.arg(OsStr::from_bytes(b"a\xffb")).output().unwrap();
    assert_code(&output, 125);
}

#[test]
fn a_forgotten_separator_is_pointed_out() {
    let output = Home::new().run(&["run", "debian:12", "git", "--version"]);
    assert_code(&output, 2);
    let stderr = text(&output.stderr);
    assert!(stderr.contains("after `--`: `-- git ...`"), "{stderr}");
}

/// I7: an unknown name is an error with a next step, in both formats.
#[test]
fn i7_an_unknown_environment_is_an_error_of_pyro() {
    let home = Home::new();
    for words in [vec!["env", "inspect", "nonsense"], vec!["run", "nonsense", "--", "true"]] {
        let output = home.run(&words);
        assert_code(&output, 125);
        let stderr = text(&output.stderr);
        assert!(stderr.starts_with("pyro: ") && stderr.contains("\nhint: "), "{stderr}");
        assert!(output.stdout.is_empty());
        let mut words = words;
        words.insert(2, "--json");
        let output = home.run(&words);
        assert_code(&output, 125);
        let error = error_of(&output);
        assert!(error["kind"].is_string() && error["hint"].is_string(), "{error}");
    }
}

#[test]
fn answers_are_text_or_one_document() {
    let home = Home::new();
    let output = home.run(&["env", "list"]);
    assert_code(&output, 0);
    assert!(text(&output.stdout).starts_with("NAME "), "no colours in a pipe: {output:?}");
    let output = home.run(&["env", "list", "--json"]);
    assert_code(&output, 0);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document["environments"].is_array(), "{document}");
}

/// I5: whatever is broken, the doctor reports.
#[test]
fn i5_the_doctor_reports_on_a_bare_host() {
    let home = Home::new();
    for path in ["", "/nonexistent"] {
        let mut command = home.pyro(&["doctor", "--json"]);
        let output = command.env("PATH", path).env("PYRO_QEMU", "/nonexistent").output().unwrap();
        assert_code(&output, 1);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["chosen"], Value::Null);
        assert!(document["checks"].is_array() && document["vmms"].is_array());
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let home = Home::new();
    for words in ["--help", "env list", "env list --json", "completions bash"] {
        let words: Vec<_> = words.split(' ').collect();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = home.pyro(&words).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_code(&output, 141);
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn a_full_device_is_an_error() {
    let home = Home::new();
    for words in ["--version", "env list", "env list --json", "completions zsh"] {
        let words: Vec<_> = words.split(' ').collect();
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = home.pyro(&words).stdout(full).stderr(Stdio::piped()).output().unwrap();
        assert_code(&output, 125);
        let stderr = text(&output.stderr);
        assert!(stderr.starts_with("pyro: cannot write the output: "), "{stderr}");
    }
}

#[test]
fn r7_a_text_may_begin_with_a_dash() {
    let home = Home::new();
    for words in [
        &["patch", "apply", "nobody", "--patch", "--- a/x\n+++ b/x\n"][..],
        &["file", "write", "nobody", "f", "--text", "- a\n- b\n"],
        &["process", "write", "nobody", "0123456789ab", "--text", "-1\n"],
    ] {
        let output = home.run(&[&["workspace"], words].concat());
        assert_code(&output, 125);
        assert!(text(&output.stderr).contains("nobody"), "{output:?}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let home = Home::new();
    for (words, name) in [
        (&["man"][..], ".TH pyro 1"),
        (&["man", "workspace"], ".TH pyro-workspace 1"),
        (&["man", "workspace", "file", "read"], ".TH pyro-workspace-file-read 1"),
    ] {
        let output = home.run(words);
        assert_code(&output, 0);
        assert!(text(&output.stdout).contains(name), "{}", text(&output.stdout));
    }
    assert_code(&home.run(&["man", "nonsense"]), 2);
}

#[test]
fn an_id_alone_is_of_what_goes_on() {
    let home = Home::new();
    let exec = ["workspace", "exec", "nobody", "--id-only"];
    assert_code(&home.run(&[&exec[..], &["--", "true"]].concat()), 2);
    assert_code(&home.run(&[&exec[..], &["--detach", "--", "true"]].concat()), 125);
    let both = ["--detach", "--yield-seconds", "1", "--", "true"];
    assert_code(&home.run(&[&exec[..], &both].concat()), 2);
}

#[test]
fn completions_know_the_operations() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = home.run(&["completions", shell]);
        assert_code(&output, 0);
        assert!(text(&output.stdout).contains("inspect"), "{shell}");
    }
}
