//! `kill -9` at any moment of whatever changes a workspace: nothing is lost,
//! nothing is half done, nothing is left, and every next command works.
//!
//! One hundred and two injections in all, at full scale. Where a moment falls is up to the
//! host; `PYRO_STORY_SEED` repeats the sequence of waits of an earlier telling.

use pyro_smoke::dice::Dice;
use pyro_smoke::{Home, is_vmm, patient, scaled, stderr, stdout};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Injections for each operation.
fn times() -> u32 {
    scaled(17, 3)
}

/// `pyro` with these words, which must succeed.
fn succeed(home: &Home, words: &[&str]) -> String {
    stdout(&home.pyro(words).output().expect("pyro starts"))
}

fn json(home: &Home, words: &[&str]) -> Value {
    serde_json::from_str(&succeed(home, &[words, &["--json"]].concat())).expect("JSON")
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("pyro starts")
}

/// Kills the command at any moment of the time that it takes when left alone.
fn kill_within(home: &Home, words: &[&str], whole: Duration, dice: &mut Dice) {
    let mut child = spawn(&mut home.pyro(words));
    sleep(dice.part_of(whole));
    // It may have ended by itself, which is one of the moments.
    drop(child.kill());
    child.wait().expect("it ends");
}

/// How long a command takes when it is left alone.
fn time(home: &Home, words: &[&str]) -> Duration {
    let started = Instant::now();
    succeed(home, words);
    started.elapsed()
}

fn state(home: &Home, workspace: &str) -> String {
    let status = json(home, &["workspace", "status", workspace]);
    status["state"].as_str().expect("a state").to_owned()
}

/// A workspace that is up, whatever happened to it.
fn start(home: &Home, workspace: &str) {
    succeed(home, &["workspace", "start", workspace]);
    assert_eq!(state(home, workspace), "running");
}

fn shell(home: &Home, workspace: &str, line: &str) -> String {
    succeed(home, &["workspace", "exec", workspace, "--shell", line])
}

/// A tree with a file that says which it is, and others that agree.
fn write_tree(at: &Path, version: u32) {
    fs::create_dir_all(at.join("deep")).expect("a directory");
    for number in 0..40 {
        fs::write(at.join(format!("deep/{number}")), format!("{version}\n")).expect("written");
    }
    fs::write(at.join("big"), vec![b'0' + (version % 10) as u8; 3 << 20]).expect("written");
}

/// What every file of the pushed tree says, once each.
const VERSIONS: &str =
    "cat deep/* | sort -u; head -c 1 big; wc -c < big; ls -A | sort | tr '\\n' ' '";

#[test]
fn creating() {
    let (home, mut dice) = (Home::new(), Dice::new());
    let seed = home.path().join("seed");
    write_tree(&seed, 1);
    let words = ["workspace", "create", "debian:12", "--seed-path", seed.to_str().expect("UTF-8")];
    let whole = time(&home, &words);
    for _ in 0..times() {
        kill_within(&home, &words, whole, &mut dice);
        // Each that is listed is whole: it comes up and has its seed.
        for made in json(&home, &["workspace", "list"])["workspaces"].as_array().expect("a list") {
            let id = made["workspace_id"].as_str().expect("an id");
            start(&home, id);
            assert!(shell(&home, id, VERSIONS).starts_with("1\n1"), "{id}");
            succeed(&home, &["workspace", "delete", id]);
        }
        home.expect_clean_within(Duration::from_secs(5));
    }
}

#[test]
fn deleting_and_stopping() {
    let (home, mut dice) = (Home::new(), Dice::new());
    let seed = home.path().join("seed");
    write_tree(&seed, 1);
    let seed = seed.to_str().expect("UTF-8");
    let create = ["workspace", "create", "debian:12", "--name", "w", "--seed-path", seed];
    succeed(&home, &create);
    succeed(&home, &["workspace", "exec", "w", "--shell", "echo kept > note; sync"]);
    let whole = time(&home, &["workspace", "stop", "w"]) * 2;
    for number in 0..times() {
        start(&home, "w");
        shell(&home, "w", &format!("echo {number} > note"));
        kill_within(&home, &["workspace", "stop", "w"], whole, &mut dice);
        start(&home, "w");
        assert_eq!(shell(&home, "w", "cat note"), format!("{number}\n"), "nothing is lost");
    }
    let whole = time(&home, &["workspace", "delete", "w"]) * 2;
    for _ in 0..times() {
        if json(&home, &["workspace", "list"])["count"] == 0 {
            succeed(&home, &create);
        }
        kill_within(&home, &["workspace", "delete", "w"], whole, &mut dice);
        // It is there and whole, or not there at all.
        let listed = json(&home, &["workspace", "list"]);
        match listed["count"].as_u64() {
            Some(0) => home.expect_clean_within(Duration::from_secs(5)),
            count => {
                assert_eq!(count, Some(1));
                start(&home, "w");
                assert!(shell(&home, "w", VERSIONS).starts_with("1\n1"));
            }
        }
    }
    succeed(&home, &["workspace", "delete", "w", "--ignore-missing"]);
    home.expect_clean_within(Duration::from_secs(5));
}

