//! I7: whatever fails says so, to a person and to a program.

use crate::asked::every_operation;
use crate::pyro;
use serde_json::Value;
use std::path::Path;
use std::process::Output;

/// Those that fail only if the host does; what is wrong is in their answers.
const REPORTS: &[&str] = &["doctor", "env list"];

fn run(home: &Path, words: &[&str]) -> Output {
    let output = pyro(home).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{words:?}: {said}");
    output
}

/// One document, with an error that says what is wrong.
fn error_of(words: &[&str], output: &Output) -> Value {
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{words:?}: {error}: {output:?}"));
    assert_eq!(document["ok"], false, "{words:?}: {document}");
    let error = document["error"].clone();
    assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{words:?}: {error}");
    error
}

#[test]
fn i7_what_is_not_there_is_an_error_with_a_next_step() {
    let home = tempfile::tempdir().unwrap();
    for asked in every_operation().iter().filter(|asked| !asked.words.is_empty()) {
        let words = asked.with(&["--json"], 0);
        let output = run(home.path(), &words);
        let error = error_of(&words, &output);
        // Nobody is there either.
        let kind = if asked.path == "env pull" { "network" } else { "not_found" };
        assert_eq!(error["kind"], kind, "{words:?}: {error}");
        assert!(error["hint"].is_string(), "{words:?}: {error}");
        assert_eq!(output.status.code(), Some(125), "{words:?}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(asked.subject()), "{words:?} names nothing: {message}");

        let words = asked.with(&[], 0);
        let output = run(home.path(), &words);
        assert_eq!(output.status.code(), Some(125), "{words:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&format!("pyro: {message}\nhint: ")), "{words:?}: {said}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}

#[test]
fn i7_words_that_are_wrong_are_an_error_in_json_too() {
    let home = tempfile::tempdir().unwrap();
    for asked in every_operation() {
        let words = asked.with(&["--no-such-option", "--json"], 0);
        let output = run(home.path(), &words);
        assert_eq!(error_of(&words, &output)["kind"], "invalid_input", "{words:?}");
        assert_eq!((output.status.code(), &*output.stderr), (Some(2), &b""[..]), "{words:?}");
    }
}

/// A home that is no directory stands for all that can be wrong with a host.
#[test]
fn i7_a_host_that_is_broken_is_an_error_or_a_report() {
    let place = tempfile::tempdir().unwrap();
    let home = place.path().join("file/home");
    std::fs::write(place.path().join("file"), "").unwrap();
    for asked in every_operation() {
        let words = asked.with(&["--json"], 0);
        let output = run(&home, &words);
        if REPORTS.contains(&asked.path) {
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(report.is_object() && report.get("ok").is_none(), "{words:?}: {report}");
            continue;
        }
        let kind = error_of(&words, &output)["kind"].clone();
        assert!(kind == "io" || kind == "not_found", "{words:?}: {kind}");
        assert_eq!(output.status.code(), Some(125), "{words:?}");
    }
}
