//! What dead owners leave is swept; what belongs to the living is not.

use crate::fake_vmm::FakeVmm;
use crate::home::{Home, run_shell};
use pyro::{Context, Event, Events};
use std::fs;

/// As a crash would leave it.
fn leave(home: &Home, name: &str, files: &[&str]) -> std::path::PathBuf {
    let path = home.path("state/workspaces").join(name);
    fs::create_dir_all(&path).unwrap();
    for file in files {
        fs::write(path.join(file), "").unwrap();
    }
    path
}

/// As the next command would.
async fn next_run(home: &Home) {
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    run_shell(&pyro, "true", Context::default()).await.unwrap();
}

#[tokio::test]
async fn r9_the_next_run_removes_what_a_killed_one_left() {
    let home = Home::new();
    leave(&home, "0123456789ab", &["lock", "ephemeral", "disk.ext4", "console.log"]);
    leave(&home, ".new-0123456789ac", &["lock"]);
    leave(&home, ".new-0123456789ad", &[]);
    next_run(&home).await;
    home.assert_nothing_left();
}

/// Removing takes many steps, in whatever order the host lists them; a crash
/// between any two leaves something that is still known to be of no use.
#[tokio::test]
async fn r9_a_removal_that_was_cut_short_is_finished() {
    let home = Home::new();
    leave(&home, ".gone-0123456789ab", &["disk.ext4"]);
    leave(&home, ".gone-0123456789ac", &["lock"]);
    next_run(&home).await;
    home.assert_nothing_left();
}

#[tokio::test]
async fn what_is_no_leftover_stays() {
    let home = Home::new();
    let durable = leave(&home, "0123456789ab", &["lock", "record.json"]);
    let being_made = leave(&home, ".new-0123456789ac", &[]);
    // As whoever makes one does until that has a lock.
    let workspaces = std::fs::File::open(home.path("state/workspaces")).unwrap();
    rustix::fs::flock(&workspaces, rustix::fs::FlockOperation::LockShared).unwrap();
    let strange = leave(&home, "somebody's notes", &["note"]);
    next_run(&home).await;
    assert!(durable.exists() && being_made.exists() && strange.exists());
}

#[tokio::test]
async fn the_living_are_left_alone() {
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    let (events, mut received) = Events::channel();
    let (end, stdin) = tokio::io::duplex(64);
    let context = Context { events, stdin: Some(Box::new(stdin)), ..Context::default() };
    let first = tokio::spawn({
        let pyro = pyro.clone();
        async move { run_shell(&pyro, "echo; cat; echo still here", context).await }
    });
    while !matches!(received.recv().await, Some(Event::Output { .. })) {}
    for _ in 0..3 {
        next_run(&home).await;
    }
    assert_eq!(home.workspaces().len(), 1);
    drop(end);
    while received.recv().await.is_some() {}
    assert_eq!(first.await.unwrap().unwrap().output.stdout, "\nstill here\n");
    home.assert_nothing_left();
}
