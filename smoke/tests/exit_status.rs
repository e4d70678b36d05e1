//! How a command ended is how `pyro` ends.

use pyro_smoke::{Home, stderr};
use std::time::{Duration, Instant};

fn code(home: &Home, program: &[&str]) -> Option<i32> {
    home.run(program).status.code()
}

#[test]
fn statuses_come_back_as_they_are() {
    let home = Home::new();
    assert_eq!(code(&home, &["true"]), Some(0));
    assert_eq!(code(&home, &["sh", "-c", "exit 7"]), Some(7));
    assert_eq!(code(&home, &["sh", "-c", "exit 255"]), Some(255));
}

#[test]
fn a_signal_is_128_and_its_number() {
    let home = Home::new();
    assert_eq!(code(&home, &["sh", "-c", "kill -TERM $$"]), Some(128 + 15));
    assert_eq!(code(&home, &["sh", "-c", "kill -KILL $$"]), Some(128 + 9));
}

#[test]
fn what_never_ran_is_told_apart() {
    let home = Home::new();
    let missing = home.run(&["no-such-program"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(stderr(&missing).contains("no-such-program"), "{}", stderr(&missing));
    let directory = home.run(&["/etc"]);
    assert_eq!(directory.status.code(), Some(126), "{}", stderr(&directory));
}

#[test]
fn a_time_out_is_124_with_the_output_so_far() {
    let home = Home::new();
    let started = Instant::now();
    let output = home
        .pyro(["run", "--timeout-seconds", "2", "debian:12", "--"])
        .args(["sh", "-c", "echo so far; sleep 600 & sleep 600"])
        .output()
        .expect("pyro starts");
    assert_eq!(output.status.code(), Some(124), "{}", stderr(&output));
    assert_eq!(output.stdout, b"so far\n");
    assert!(started.elapsed() < Duration::from_secs(60));
    home.expect_clean_within(Duration::from_secs(2));
}

#[test]
fn words_after_the_dashes_are_untouched() {
    let home = Home::new();
    let words = ["printf", "%s|", "--json", "-h", "a b", "$HOME", "*", "'", "ü"];
    let output = home.run(&words);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "--json|-h|a b|$HOME|*|'|ü|");
}
