//! What went wrong in pyro's predecessor, each under an id. A test whose name
//! begins with the id fails when that comes back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/sources.rs"]
mod sources;

use sources::sources_of_workspace;
use std::collections::{BTreeMap, BTreeSet};

/// Installing and first use, performance, correctness, security.
const FAILURES: &[(&str, &str)] = &[
    ("i1", "what is installed lacks a part"),
    ("i2", "what it depends on changes under it"),
    ("i3", "guests are reached by what few hosts have"),
    ("i4", "options are taken in one order only"),
    ("i5", "the doctor fails where it is needed"),
    ("i6", "every call begins with a second of work"),
    ("i7", "a failure is a trace, and no JSON"),
    ("i8", "an environment comes without progress, lock or a second try"),
    ("i9", "there are no images but the curated ones"),
    ("i10", "the demonstration can never pass"),
    ("p1", "every boot sleeps and polls"),
    ("p2", "every workspace copies its image"),
    ("p3", "one long command blocks the agent"),
    ("p4", "tool calls wait for one another and cannot be cancelled"),
    ("p5", "content is read byte by byte, as base64"),
    ("p6", "archives are held in the guest's memory"),
    ("p7", "a diff moves the whole workspace"),
    ("p8", "creating and starting spawn helpers"),
    ("p9", "the baseline is read for every snapshot"),
    ("p10", "waiting opens connection after connection"),
    ("p11", "reading rewrites the record"),
    ("r1", "a command runs more than once"),
    ("r2", "concurrent changes get lost"),
    ("r3", "half a record breaks everything"),
    ("r4", "a time-out kills the agent and loses the output"),
    ("r5", "modes and times get lost"),
    ("r6", "trees as they really are get rejected"),
    ("r7", "patches are not git's"),
    ("r8", "its time ends a workspace for good"),
    ("r9", "what a killed process left stays"),
    ("r10", "the dead are shown as running"),
    ("r11", "published ports die of other calls"),
    ("r12", "a stop is a power failure"),
    ("r13", "a reset destroys before it rebuilds"),
    ("r14", "a failed create leaves a directory"),
    ("r15", "a reset forgets what is outside the workspace"),
    ("r16", "what the guest refuses is tried for ten seconds"),
    ("r17", "input blocks the agent, signals miss the job"),
    ("r18", "one slow start blocks the host"),
    ("r19", "a probe that fails leaves a service running"),
    ("r20", "two guests get one subnet"),
    ("r21", "a workspace does not survive a reboot"),
    ("r22", "a screen is cut inside its sequences"),
    ("r23", "network rules stay behind"),
    ("r24", "stopped workspaces take the place of others"),
    ("r25", "names and output get changed"),
    ("s1", "the host trusts what a guest says"),
    ("s2", "the VMM has the user's rights"),
    ("s3", "state is open to other users"),
    ("s4", "a guest can fill the host"),
    ("s5", "recorded process ids are signalled"),
    ("s6", "secrets are written down"),
    ("s7", "a guest reaches the host's network"),
    ("s8", "links lead out of the workspace"),
    ("s9", "tools reach any file of the host"),
    ("s10", "anybody may speak to a guest"),
    ("s11", "everything in a guest is root"),
];

/// Of what there are failures, and how many.
const NUMBERED: &[(char, usize)] = &[('i', 10), ('p', 11), ('r', 25), ('s', 11)];

fn is_id(word: &str) -> bool {
    let mut letters = word.chars();
    let known = letters.next().is_some_and(|first| NUMBERED.iter().any(|(of, _)| *of == first));
    known && word.len() > 1 && letters.all(|letter| letter.is_ascii_digit())
}

/// The ids that a test's name begins with: `r5_r6_any_tree` has two.
fn ids(name: &str) -> impl Iterator<Item = &str> {
    name.split('_').take_while(|word| is_id(word))
}

/// The tests that carry each id.
fn tests() -> BTreeMap<String, Vec<String>> {
    let mut tests: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources_of_workspace() {
        let mut marked = false;
        for line in source.text.lines().map(str::trim) {
            let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            if let Some(name) = function.and_then(|rest| rest.split('(').next()) {
                for id in ids(name).filter(|_| marked) {
                    tests.entry(id.into()).or_default().push(format!("{}: {name}", source.path));
                }
            }
            // A mark is for the function after it, whatever else stands between.
            marked = line.starts_with("#[test]")
                || line.starts_with("#[tokio::test")
                || (marked && line.starts_with("#["));
        }
    }
    tests
}

#[test]
fn every_failure_is_listed_once() {
    let listed: Vec<&str> = FAILURES.iter().map(|(id, ..)| *id).collect();
    let numbered = |(letter, count): &(char, usize)| {
        let letter = *letter;
        (1..=*count).map(move |number| format!("{letter}{number}"))
    };
    assert_eq!(listed, NUMBERED.iter().flat_map(numbered).collect::<Vec<_>>());
}

#[test]
fn what_is_held_off_is_held_off_by_a_test() {
    let tests = tests();
    for (id, failure) in FAILURES {
        assert!(tests.contains_key(*id), "no test is called {id}_...: {failure}");
    }
}

#[test]
fn tests_carry_ids_that_exist() {
    let listed: BTreeSet<&str> = FAILURES.iter().map(|(id, ..)| *id).collect();
    for (id, carriers) in tests() {
        assert!(listed.contains(&*id), "{carriers:?}");
    }
}
