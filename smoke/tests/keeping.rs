//! What a workspace keeps, and what a reset takes back.

use pyro_smoke::{Home, stderr, stdout};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn succeed(home: &Home, words: &[&str]) -> String {
    stdout(&home.pyro(words).output().expect("pyro starts"))
}

fn shell(home: &Home, line: &str) -> String {
    succeed(home, &["workspace", "exec", "w", "--shell", line])
}

fn state(home: &Home) -> Value {
    let status = succeed(home, &["workspace", "status", "w", "--json"]);
    serde_json::from_str::<Value>(&status).expect("JSON")["state"].clone()
}

/// The workspace's directory.
fn directory(home: &Home) -> PathBuf {
    home.leftovers()
        .into_iter()
        .find(|path| path.join("record.json").exists())
        .expect("it is there")
}

/// A seed with a program in it.
fn seed(home: &Home) -> String {
    let seed = home.path().join("seed");
    fs::create_dir(&seed).expect("made");
    fs::write(seed.join("tool"), "#!/bin/sh\necho tool\n").expect("written");
    fs::set_permissions(seed.join("tool"), fs::Permissions::from_mode(0o755)).expect("ours");
    fs::write(seed.join("note"), "seeded\n").expect("written");
    seed.to_str().expect("UTF-8").to_owned()
}

/// Whether the file system on a disk has a journal to be replayed before it is
/// what it should be.
fn needs_recovery(disk: &Path) -> bool {
    let mut superblock = [0; 1024];
    File::open(disk).and_then(|disk| disk.read_exact_at(&mut superblock, 1024)).expect("a disk");
    assert_eq!(superblock[0x38..0x3a], [0x53, 0xef], "it is ext4");
    superblock[0x60] & 4 != 0
}

#[test]
fn r12_what_was_stopped_needs_no_recovery_and_has_lost_nothing() {
    let home = Home::new();
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w"]);
    let disk = directory(&home).join("disk-0.ext4");
    // Nothing of it is synced by whoever writes it.
    shell(&home, "seq 1 100000 > numbers; echo kept > /etc/kept; rm /etc/motd");
    assert!(needs_recovery(&disk), "it is in use");
    succeed(&home, &["workspace", "stop", "w"]);
    assert!(!needs_recovery(&disk));
    succeed(&home, &["workspace", "start", "w"]);
    let said = shell(&home, "tail -n 1 numbers; cat /etc/kept; ls /etc/motd 2>/dev/null || true");
    assert_eq!(said, "100000\nkept\n");
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

/// A reset is of the whole disk: of the system as of the workspace.
#[test]
fn r15_a_reset_takes_back_what_is_outside_the_workspace_too() {
    let home = Home::new();
    let seed = seed(&home);
    let create = ["workspace", "create", "debian:12", "--name", "w", "--seed-path", &seed];
    succeed(&home, &create);
    let fresh = succeed(&home, &["workspace", "diff", "w", "--system", "--name-only"]);
    shell(
        &home,
        "echo changed > note; rm tool; mkdir made; echo x > /etc/made; echo x >> /etc/passwd; \
         rm -r /usr/share/doc; useradd -m somebody; ln -s /etc /opt/link; echo x > /root/made",
    );
    let changed = succeed(&home, &["workspace", "diff", "w", "--system", "--name-only"]);
    for path in ["etc/made", "etc/passwd", "root/made"] {
        assert!(changed.lines().any(|line| line == path), "{path} is not in {changed}");
    }
    succeed(&home, &["workspace", "reset", "w"]);
    let system = succeed(&home, &["workspace", "diff", "w", "--system", "--name-only"]);
    assert_eq!(system, fresh);
    assert_eq!(succeed(&home, &["workspace", "diff", "w"]), "");
    let said = shell(
        &home,
        "cat note; ./tool; ls; ls -d /etc/made /root/made /opt/link /home/somebody 2>/dev/null; \
         ls /usr/share/doc | wc -l; id somebody 2>/dev/null; true",
    );
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..4], ["seeded", "tool", "note", "tool"], "{said}");
    assert_eq!(lines.len(), 5, "nothing that was made is there: {said}");
    assert_ne!(lines[4], "0", "what was removed is there again");
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

/// The host's power fails: all processes end at once, and of the files of the
/// workspace only those that were written for good are there.
#[test]
fn r21_a_workspace_goes_on_after_the_host_was_down() {
    let home = Home::new();
    let seed = seed(&home);
    let create = ["workspace", "create", "debian:12", "--name", "w", "--seed-path", &seed];
    succeed(&home, &create);
    shell(&home, "echo changed > note; echo kept > /etc/kept; sync");
    let running = home.processes_of_guests(1);
    for (pid, _) in &running {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process id");
        match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
            // The one may have taken the other along.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => panic!("{errno}"),
        }
    }
    for file in ["vmm/vsock.sock", "control.sock", "console.log", "supervisor.log"] {
        fs::remove_file(directory(&home).join(file)).expect("it was there");
    }
    assert_eq!(state(&home), "crashed");
    let words = ["workspace", "exec", "w", "--shell", "cat note /etc/kept; ./tool"];
    let next = home.pyro(words).output().expect("pyro starts");
    assert_eq!(stdout(&next), "changed\nkept\ntool\n", "{}", stderr(&next));
    assert_eq!(state(&home), "running");
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}
