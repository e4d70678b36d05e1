//! Supervisors that obey no orders. Those here are scripts that are called like
//! one, with the workspace's lock as their standard input.

use crate::fake_vmm::FakeVmm;
use crate::home::{ENVIRONMENT, Home};
use pyro::Pyro;
use pyro::operation::{Operation, WorkspaceCreate, WorkspaceDelete, WorkspaceStart, WorkspaceStop};
use pyro::workspace::{Place, State};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// With a child, as a VMM is one; it tells of it and obeys nothing.
const SCRIPT: &str = "trap '' TERM INT HUP; sleep 1000 & echo $!; wait";

async fn ask<O: Operation>(pyro: &Pyro, more: Value) -> pyro::Result<O::Output> {
    let mut asked = json!({ "workspace_id": "w" });
    asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pyro.call(serde_json::from_value::<O>(asked).unwrap()).await
}

/// A process, called like this, and its child.
struct Wedged {
    process: Child,
    child: OwnedFd,
}

impl Wedged {
    fn start(home: &Home, name: &str, lock: File) -> Self {
        let directory = home.path("wedged");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), SCRIPT).unwrap();
        let mut command = Command::new("sh");
        command.arg(name).current_dir(directory).stdin(lock).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let child = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        Self { process, child: pidfd_open(child, PidfdFlags::empty()).unwrap() }
    }

    fn lives(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    fn end(mut self) {
        rustix::process::pidfd_send_signal(&self.child, rustix::process::Signal::KILL).unwrap();
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A workspace that seems to run, under a supervisor that does nothing.
async fn wedged() -> (Home, Pyro, Place, Wedged) {
    let home = Home::new();
    fs::create_dir_all(home.path("guest")).unwrap();
    let pyro = home.pyro(FakeVmm::honest(home.path("guest")));
    let create = json!({ "environment": ENVIRONMENT, "mem_mib": 128, "name": "w" });
    pyro.call(serde_json::from_value::<WorkspaceCreate>(create).unwrap()).await.unwrap();
    ask::<WorkspaceStop>(&pyro, json!({})).await.unwrap();
    let place = pyro::workspace::find::find(&pyro.config, "w").unwrap();
    let lock = place.take_run(Duration::from_secs(10)).await.unwrap();
    let held = lock.file().try_clone().unwrap();
    let wedged = Wedged::start(&home, "__supervise", held);
    drop(lock);
    fs::write(place.path().join("running.json"), "{}").unwrap();
    assert_eq!(place.state(), State::Running);
    (home, pyro, place, wedged)
}

#[tokio::test]
async fn s5_force_ends_a_supervisor_that_does_not_obey_and_nobody_else() {
    let (home, pyro, place, mut wedged) = wedged().await;
    // One that is no supervisor has the lock's file open, another is one and has
    // not, and a record names this very process.
    let open = || File::open(place.path().join("lock")).unwrap();
    let mut reader = Wedged::start(&home, "reader", open());
    let mut other = Wedged::start(&home, "__supervise", File::open("/dev/null").unwrap());
    let running = json!({
        "schema_version": 1, "since": "2026-01-01T00:00:00Z",
        "ready": { "vmm_pid": std::process::id(), "boot_us": 1, "activate_us": 1 },
    });
    fs::write(place.path().join("running.json"), running.to_string()).unwrap();
    let stopped = ask::<WorkspaceStop>(&pyro, json!({ "force": true })).await.unwrap();
    assert_eq!(stopped.state, State::Stopped);
    assert_eq!(wedged.process.wait().unwrap().signal(), Some(9));
    let mut ended = [PollFd::new(&wedged.child, PollFlags::IN)];
    poll(&mut ended, None).unwrap();
    assert!(reader.lives() && other.lives());
    let events = fs::read_to_string(place.path().join("events.jsonl")).unwrap();
    let last = events.lines().rev().find(|line| line.contains(r#""event":"stopped""#));
    assert!(last.is_some_and(|line| line.contains(r#""clean":false"#)), "{events}");
    // What the supervisor left is in nobody's way.
    ask::<WorkspaceStart>(&pyro, json!({})).await.unwrap();
    // And one that obeys needs no force.
    let stopped = ask::<WorkspaceStop>(&pyro, json!({ "force": true })).await.unwrap();
    assert_eq!(stopped.state, State::Stopped);
    let again = ask::<WorkspaceStop>(&pyro, json!({ "force": true })).await.unwrap();
    assert_eq!(again.state, State::Stopped);
    reader.end();
    other.end();
}

#[tokio::test]
async fn s5_what_is_deleted_ends_whether_it_obeys_or_not() {
    let (home, pyro, _, mut wedged) = wedged().await;
    assert!(ask::<WorkspaceDelete>(&pyro, json!({})).await.unwrap().deleted);
    assert_eq!(wedged.process.wait().unwrap().signal(), Some(9));
    home.assert_nothing_left();
}
