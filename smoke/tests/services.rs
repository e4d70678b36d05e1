//! Services in a real guest: a server that is ready when it answers, one that
//! crashes again and again, one that does not obey, and callers that are killed.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails")]

#[path = "../../host/tests/support/tty.rs"]
mod tty;

use pyro_smoke::{Home, pyro_executable, stderr, stdout};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;
use tty::Tty;

fn succeed(home: &Home, words: &[&str]) -> String {
    stdout(&home.pyro(words).output().expect("pyro starts"))
}

fn json(home: &Home, words: &[&str]) -> Value {
    serde_json::from_str(&succeed(home, &[words, &["--json"]].concat())).expect("JSON")
}

fn service(home: &Home, name: &str) -> Value {
    json(home, &["workspace", "service", "status", "w", name])
}

/// The lines of a log that is followed, each when it comes.
fn follow(home: &Home, name: &str) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let words = ["workspace", "service", "logs", "w", name, "--all", "--follow"];
    let mut command: Command = home.pyro(words);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("pyro starts");
    let lines = BufReader::new(child.stdout.take().expect("it is piped"));
    (child, lines)
}

/// How many processes a line of `pgrep` finds in the guest.
fn guest_processes(home: &Home, pattern: &str) -> usize {
    // Not the shell that looks.
    let line = format!("pgrep -c -f '{pattern}' | cat");
    let said = succeed(home, &["workspace", "exec", "w", "--shell", &line]);
    said.trim().parse().expect("a number")
}

