use super::*;
use crate::event::Stream;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

fn history() -> (tempfile::TempDir, History) {
    let home = tempfile::tempdir().expect("a directory");
    let history = History::within(home.path());
    (home, history)
}

fn command(line: &str) -> Command {
    let argv = vec![b"sh".to_vec(), b"-c".to_vec(), line.as_bytes().to_vec()];
    Command { line: line.into(), argv, cwd: "/workspace".into(), user: "root".into() }
}

fn ended(exit_code: u8) -> Ending {
    Ending::Ended { exit_code, signal: None, timed_out: false, duration_ms: 7 }
}

fn record(history: &History, line: &str) -> u64 {
    let mut recorder = history.begin(command(line)).expect("begun");
    recorder.push(Stream::Stdout, line.as_bytes());
    let sequence = recorder.sequence();
    recorder.finish(ended(0)).expect("written");
    sequence
}

fn all(limit: usize) -> Range {
    Range { before: None, after: None, limit }
}

#[test]
fn r2_what_is_recorded_brings_no_deleted_workspace_back() {
    let (home, history) = history();
    let mut recorder = history.begin(command("sleep 100")).expect("begun");
    let path = home.path().to_owned();
    drop(home);
    let id = "0123456789ab".parse().expect("an id");
    assert!(history.name_process(&mut recorder, id).is_err());
    drop(recorder.finish(ended(0)));
    assert!(history.begin(command("true")).is_err());
    assert!(!path.exists());
}

#[test]
fn what_is_recorded_is_read_back() {
    let (_home, history) = history();
    assert!(history.entries(all(10)).expect("none yet").is_empty());
    let mut recorder = history.begin(command("make test")).expect("begun");
    recorder.push(Stream::Stdout, b"out\xff");
    recorder.push(Stream::Stderr, b"err");
    recorder.push(Stream::Stdout, b"put");
    let open = history.entry(1).expect("there");
    assert!(open.is_being_recorded && open.record.ending == Ending::Open);
    assert_eq!(open.output(Stream::Stdout).expect("there").extent().bytes, 7);
    recorder.finish(ended(3)).expect("written");
    let found = history.entry(1).expect("there");
    assert!(!found.is_being_recorded);
    assert_eq!((found.record.ending.clone(), found.record.stderr.bytes), (ended(3), 3));
    let ends = found.output(Stream::Stdout).expect("there").ends(100).expect("read");
    assert_eq!(ends, Ends { head: b"out\xffput".to_vec(), tail: Vec::new(), total: 7 });
    assert_eq!(history.entry(2).expect_err("none").kind(), ErrorKind::NotFound);
}

#[test]
fn a_caller_that_was_killed_leaves_what_there_was() {
    let (_home, history) = history();
    let mut recorder = history.begin(command("sleep 1000")).expect("begun");
    recorder.push(Stream::Stdout, b"so far");
    // As a kill does: nothing more is written, the lock is gone.
    drop(recorder);
    let found = history.entry(1).expect("there");
    assert!(!found.is_being_recorded && found.record.ending == Ending::Open);
    let ends = found.output(Stream::Stdout).expect("there").ends(100).expect("read");
    assert_eq!(ends.head, b"so far");
    assert_eq!(record(&history, "next"), 2);
}

#[test]
fn r2_no_number_is_taken_twice_and_none_is_lost() {
    let (_home, history) = history();
    let taken: Vec<u64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let history = history.clone();
                scope.spawn(move || {
                    (0..25).map(|n| record(&history, &format!("{writer} {n}"))).collect::<Vec<_>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().expect("it writes")).collect()
    });
    assert_eq!(taken.iter().copied().collect::<BTreeSet<_>>(), (1..=200).collect());
    let entries = history.entries(all(1000)).expect("read");
    let lines: BTreeSet<_> =
        entries.into_iter().map(|(_, found)| found.expect("whole").record.command).collect();
    assert_eq!(lines.len(), 200);
}

#[test]
fn r3_a_damaged_entry_is_in_nobody_elses_way() {
    let (home, history) = history();
    for line in ["one", "two", "three", "four"] {
        record(&history, line);
    }
    let at = |name: &str| home.path().join("history").join(name);
    fs::write(at("2/record.json"), "{").expect("written");
    fs::remove_file(at("3/record.json")).expect("removed");
    fs::write(at("not-a-number"), "").expect("written");
    fs::create_dir(at("007")).expect("made");
    let entries = history.entries(all(10)).expect("read");
    let whole: Vec<_> = entries.iter().map(|(n, found)| (*n, found.is_ok())).collect();
    assert_eq!(whole, [(1, true), (2, false), (3, false), (4, true)]);
    assert_eq!(record(&history, "five"), 5);
}

