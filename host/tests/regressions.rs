//! What went wrong in pyro's predecessor, each under an id. A test whose name
//! begins with the id fails when that comes back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/sources.rs"]
mod sources;

use Held::{InPart, Now, Waits};
use sources::sources_of_workspace;
use std::collections::{BTreeMap, BTreeSet};

/// Whether tests hold a failure off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// They do.
    Now,
    /// As far as there is anything to fail; the rest comes with this.
    InPart(&'static str),
    /// It needs something that is not there yet.
    Waits(&'static str),
}

/// Installing and first use, performance, correctness, security.
const FAILURES: &[(&str, &str, Held)] = &[
    ("i1", "what is installed lacks a part", Now),
    ("i2", "what it depends on changes under it", Now),
    ("i3", "guests are reached by what few hosts have", Now),
    ("i4", "options are taken in one order only", Now),
    ("i5", "the doctor fails where it is needed", Now),
    ("i6", "every call begins with a second of work", Now),
    ("i7", "a failure is a trace, and no JSON", Now),
    ("i8", "an environment comes without progress, lock or a second try", InPart("registries")),
    ("i9", "there are no images but the curated ones", Waits("registries")),
    ("i10", "the demonstration can never pass", Waits("demo")),
    ("p1", "every boot sleeps and polls", Now),
    ("p2", "every workspace copies its image", Now),
    ("p3", "one long command blocks the agent", Now),
    ("p4", "tool calls wait for one another and cannot be cancelled", Now),
    ("p5", "content is read byte by byte, as base64", Now),
    ("p6", "archives are held in the guest's memory", Now),
    ("p7", "a diff moves the whole workspace", Now),
    ("p8", "creating and starting spawn helpers", Now),
    ("p9", "the baseline is read for every snapshot", InPart("snapshots")),
    ("p10", "waiting opens connection after connection", Now),
    ("p11", "reading rewrites the record", Now),
    ("r1", "a command runs more than once", Now),
    ("r2", "concurrent changes get lost", Now),
    ("r3", "half a record breaks everything", Now),
    ("r4", "a time-out kills the agent and loses the output", Now),
    ("r5", "modes and times get lost", InPart("snapshots")),
    ("r6", "trees as they really are get rejected", Now),
    ("r7", "patches are not git's", Now),
    ("r8", "its time ends a workspace for good", Now),
    ("r9", "what a killed process left stays", Now),
    ("r10", "the dead are shown as running", Now),
    ("r11", "published ports die of other calls", Now),
    ("r12", "a stop is a power failure", Now),
    ("r13", "a reset destroys before it rebuilds", Now),
    ("r14", "a failed create leaves a directory", Now),
    ("r15", "a reset forgets what is outside the workspace", InPart("snapshots")),
    ("r16", "what the guest refuses is tried for ten seconds", Now),
    ("r17", "input blocks the agent, signals miss the job", Now),
    ("r18", "one slow start blocks the host", Now),
    ("r19", "a probe that fails leaves a service running", Now),
    ("r20", "two guests get one subnet", Now),
    ("r21", "a workspace does not survive a reboot", Now),
    ("r22", "a screen is cut inside its sequences", Now),
    ("r23", "network rules stay behind", Now),
    ("r24", "stopped workspaces take the place of others", Now),
    ("r25", "names and output get changed", Now),
    ("s1", "the host trusts what a guest says", Now),
    ("s2", "the VMM has the user's rights", Now),
    ("s3", "state is open to other users", Now),
    ("s4", "a guest can fill the host", Now),
    ("s5", "recorded process ids are signalled", Now),
    ("s6", "secrets are written down", Now),
    ("s7", "a guest reaches the host's network", Now),
    ("s8", "links lead out of the workspace", Now),
    ("s9", "tools reach any file of the host", Now),
    ("s10", "anybody may speak to a guest", InPart("registries")),
    ("s11", "everything in a guest is root", Now),
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
    for (id, failure, held) in FAILURES {
        match held {
            Now | InPart(_) => {
                assert!(tests.contains_key(*id), "no test is called {id}_...: {failure}");
            }
            // Whoever writes its test takes it off the list.
            Waits(what) => assert_eq!(tests.get(*id), None, "{id} does not wait for {what}"),
        }
    }
}

#[test]
fn tests_carry_ids_that_exist() {
    let listed: BTreeSet<&str> = FAILURES.iter().map(|(id, ..)| *id).collect();
    for (id, carriers) in tests() {
        assert!(listed.contains(&*id), "{carriers:?}");
    }
}
