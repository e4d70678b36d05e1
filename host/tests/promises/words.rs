//! I4: where words may stand.

use crate::asked::every_operation;
use clap::ArgMatches;
use pyro::cli;
use pyro::operation::OPERATIONS;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// What each argument of the innermost command was given.
fn taken(words: &[&str]) -> BTreeMap<String, Vec<OsString>> {
    let words = ["pyro"].iter().chain(words);
    let matches = cli::command(OPERATIONS).try_get_matches_from(words.clone());
    let mut matches = matches.unwrap_or_else(|error| panic!("{words:?}: {error}"));
    while let Some((_, inner)) = matches.remove_subcommand() {
        matches = inner;
    }
    // A group has no values of its own.
    let values = |matches: &ArgMatches, id: &str| {
        let raw = matches.try_get_raw(id).ok().flatten();
        raw.map(|values| values.map(OsString::from).collect())
    };
    let ids: Vec<_> = matches.ids().map(|id| id.as_str().to_owned()).collect();
    ids.into_iter().filter_map(|id| Some((id.clone(), values(&matches, &id)?))).collect()
}

#[test]
fn i4_an_option_may_stand_before_and_after_what_it_is_for() {
    for asked in every_operation() {
        let gaps = asked.gaps();
        let first = taken(&asked.with(&["--json"], gaps[0]));
        assert_eq!(first["json"], ["true"], "{}", asked.path);
        for gap in gaps {
            let words = asked.with(&["--json"], gap);
            assert_eq!(taken(&words), first, "{words:?}");
        }
    }
}

#[test]
fn i4_what_stands_after_the_dashes_is_the_programs() {
    let program = ["prog", "--json", "-x", "--help", "--", "--cwd", "/", "--version", ""];
    let mut seen = 0;
    for asked in every_operation() {
        let Some(at) = asked.words.iter().position(|word| *word == "--") else { continue };
        seen += 1;
        for options in [&["--cwd", "/tmp", "--env", "A=B"][..], &["--json"]] {
            for gap in asked.gaps() {
                let words = asked.with(options, gap);
                let end = words.len() - (asked.words.len() - at) + 1;
                let words = [&words[..end], &program].concat();
                let given = taken(&words);
                assert_eq!(given["argv"], program, "{words:?}");
                assert_eq!(given.contains_key("cwd"), options.contains(&"--cwd"), "{words:?}");
            }
        }
    }
    assert_eq!(seen, 3, "`run`, `exec` and `service start` take programs");
}

/// A list, an option, a patch: content begins as it likes.
#[test]
fn i4_content_may_begin_with_a_dash() {
    for words in [
        &["workspace", "file", "write", "w", "file", "--text", "- item"][..],
        &["workspace", "file", "edit", "w", "file", "--old", "-x", "--new", "--y"],
        &["workspace", "process", "write", "w", "0123456789ab", "--text", "-n\n"],
        &["workspace", "patch", "apply", "w", "--patch", "--- a/x\n+++ b/x\n"],
    ] {
        let given = taken(words);
        let content = words.last().map(OsString::from);
        assert!(given.values().any(|values| values.last() == content.as_ref()), "{given:?}");
    }
}