#[test]
fn p11_reading_changes_nothing() {
    let (home, history) = history();
    record(&history, "one");
    let path = home.path().join("history/1/record.json");
    let before = path.metadata().expect("there");
    for _ in 0..3 {
        history.entries(all(10)).expect("read");
        history.entry(1).expect("there").output(Stream::Stdout).expect("there");
    }
    let after = path.metadata().expect("there");
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
}

#[test]
fn the_oldest_are_dropped() {
    let (home, history) = history();
    let directory = home.path().join("history");
    // As many commands as there may be were run before.
    fs::create_dir_all(directory.join("process")).expect("made");
    let limit = ENTRIES_MAX as u64;
    for sequence in 1..=limit + 30 {
        fs::create_dir(directory.join(sequence.to_string())).expect("made");
    }
    fs::create_dir(directory.join(".gone-9")).expect("made");
    let next = limit + 31;
    for _ in 0..SWEEP_EVERY {
        record(&history, "more");
    }
    let left: BTreeSet<_> = history.sequences().expect("read").into_iter().collect();
    assert!(left.len() <= ENTRIES_MAX + SWEEP_EVERY as usize, "{}", left.len());
    assert!(!left.contains(&1) && left.contains(&next), "the newest stay");
    assert!(!directory.join(".gone-9").exists());
}

#[test]
fn a_command_that_goes_on_is_found_by_its_process_and_completed_by_another() {
    let (_home, history) = history();
    let id = ProcessId([1, 2, 3, 4, 5, 6]);
    let mut recorder = history.begin(command("serve")).expect("begun");
    history.name_process(&mut recorder, id).expect("named");
    recorder.push(Stream::Stdout, b"first ");
    assert!(history.resume(1).expect("there").is_none(), "somebody records it");
    recorder.finish(Ending::Open).expect("written");
    assert_eq!(history.of_process(id), Some(1));
    assert_eq!(history.of_process(ProcessId([0; 6])), None);
    let mut recorder = history.resume(1).expect("there").expect("it is open");
    assert_eq!(recorder.heard(Stream::Stdout), 6);
    recorder.push(Stream::Stdout, b"second");
    recorder.finish(ended(0)).expect("written");
    assert!(history.resume(1).expect("there").is_none(), "it is complete");
    let found = history.entry(1).expect("there");
    assert_eq!(found.record.process_id.as_deref(), Some("010203040506"));
    let ends = found.output(Stream::Stdout).expect("there").ends(100).expect("read");
    assert_eq!(ends.head, b"first second");
}

#[test]
fn what_never_ran_leaves_nothing() {
    let (_home, history) = history();
    history.begin(command("no-such-program")).expect("begun").discard();
    assert!(history.entries(all(10)).expect("read").is_empty());
}

#[test]
fn long_commands_are_cut() {
    let (_home, history) = history();
    let mut long = command(&"é".repeat(COMMAND_MAX));
    long.argv.extend(std::iter::repeat_n(Vec::new(), 1_000_000));
    history.begin(long).expect("begun").finish(ended(0)).expect("written");
    let record = history.entry(1).expect("there").record;
    assert!(record.command.len() <= COMMAND_MAX + 3 && record.command.ends_with('…'));
    assert!(record.argv.len() <= COMMAND_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn pages_put_together_are_the_whole(count in 0_u64..12, limit in 1_usize..5) {
        let (_home, history) = history();
        for n in 0..count {
            record(&history, &n.to_string());
        }
        let numbers = |range| -> Vec<u64> {
            history.entries(range).expect("read").into_iter().map(|(n, _)| n).collect()
        };
        let mut backwards = Vec::new();
        let mut before = None;
        loop {
            let page = numbers(Range { before, after: None, limit });
            prop_assert!(page.len() <= limit && page.is_sorted());
            let Some(first) = page.first() else { break };
            before = Some(*first);
            backwards.splice(0..0, page);
        }
        let mut forwards = Vec::new();
        loop {
            let after = Some(forwards.last().copied().unwrap_or(0));
            let page = numbers(Range { before: None, after, limit });
            if page.is_empty() { break }
            forwards.extend(page);
        }
        prop_assert_eq!(&backwards, &(1..=count).collect::<Vec<_>>());
        prop_assert_eq!(forwards, backwards);
    }
}
