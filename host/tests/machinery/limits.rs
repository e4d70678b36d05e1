//! The cgroup around a VMM, on hosts that let us make one.

use crate::confinement::{run, shell, skip};
use pyro::confine::{Limits, inspect, sweep, unlimited_because};
use pyro::id::WorkspaceId;
use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;

const MEMORY: u64 = 32 * 1024 * 1024;

/// `None`, and why, where there are no limits.
fn group(workspace: WorkspaceId) -> Option<PathBuf> {
    if let Some(reason) = unlimited_because() {
        return skip(reason);
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).unwrap();
    let root = PathBuf::from(mount.split(' ').nth(4).unwrap());
    Some(root.join("pyro").join(workspace.to_string()))
}

#[test]
fn a_program_is_limited_from_its_start_and_leaves_no_group() {
    run(async {
        let workspace = WorkspaceId::random();
        let Some(group) = group(workspace) else { return };
        let limits = Limits { memory_bytes: Some(MEMORY), pids: Some(4) };
        let line = "echo up >&2; read line <&3; \
                    for n in 1 2 3 4 5 6 7; do (read line <&3) & done";
        let started = shell(line, |confinement| confinement.limit(workspace, limits));
        let Some(mut shell) = started else { return };
        let mut up = [0; 3];
        shell.said.read_exact(&mut up).unwrap();
        let seen = inspect(shell.program.pid()).unwrap();
        assert_eq!(seen.limits, limits);
        assert_eq!(fs::read_to_string(group.join("memory.swap.max")).unwrap().trim(), "0");
        sweep();
        assert!(group.exists(), "it was swept away with somebody in it");
        shell.input.write_all(b"go on\n").unwrap();
        let (how, said) = shell.finish().await;
        assert_eq!(how, "exited with status 2", "{said}");
        assert!(said.contains("Cannot fork"), "{said}");
        assert!(!group.exists(), "its group is left");
    });
}

#[test]
fn a_program_that_takes_more_memory_is_killed() {
    run(async {
        let workspace = WorkspaceId::random();
        let Some(group) = group(workspace) else { return };
        let limits = Limits { memory_bytes: Some(MEMORY), pids: None };
        let line = "x=0123456789abcdef; while :; do x=$x$x; done";
        let started = shell(line, |confinement| confinement.limit(workspace, limits));
        let Some(shell) = started else { return };
        let (how, _) = shell.finish().await;
        assert_eq!(how, "was killed by signal 9");
        assert!(!group.exists(), "its group is left");
    });
}

#[test]
fn what_a_killed_supervisor_left_is_taken_or_swept() {
    run(async {
        let workspace = WorkspaceId::random();
        let Some(group) = group(workspace) else { return };
        fs::create_dir(&group).unwrap();
        let limits = Limits { memory_bytes: None, pids: Some(9) };
        let started = shell("read line <&3", |confinement| confinement.limit(workspace, limits));
        let Some(shell) = started else { return };
        assert_eq!(inspect(shell.program.pid()).unwrap().limits.pids, Some(9));
        drop(shell.input);
        drop(shell.program);
        assert!(!group.exists(), "its group is left");
        fs::create_dir(&group).unwrap();
        sweep();
        assert!(!group.exists(), "an empty group is left");
    });
}
