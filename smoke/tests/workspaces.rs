//! Workspaces under load: many commands in one, many at once, large trees.

use pyro_smoke::{Home, scaled, stderr, stdout};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn succeed(home: &Home, words: &[&str]) -> String {
    stdout(&home.pyro(words).output().expect("pyro starts"))
}

fn json(home: &Home, words: &[&str]) -> Value {
    serde_json::from_str(&succeed(home, &[words, &["--json"]].concat())).expect("JSON")
}

#[test]
fn p3_thirty_two_commands_at_once_in_one_workspace() {
    let home = Home::new();
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w"]);
    let commands = scaled(32, 8).cast_signed();
    std::thread::scope(|scope| {
        for number in 0..commands {
            let home = &home;
            scope.spawn(move || {
                let line =
                    format!("echo {number}; sleep 1; seq {number} 1000 | tail -n 1; exit {number}");
                let words = ["workspace", "exec", "w", "--shell", &line];
                let output = home.pyro(words).output().expect("pyro starts");
                assert_eq!(output.status.code(), Some(number), "{}", stderr(&output));
                assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{number}\n1000\n"));
            });
        }
    });
    let status = json(&home, &["workspace", "status", "w"]);
    assert_eq!(status["command_count"], commands, "each is in the history once");
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

#[test]
fn eight_workspaces_at_once() {
    let home = Home::new();
    let workspaces = scaled(8, 3);
    std::thread::scope(|scope| {
        for number in 0..workspaces {
            let home = &home;
            scope.spawn(move || {
                let name = format!("w{number}");
                let create =
                    ["workspace", "create", "debian:12", "--name", &name, "--mem-mib", "256"];
                succeed(home, &create);
                let write = format!("echo {number} > note");
                succeed(home, &["workspace", "exec", &name, "--shell", &write]);
                let read = succeed(home, &["workspace", "exec", &name, "--", "cat", "note"]);
                assert_eq!(read, format!("{number}\n"));
                succeed(home, &["workspace", "stop", &name]);
                succeed(home, &["workspace", "start", &name]);
                let read = succeed(home, &["workspace", "exec", &name, "--", "cat", "note"]);
                assert_eq!(read, format!("{number}\n"), "it survived");
            });
        }
    });
    assert_eq!(json(&home, &["workspace", "list"])["count"], workspaces);
    for number in 0..workspaces {
        succeed(&home, &["workspace", "delete", &format!("w{number}")]);
    }
    home.expect_clean_within(Duration::from_secs(5));
}

/// Fifty thousand files in five hundred directories.
fn many_files(at: &Path) {
    for directory in 0..scaled(500, 20) {
        let directory = at.join(format!("d{directory}"));
        fs::create_dir_all(&directory).expect("a directory");
        for file in 0..100 {
            fs::write(directory.join(format!("f{file}")), format!("{file}\n")).expect("written");
        }
    }
}

fn large_file(at: &Path, mib: u32) {
    let mut file = File::create(at).expect("a file");
    for block in 0..mib {
        let bytes: Vec<u8> = (0..1 << 20).map(|byte| (byte % 251 + block % 5) as u8).collect();
        file.write_all(&bytes).expect("written");
    }
}

fn same(one: &Path, other: &Path) -> bool {
    let status = Command::new("diff").arg("-rq").args([one, other]).status();
    status.expect("diff starts").success()
}

/// The most that the agent has needed so far, of all its processes.
const AGENT_MIB: u64 = 32;

fn agent_mib(home: &Home) -> u64 {
    let script = "for agent in $(pgrep pyro-agent); do grep VmHWM /proc/$agent/status; done";
    let said = succeed(home, &["workspace", "exec", "w", "--shell", script]);
    let kib = |line: &str| line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    let peaks: Vec<_> = said.lines().filter_map(kib).collect();
    assert!(!peaks.is_empty(), "{said}");
    peaks.iter().sum::<u64>() / 1024
}

#[test]
fn p6_a_large_tree_goes_in_is_compared_and_comes_out() {
    let home = Home::new();
    let (seed, out) = (home.path().join("seed"), home.path().join("out"));
    many_files(&seed);
    let mib = std::env::var("PYRO_STORY_MIB")
        .ok()
        .and_then(|mib| mib.parse().ok())
        .unwrap_or_else(|| scaled(128, 8));
    large_file(&seed.join("large"), mib);
    let (seed_path, out_path) = (seed.to_str().expect("UTF-8"), out.to_str().expect("UTF-8"));
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w", "--seed-path", seed_path]);
    assert_eq!(succeed(&home, &["workspace", "diff", "w"]), "", "nothing has changed");
    // One of many changes here, one there.
    succeed(&home, &["workspace", "exec", "w", "--shell", "echo there > d7/f7; rm d8/f8"]);
    let names = succeed(&home, &["workspace", "diff", "w", "--name-only"]);
    assert_eq!(names, "d7/f7\nd8/f8\n");
    fs::write(seed.join("d9/f9"), "here\n").expect("written");
    let push = ["workspace", "sync", "push", "w", seed_path];
    let pushed = json(&home, &push);
    let sync = &pushed["workspace_sync"];
    assert_eq!((&sync["created"], &sync["updated"]), (&1.into(), &2.into()), "{sync}");
    succeed(&home, &["workspace", "export", "w", ".", "--output", out_path]);
    assert!(same(&seed, &out), "the same trees");
    let needed = agent_mib(&home);
    assert!(needed <= AGENT_MIB, "the agent needed {needed} MiB");
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}