#[test]
fn r10_r19_services_from_ready_to_gone() {
    let home = Home::new();
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w"]);

    // A server that answers.
    let http = "http://localhost:8000/";
    let start = ["workspace", "service", "start", "w", "web", "--ready-http", http, "--json"];
    let server = ["--", "python3", "-u", "-m", "http.server", "8000"];
    let started: Value =
        serde_json::from_str(&succeed(&home, &[&start[..], &server].concat())).expect("JSON");
    assert_eq!(started["state"], "running", "{started}");
    assert_eq!(started["readiness"]["url"], http);
    let status = json(&home, &["workspace", "status", "w"]);
    assert_eq!(
        (&status["service_count"], &status["running_service_count"]),
        (&1.into(), &1.into())
    );
    let logs = succeed(&home, &["workspace", "service", "logs", "w", "web"]);
    assert!(logs.contains("Serving HTTP"), "{logs}");

    // It obeys: that takes no time to speak of, and it leaves its TCP port free.
    let stopped =
        json(&home, &["workspace", "service", "stop", "w", "web", "--grace-seconds", "600"]);
    assert_eq!(stopped["stop_reason"], "sigterm", "{stopped}");
    succeed(&home, &["workspace", "service", "restart", "w", "web"]);

    // Killed in the guest: that is seen at once, by those who follow its log.
    let (mut follower, mut lines) = follow(&home, "web");
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    let pid = service(&home, "web")["pid"].to_string();
    succeed(&home, &["workspace", "exec", "w", "--", "kill", "-9", &pid]);
    assert!(follower.wait().expect("it ends").success());
    let ended = service(&home, "web");
    assert_eq!((&ended["state"], &ended["signal"]), (&"exited".into(), &9.into()), "{ended}");

    // One that cannot become ready says why, and how it ended.
    let broken = [
        "workspace",
        "service",
        "start",
        "w",
        "broken",
        "--ready-tcp",
        "localhost:9",
        "--shell",
        "echo no database >&2; exit 7",
    ];
    let broken = home.pyro(broken).output().expect("pyro starts");
    assert_eq!(broken.status.code(), Some(7), "{}", stderr(&broken));
    assert!(stderr(&broken).contains("no database"), "{}", stderr(&broken));
    let late = [
        "workspace",
        "service",
        "start",
        "w",
        "late",
        "--ready-file",
        "never",
        "--ready-timeout-seconds",
        "1",
        "--",
        "sleep",
        "1000",
    ];
    let late = home.pyro(late).output().expect("pyro starts");
    assert_eq!(late.status.code(), Some(124), "{}", stderr(&late));
    assert_eq!(guest_processes(&home, "^sleep 1000"), 0, "it was stopped");

    // A crash loop, and what is left of a service that does not obey: nothing,
    // not even of what has left its process group.
    let looping = [
        "workspace",
        "service",
        "start",
        "w",
        "loop",
        "--restart",
        "on-failure",
        "--restart-limit",
        "3",
        "--shell",
        "echo round; exit 3",
    ];
    succeed(&home, &looping);
    let (mut follower, lines) = follow(&home, "loop");
    assert_eq!(lines.lines().count(), 4);
    assert!(follower.wait().expect("it ends").success());
    assert_eq!(service(&home, "loop")["stop_reason"], "restart_limit");
    let deaf = "trap '' TERM; setsid sleep 2000 & sleep 2000 & touch deaf; wait";
    let start = ["workspace", "service", "start", "w", "deaf", "--ready-file", "deaf"];
    succeed(&home, &[&start[..], &["--shell", deaf]].concat());
    assert_eq!(guest_processes(&home, "^sleep 2000"), 2);
    let stopped =
        json(&home, &["workspace", "service", "stop", "w", "deaf", "--grace-seconds", "1"]);
    assert_eq!(stopped["stop_reason"], "sigkill", "{stopped}");
    assert_eq!(guest_processes(&home, "^sleep 2000"), 0);

    // A follower that is killed, and a starter before it was ready.
    let steady = "while :; do echo tick; sleep 0.2; done";
    succeed(&home, &["workspace", "service", "start", "w", "steady", "--shell", steady]);
    let (mut follower, mut lines) = follow(&home, "steady");
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    follower.kill().expect("it runs");
    follower.wait().expect("it ends");
    assert_eq!(service(&home, "steady")["state"], "running");
    let waiting = [
        "workspace",
        "service",
        "start",
        "w",
        "waiting",
        "--ready-file",
        "never",
        "--shell",
        "echo runs; exec sleep 3000",
    ];
    let mut starter = home.pyro(waiting).stdout(Stdio::null()).spawn().expect("pyro starts");
    let (mut follower, mut lines) = loop {
        // It cannot be followed before it is there.
        let (mut follower, mut lines) = follow(&home, "waiting");
        let mut line = String::new();
        if lines.read_line(&mut line).expect("text") > 0 {
            break (follower, lines);
        }
        follower.wait().expect("it ends");
    };
    starter.kill().expect("it runs");
    starter.wait().expect("it ends");
    // The follower hears the end of it.
    assert_eq!(lines.read_line(&mut String::new()).expect("the end"), 0);
    assert!(follower.wait().expect("it ends").success());
    assert_eq!(service(&home, "waiting")["stop_reason"], "start_cancelled");
    assert_eq!(guest_processes(&home, "^sleep 3000"), 0);

    // They go with their guest.
    succeed(&home, &["workspace", "stop", "w"]);
    succeed(&home, &["workspace", "start", "w"]);
    assert_eq!(json(&home, &["workspace", "service", "list", "w"])["count"], 0);
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

/// The supervisor, killed while a log is followed and somebody sits at a shell:
/// both are told, the terminal is as it was, services and shells are gone with
/// their guest, and what was written to the disk is there.
#[test]
fn r10_a_supervisor_that_is_killed_is_told_to_all_who_wait() {
    let home = Home::new();
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w"]);
    let steady = "echo kept >note; sync; while :; do echo tick; sleep 0.1; done";
    let start = ["workspace", "service", "start", "w", "steady", "--restart", "always"];
    succeed(&home, &[&start[..], &["--ready-file", "note", "--shell", steady]].concat());
    let mut command = Command::new(pyro_executable());
    command.args(["workspace", "attach", "w"]).env("PYRO_HOME", home.path());
    let mut seat = Tty::start(command, 80, 24);
    seat.sees("pyro$");
    let words = ["workspace", "service", "logs", "w", "steady", "--all", "--follow"];
    let mut follower = home.pyro(words);
    let mut follower =
        follower.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pyro starts");
    let mut lines = BufReader::new(follower.stdout.take().expect("it is piped"));
    lines.read_line(&mut String::new()).expect("a line");

    let pid = Pid::from_raw(home.supervisor().cast_signed()).expect("a process id");
    kill_process(pid, Signal::KILL).expect("it lives");

    let mut rest = String::new();
    lines.read_to_string(&mut rest).expect("whole lines");
    assert!(rest.split_inclusive('\n').all(|line| line == "tick\n"), "{rest:?}");
    let output = follower.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(125), "{}", stderr(&output));
    assert!(stderr(&output).contains("guest"), "{}", stderr(&output));
    let status = seat.ends();
    assert_eq!(status.code(), Some(125), "{}", seat.screen());
    assert!(!seat.is_raw());

    // The next who wants something of it has it up again, without them.
    let words = ["workspace", "service", "list", "w", "--json"];
    let list = home.pyro(words).output().expect("pyro starts");
    if !list.status.success() {
        // It was quicker than the news.
        assert!(stdout_of(&list).contains("guest"), "{}", stdout_of(&list));
    }
    assert_eq!(json(&home, &["workspace", "service", "list", "w"])["count"], 0);
    assert_eq!(succeed(&home, &["workspace", "shell", "list", "w"]), "No shells.\n");
    assert_eq!(succeed(&home, &["workspace", "exec", "w", "--", "cat", "note"]), "kept\n");
    let status = json(&home, &["workspace", "status", "w"]);
    assert_eq!((&status["state"], &status["service_count"]), (&"running".into(), &0.into()));
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

fn stdout_of(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
