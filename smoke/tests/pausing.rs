//! A workspace that stands still, and what becomes of it then.

use pyro_smoke::{Home, stderr, stdout};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a workspace stands still: so long that a clock that stood still too
/// cannot be taken for one that was set.
const STILL: Duration = Duration::from_secs(12);

/// How far the clocks of guest and host may be apart: what passes between
/// reading one and the other, in machines that are translated on a busy host.
const CLOCK_SLACK: Duration = Duration::from_secs(6);

fn succeed(home: &Home, words: &[&str]) -> String {
    stdout(&home.pyro(words).output().expect("pyro starts"))
}

fn shell(home: &Home, line: &str) -> String {
    succeed(home, &["workspace", "exec", "w", "--shell", line])
}

fn status(home: &Home) -> Value {
    let status = succeed(home, &["workspace", "status", "w", "--json"]);
    serde_json::from_str(&status).expect("JSON")
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is not 1970")
}

/// The ticks of the guest's processors so far that did any work. None passes
/// where nothing runs.
fn processor_time(pid: u64) -> u64 {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    let stat = stat.expect("it runs");
    let (_, rest) = stat.rsplit_once(") ").expect("a name in parentheses");
    let ticks = |at: usize| rest.split(' ').nth(at)?.parse::<u64>().ok();
    ticks(11).zip(ticks(12)).map(|(user, system)| user + system).expect("its times")
}

/// One that counts for as long as it runs.
fn counting(home: &Home) {
    succeed(home, &["workspace", "create", "debian:12", "--name", "w"]);
    let counter = "i=0; while :; do i=$((i+1)); echo $i > counter; done";
    succeed(home, &["workspace", "exec", "w", "--detach", "--shell", counter]);
}

fn delete(home: &Home) {
    succeed(home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

fn count(home: &Home) -> u64 {
    let deadline = Instant::now() + pyro_smoke::PATIENCE;
    loop {
        // It may be between emptying the file and writing it.
        if let Ok(count) = shell(home, "cat counter").trim().parse() {
            return count;
        }
        assert!(Instant::now() < deadline, "it does not count");
    }
}

#[test]
fn nothing_goes_on_in_it_until_it_is_resumed_and_its_clock_is_right_then() {
    let home = Home::new();
    counting(&home);
    let before = count(&home);
    let paused = succeed(&home, &["workspace", "pause", "w"]);
    assert!(paused.contains("paused"), "{paused}");
    let machine = status(&home)["machine"].clone();
    assert!(machine["paused_at"].is_string(), "{machine}");
    assert!(machine["metrics"]["disk_read_bytes"].as_u64() > Some(0), "{machine}");
    let vmm = machine["vmm_pid"].as_u64().expect("it has one");
    let spent = processor_time(vmm);
    sleep(STILL);
    // Ticks are of ten milliseconds: its own threads may look around.
    assert!(processor_time(vmm) - spent < 50, "it had worked all the time");
    let refused = home.pyro(["workspace", "exec", "w", "--", "true"]).output().expect("it starts");
    assert_eq!(refused.status.code(), Some(125));
    let said = stderr(&refused);
    assert!(said.contains("is paused") && said.contains("workspace resume"), "{said}");
    succeed(&home, &["workspace", "resume", "w"]);
    assert_eq!(status(&home)["state"], "running");
    let clock = shell(&home, "date +%s").trim().parse().expect("seconds");
    let off = now().abs_diff(Duration::from_secs(clock));
    assert!(off < CLOCK_SLACK, "its clock is off by {off:?}");
    let after = count(&home);
    assert!(after > before, "{after} is not more than {before}");
    delete(&home);
}

#[test]
fn r12_one_that_is_stopped_meanwhile_has_lost_nothing() {
    let home = Home::new();
    counting(&home);
    shell(&home, "seq 1 100000 > numbers");
    succeed(&home, &["workspace", "pause", "w"]);
    let stopped = home.pyro(["workspace", "stop", "w"]).output().expect("pyro starts");
    assert!(stopped.status.success(), "{}", stderr(&stopped));
    assert!(!stderr(&stopped).contains("was killed"), "{}", stderr(&stopped));
    let events = succeed(&home, &["workspace", "events", "w"]);
    assert!(events.lines().any(|line| line.contains("paused")), "{events}");
    assert!(events.lines().last().is_some_and(|line| line.contains("stop")), "{events}");
    succeed(&home, &["workspace", "start", "w"]);
    assert_eq!(shell(&home, "tail -n 1 numbers"), "100000\n");
    delete(&home);
}

#[test]
fn r10_one_whose_supervisor_is_killed_meanwhile_leaves_nothing_and_starts_again() {
    let home = Home::new();
    counting(&home);
    succeed(&home, &["workspace", "pause", "w"]);
    let supervisor = home.processes().into_iter().find(|(_, line)| line.contains("__supervise"));
    let (pid, _) = supervisor.expect("it has one");
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process id");
    let running = home.processes();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("ours");
    for (pid, line) in running {
        assert!(pyro_smoke::ends_within(pid, pyro_smoke::PATIENCE), "{pid} is left: {line}");
    }
    assert!(home.processes().is_empty(), "left: {:?}", home.processes());
    assert_eq!(status(&home)["state"], "crashed");
    let next = home.pyro(["workspace", "exec", "w", "--", "echo", "up"]).output().expect("starts");
    assert_eq!(stdout(&next), "up\n", "{}", stderr(&next));
    assert_eq!(status(&home)["machine"]["paused_at"], Value::Null);
    delete(&home);
}