#[test]
fn r13_resetting() {
    let (home, mut dice) = (Home::new(), Dice::new());
    let seed = home.path().join("seed");
    write_tree(&seed, 1);
    let seed = seed.to_str().expect("UTF-8");
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w", "--seed-path", seed]);
    let whole = time(&home, &["workspace", "reset", "w"]);
    for _ in 0..times() {
        shell(&home, "w", "echo changed > note");
        let before = json(&home, &["workspace", "status", "w"])["reset_count"].clone();
        kill_within(&home, &["workspace", "reset", "w"], whole, &mut dice);
        start(&home, "w");
        let note = shell(&home, "w", "cat note 2>&1 || true");
        let after = json(&home, &["workspace", "status", "w"])["reset_count"].clone();
        assert!(shell(&home, "w", VERSIONS).starts_with("1\n1"), "the seed is there");
        // The old disk or the new one, and the record says which.
        assert_eq!(note == "changed\n", before == after, "{note:?} {before} {after}");
    }
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

#[test]
fn pushing() {
    let (home, mut dice) = (Home::new(), Dice::new());
    let tree = home.path().join("tree");
    write_tree(&tree, 0);
    let tree_path = tree.to_str().expect("UTF-8").to_owned();
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w", "--seed-path", &tree_path]);
    write_tree(&tree, 1);
    let push = ["workspace", "sync", "push", "w", &tree_path];
    let whole = time(&home, &push);
    let mut there = 1;
    for version in 2..2 + times() {
        write_tree(&tree, version);
        kill_within(&home, &push, whole, &mut dice);
        // One whose caller died once all of it was sent may still be done, now or
        // a little later; what a command sees while it is may be neither. In the
        // end it is one of those that were pushed, and whole.
        let deadline = Instant::now() + patient(Duration::from_secs(5));
        there = loop {
            let said = shell(&home, "w", VERSIONS);
            let is = |version: &u32| {
                said.starts_with(&format!("{version}\n{}{}\n", version % 10, 3 << 20))
                    && said.ends_with("big deep ")
            };
            if let Some(version) = (there..=version).find(is) {
                break version;
            }
            assert!(Instant::now() < deadline, "none of {there} to {version}: {said:?}");
        };
    }
    succeed(&home, &push);
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

#[test]
fn exporting() {
    let (home, mut dice) = (Home::new(), Dice::new());
    let tree = home.path().join("tree");
    write_tree(&tree, 7);
    let tree_path = tree.to_str().expect("UTF-8").to_owned();
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w", "--seed-path", &tree_path]);
    let outside = home.path().join("outside");
    fs::create_dir(&outside).expect("a directory");
    let output = outside.join("out");
    let words = ["workspace", "export", "w", ".", "--output", output.to_str().expect("UTF-8")];
    let whole = time(&home, &words);
    for _ in 0..times() {
        if output.exists() {
            fs::remove_dir_all(&output).expect("removed");
        }
        kill_within(&home, &words, whole, &mut dice);
        if output.exists() {
            let big = fs::read(output.join("big")).expect("whole");
            assert!(big.len() == 3 << 20 && big.iter().all(|byte| *byte == b'7'));
            assert_eq!(fs::read_dir(output.join("deep")).expect("whole").count(), 40);
        }
    }
    if output.exists() {
        fs::remove_dir_all(&output).expect("removed");
    }
    // The next one sweeps what the killed ones left beside it.
    succeed(&home, &words);
    let left: Vec<_> = fs::read_dir(&outside).expect("there").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

/// Not only commands are killed: supervisors are, and VMMs.
#[test]
fn r9_supervisors_and_vmms() {
    let (home, mut dice) = (Home::new(), Dice::new());
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w"]);
    for number in 0..scaled(8, 4) {
        shell(&home, "w", &format!("echo {number} > note; sync"));
        let is_victim = |line: &str| match number % 2 {
            0 => line.contains("__supervise"),
            _ => is_vmm(line),
        };
        let victim = home.processes().into_iter().find(|(_, line)| is_victim(line));
        let (pid, _) = victim.expect("it runs");
        sleep(dice.part_of(Duration::from_millis(50)));
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it lives");
        // The next command starts it again, unless it was quicker than the news;
        // then it says so. What was synced is there.
        let words = ["workspace", "exec", "w", "--shell", "cat note"];
        let next = home.pyro(words).output().expect("pyro starts");
        if !next.status.success() {
            assert_eq!(next.status.code(), Some(125));
            assert!(stderr(&next).contains("the guest"), "{}", stderr(&next));
        }
        assert_eq!(shell(&home, "w", "cat note"), format!("{number}\n"));
    }
    let events = succeed(&home, &["workspace", "events", "w"]);
    assert!(events.contains("went away unasked"), "{events}");
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}
