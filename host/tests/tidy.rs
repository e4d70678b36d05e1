//! Habits that a machine can check, over every Rust file of the workspace.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/sources.rs"]
mod sources;

use sources::{Source, sources_of_workspace};

/// Longer files are hard to hold in one's head.
const LINES_MAX: usize = 500;

const FORBIDDEN_NAMES: &[&str] =
    &["mod", "util", "utils", "common", "helper", "helpers", "manager", "types", "misc"];

/// Split so that this file passes its own test.
const FORBIDDEN_WORDS: &[&str] = &[
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("dbg", "!("),
    concat!("#[", "ignore"),
    concat!("FIX", "ME"),
];

fn complaints(check: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    let sources = sources_of_workspace();
    assert!(sources.len() > 40, "the walk found only {} files", sources.len());
    sources.iter().flat_map(check).collect()
}

#[test]
fn files_are_short() {
    let long = complaints(|source| {
        let lines = source.text.lines().count();
        if lines > LINES_MAX { vec![format!("{}: {lines} lines", source.path)] } else { vec![] }
    });
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn names_say_something() {
    let bad = complaints(|source| {
        let stem = source.path.rsplit('/').next().and_then(|name| name.strip_suffix(".rs"));
        if stem.is_some_and(|stem| FORBIDDEN_NAMES.contains(&stem)) {
            vec![source.path.clone()]
        } else {
            vec![]
        }
    });
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn nothing_is_left_unfinished_or_switched_off() {
    let bad = complaints(|source| {
        let lines = source.text.lines().enumerate();
        lines
            .filter(|(_, line)| FORBIDDEN_WORDS.iter().any(|word| line.contains(word)))
            .map(|(number, line)| format!("{}:{}: {}", source.path, number + 1, line.trim()))
            .collect()
    });
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn lines_end_cleanly() {
    let bad = complaints(|source| {
        let lines = source.text.lines().enumerate();
        let mut bad: Vec<_> = lines
            .filter(|(_, line)| line.ends_with([' ', '\t']))
            .map(|(number, _)| format!("{}:{}: trailing blank", source.path, number + 1))
            .collect();
        if !source.text.ends_with('\n') {
            bad.push(format!("{}: no newline at the end", source.path));
        }
        bad
    });
    assert!(bad.is_empty(), "{bad:#?}");
}

/// Tests that may pass over what the host cannot show; each says why. Whoever
/// adds one raises this.
const SKIPS_MAX: usize = 11;

#[test]
fn skips_are_few_and_say_why() {
    let word = concat!("eprintln!(", "\"skipped: ");
    let skips = complaints(|source| vec![source.path.clone(); source.text.matches(word).count()]);
    assert!(skips.len() <= SKIPS_MAX, "{skips:#?}");
}
