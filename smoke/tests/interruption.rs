//! However a run ends, nothing of it stays.

use pyro_smoke::{Home, patient, scaled};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Moments from before the VMM starts until the command runs for a while.
fn moments() -> u32 {
    scaled(10, 4)
}
const STEP: Duration = Duration::from_millis(170);

fn long_run(home: &Home) -> Command {
    let mut command = home.pyro(["run", "debian:12", "--", "sh", "-c", "sleep 1000 & sleep 1000"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn interrupt(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().cast_signed()).expect("a process id");
    // It may have ended by itself, which is for the caller to judge.
    let _ = kill_process(pid, signal);
}

/// Any start sweeps; this one boots nothing.
fn start_again(home: &Home) {
    let output = home.pyro(["env", "list"]).output().expect("pyro starts");
    assert!(output.status.success());
}

/// Not evenly spread, so that the moments hit different stages each time.
fn moment(number: u32) -> Duration {
    let jitter = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| u64::from(now.subsec_nanos()) % 100);
    patient(STEP) * number + Duration::from_millis(jitter)
}

#[test]
fn a_terminated_run_leaves_nothing_when_it_ends() {
    let home = Home::new();
    for number in 0..moments() {
        let mut child = long_run(&home).spawn().expect("pyro starts");
        sleep(moment(number));
        interrupt(&child, Signal::TERM);
        let status = child.wait().expect("pyro ends");
        // Before its handlers are in place the signal kills it as any program.
        use std::os::unix::process::ExitStatusExt;
        assert!(
            status.code() == Some(143) || status.signal() == Some(15),
            "moment {number}: {status}"
        );
        home.expect_clean_within(Duration::from_secs(2));
    }
}

#[test]
fn an_interrupted_run_leaves_nothing_when_it_ends() {
    let home = Home::new();
    for number in 0..moments() {
        let mut child = long_run(&home).spawn().expect("pyro starts");
        sleep(moment(number));
        interrupt(&child, Signal::INT);
        let status = child.wait().expect("pyro ends");
        use std::os::unix::process::ExitStatusExt;
        assert!(
            status.code() == Some(130) || status.signal() == Some(2),
            "moment {number}: {status}"
        );
        home.expect_clean_within(Duration::from_secs(2));
    }
}

#[test]
fn r9_a_killed_run_is_gone_by_the_next_start() {
    let home = Home::new();
    for number in 0..moments() {
        let mut child = long_run(&home).spawn().expect("pyro starts");
        sleep(moment(number));
        interrupt(&child, Signal::KILL);
        child.wait().expect("pyro ends");
        start_again(&home);
        home.expect_clean_within(Duration::from_secs(2));
    }
}

#[test]
fn r9_a_killed_supervisor_takes_the_vmm_along_and_the_caller_is_told() {
    let home = Home::new();
    let mut child = home
        .pyro(["run", "debian:12", "--", "sh", "-c", "echo up; sleep 1000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("pyro starts");
    // A supervisor that makes a template has ended by then.
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    assert_eq!(line, "up\n");
    let supervisor = home.supervisor();
    kill_process(Pid::from_raw(supervisor.cast_signed()).expect("a pid"), Signal::KILL)
        .expect("it lives");
    let status = child.wait().expect("pyro ends");
    assert_eq!(status.code(), Some(125));
    start_again(&home);
    home.expect_clean_within(Duration::from_secs(2));
}
