//! Copies of disks that come to nothing: there is no room for them, or whoever
//! makes them is killed. Nothing is half made, and what was there goes on.

use pyro_smoke::mounted::{FileSystem, Mounted};
use pyro_smoke::{Home, PATIENCE, ends_within, is_vmm, patient, scaled, stderr, stdout};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const REFUSED: i32 = 125;

const INTERRUPTED: i32 = 130;

const MIB: u64 = 1 << 20;

/// What no copy touches of a file system of the host's.
const RESERVE: u64 = 256 * MIB;

/// More than an export of the environment takes, and all else.
const PLENTY: u64 = 2048 * MIB;

fn succeed(home: &Home, words: &[&str]) -> String {
    stdout(&home.pyro(words).output().expect("pyro starts"))
}

fn refused(output: &Output, told: &[&str]) {
    assert_eq!(output.status.code(), Some(REFUSED), "{}", stderr(output));
    for words in told {
        assert!(stderr(output).contains(words), "{words:?} is not in: {}", stderr(output));
    }
}

fn shell(home: &Home, line: &str) -> String {
    succeed(home, &["workspace", "exec", "w", "--shell", line])
}

fn spawn(home: &Home, words: &[&str]) -> Child {
    let mut command = home.pyro(words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pyro starts")
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process id");
    kill_process(pid, signal).expect("it lives");
}

/// Waits for what others do, whom nobody can wait for by event.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < patient(PATIENCE), "{what}: never");
        sleep(Duration::from_millis(1));
    }
}

/// What a file takes; nothing if it is not there.
fn taken(file: &Path) -> u64 {
    file.metadata().map_or(0, |meta| meta.blocks() * 512)
}

/// What is in a directory, if it is one.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The one workspace.
struct Story {
    home: Home,
    place: PathBuf,
    boot: String,
}

const BOOT: &str = "cat /proc/sys/kernel/random/boot_id note";

impl Story {
    /// In which so much is written, and of which there is one snapshot before.
    fn begin(home: Home, written: u64) -> Self {
        let create = ["workspace", "create", "debian:12-base", "--name", "w", "--id-only"];
        let id = succeed(&home, &create);
        let place = home.path().join("state/workspaces").join(id.trim());
        succeed(&home, &["workspace", "snapshot", "create", "w", "before"]);
        let write = format!("dd if=/dev/zero of=large bs=1M count={} status=none", written / MIB);
        shell(&home, &format!("{write}; echo kept > note; sync"));
        let boot = shell(&home, BOOT);
        Self { home, place, boot }
    }

    fn try_to(&self, words: &[&str]) -> Output {
        self.home.pyro([&["workspace"], words].concat()).output().expect("pyro starts")
    }

    fn disk(&self) -> PathBuf {
        self.place.join("disk-0.ext4")
    }

    fn snapshots(&self) -> Vec<String> {
        let listed = succeed(&self.home, &["workspace", "snapshot", "list", "w", "--json"]);
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        let all = listed["snapshots"].as_array().expect("a list").iter();
        let name = |one: &Value| one["snapshot_name"].as_str().expect("a name").to_owned();
        all.map(name).collect()
    }

    fn half_made(&self) -> Vec<PathBuf> {
        entries(&self.place.join("snapshots/.making"))
    }

    /// The machine is the same and answers; of copies there is nothing.
    fn expect_untouched(&self) {
        assert_eq!(shell(&self.home, BOOT), self.boot, "it goes on");
        assert_eq!(self.snapshots(), ["baseline", "before"]);
        assert_eq!(self.half_made(), [] as [PathBuf; 0]);
        assert_eq!(self.home.leftovers(), std::slice::from_ref(&self.place));
    }

    /// Begins a snapshot, and stops the supervisor when some of the copy is there
    /// and some is not.
    fn half_a_snapshot(&self) -> Child {
        let supervisor = self.home.supervisor();
        for _ in 0..20 {
            let caller = spawn(&self.home, &["workspace", "snapshot", "create", "w", "half"]);
            let copy = || self.half_made().first().map_or(0, |made| taken(&made.join("disk.ext4")));
            until("a copy", || copy() > 0 || self.place.join("snapshots/half").exists());
            signal(supervisor, Signal::STOP);
            let (there, all) = (copy(), taken(&self.disk()));
            if 0 < there && there < all / 10 * 9 {
                eprintln!("{there} of {all} bytes are copied");
                return caller;
            }
            // It was quicker.
            signal(supervisor, Signal::CONT);
            let output = caller.wait_with_output().expect("it ends");
            assert!(output.status.success(), "{}", stderr(&output));
            succeed(&self.home, &["workspace", "snapshot", "delete", "w", "half"]);
        }
        panic!("no copy was caught");
    }

    fn end(self) {
        succeed(&self.home, &["workspace", "delete", "w"]);
        self.home.expect_clean_within(Duration::from_secs(5));
    }
}

#[test]
fn r13_what_there_is_no_room_for_is_refused_and_the_workspace_goes_on() {
    let Some(home) = Home::on(FileSystem::Small(PLENTY)) else { return };
    let story = Story::begin(home, u64::from(scaled(200, 100)) * MIB);
    let (disk, used) = (taken(&story.disk()), story.home.mounted().used());
    let free = RESERVE + disk - MIB;
    story.home.mounted().resize(used + free);
    let takes = format!("it takes {disk} bytes, and of the ");
    let told = [&takes, "cannot copy the workspace's disk", "snapshot delete", "free some space"];
    refused(&story.try_to(&["snapshot", "create", "w", "s"]), &told);
    refused(&story.try_to(&["create", "--from", "w"]), &told);
    story.expect_untouched();
    // A little more, and there is room.
    story.home.mounted().resize(used + free + 32 * MIB);
    succeed(&story.home, &["workspace", "snapshot", "create", "w", "s"]);
    refused(&story.try_to(&["reset", "w", "--snapshot", "s"]), &told);
    assert!(!story.place.join("disk-1.ext4").exists());
    succeed(&story.home, &["workspace", "snapshot", "delete", "w", "s"]);
    story.expect_untouched();
    story.end();
}

#[test]
fn r13_a_disk_that_others_fill_during_a_copy_is_given_back() {
    let Some(home) = Home::on(FileSystem::Small(PLENTY)) else { return };
    let story = Story::begin(home, u64::from(scaled(400, 200)) * MIB);
    let caller = story.half_a_snapshot();
    let mounted = story.home.mounted();
    mounted.resize(mounted.used());
    signal(story.home.supervisor(), Signal::CONT);
    let output = caller.wait_with_output().expect("it ends");
    refused(&output, &["cannot copy", "free some space"]);
    assert_eq!(story.half_made(), [] as [PathBuf; 0]);
    mounted.resize(PLENTY);
    story.expect_untouched();
    story.end();
}

#[test]
fn r9_a_snapshot_is_there_or_not_whoever_is_killed() {
    // A copy by reference cannot be caught half done.
    let Some(home) = Home::on(FileSystem::Small(PLENTY)) else { return };
    let written = u64::from(scaled(400, 200)) * MIB;
    let story = Story::begin(home, written);
    // Its caller, and nobody tells the supervisor to give up.
    let mut caller = story.half_a_snapshot();
    caller.kill().and_then(|()| caller.wait()).expect("it ends");
    signal(story.home.supervisor(), Signal::CONT);
    assert_eq!(shell(&story.home, BOOT), story.boot, "it goes on");
    assert_eq!(story.snapshots(), ["baseline", "before"]);
    succeed(&story.home, &["workspace", "snapshot", "create", "w", "next"]);
    succeed(&story.home, &["workspace", "snapshot", "delete", "w", "next"]);
    // What the caller left was swept.
    story.expect_untouched();

    // The supervisor, and its caller is there to clear away.
    let caller = story.half_a_snapshot();
    signal(story.home.supervisor(), Signal::KILL);
    let output = caller.wait_with_output().expect("it ends");
    refused(&output, &["the guest of workspace", "pyro workspace start"]);
    assert_eq!(story.half_made(), [] as [PathBuf; 0]);
    assert_eq!(story.snapshots(), ["baseline", "before"]);
    succeed(&story.home, &["workspace", "start", "w"]);
    assert_eq!(shell(&story.home, "cat note"), "kept\n");

    // Both, and nobody is.
    let mut caller = story.half_a_snapshot();
    caller.kill().and_then(|()| caller.wait()).expect("it ends");
    let supervisor = story.home.supervisor();
    signal(supervisor, Signal::KILL);
    assert!(ends_within(supervisor, patient(Duration::from_secs(10))));
    assert_eq!(story.half_made().len(), 1, "half of one is there");
    assert_eq!(story.snapshots(), ["baseline", "before"]);
    succeed(&story.home, &["workspace", "start", "w"]);
    succeed(&story.home, &["workspace", "snapshot", "create", "w", "last"]);
    assert_eq!(story.half_made(), [] as [PathBuf; 0]);
    succeed(&story.home, &["workspace", "reset", "w", "--snapshot", "last"]);
    assert_eq!(shell(&story.home, "cat note; stat -c %s large"), format!("kept\n{written}\n"));
    story.end();
}

/// An export of the stopped workspace's disk.
fn export<'a>(format: &'a str, output: &'a Path) -> [&'a str; 8] {
    let output = output.to_str().expect("UTF-8");
    ["workspace", "disk", "export", "w", "--format", format, "--output", output]
}

impl Story {
    /// Stopped, with a directory to export to.
    fn stopped(home: Home) -> (Self, PathBuf) {
        let story = Self::begin(home, MIB);
        succeed(&story.home, &["workspace", "stop", "w"]);
        let outside = story.home.path().join("outside");
        fs::create_dir(&outside).expect("a directory");
        (story, outside)
    }

    /// What an export has made so far, in the guest's directory or beside its
    /// output.
    fn exported(&self, outside: &Path) -> u64 {
        let image = self.home.leftovers().into_iter().map(|place| place.join("copy.img"));
        let beside = entries(outside).into_iter().map(|staging| staging.join("item"));
        image.chain(beside).map(|file| taken(&file)).sum()
    }

    /// The machine that looked is gone, with all it had; the workspace is not.
    fn expect_no_machine(&self) {
        until("the inspection's end", || self.home.processes().is_empty());
        until("its directory's end", || self.home.leftovers() == [self.place.clone()]);
    }

    fn vmm(&self) -> u32 {
        let all = self.home.processes();
        all.into_iter().find(|(_, line)| is_vmm(line)).expect("it runs").0
    }
}

#[test]
fn r13_an_export_that_there_is_no_room_for_leaves_nothing() {
    let Some(home) = Home::on(FileSystem::Small(PLENTY)) else { return };
    let (story, outside) = Story::stopped(home);
    let (mounted, image) = (story.home.mounted(), outside.join("w.ext4"));
    let told = ["cannot write the export", "it takes ", "bytes that are free", "free some space"];
    // No room where it is made.
    mounted.resize(mounted.used() + RESERVE + 16 * MIB);
    refused(&story.try_to(&export("ext4", &image)[1..]), &told);
    // No room where it is to be.
    mounted.resize(PLENTY);
    let small = Mounted::on(&outside, FileSystem::Small(64 * MIB)).expect("another");
    refused(&story.try_to(&export("ext4", &image)[1..]), &told);
    assert_eq!(entries(&outside), [] as [PathBuf; 0]);
    drop(small);
    // Room at first, and then others take it.
    let caller = spawn(&story.home, &export("ext4", &image));
    until("an export", || story.exported(&outside) > 16 * MIB);
    let vmm = story.vmm();
    signal(vmm, Signal::STOP);
    mounted.resize(mounted.used());
    signal(vmm, Signal::CONT);
    let output = caller.wait_with_output().expect("it ends");
    refused(&output, &["cannot write the export", "the disk is full", "free some space"]);
    mounted.resize(PLENTY);
    story.expect_no_machine();
    assert_eq!(entries(&outside), [] as [PathBuf; 0]);
    story.end();
}

#[test]
fn r9_an_export_is_there_or_not_however_its_caller_ends() {
    let (story, outside) = Story::stopped(Home::new());
    // Only the last leaves some of an archive, for the one after to sweep.
    let endings = [
        ("tar", Signal::INT),
        ("ext4", Signal::KILL),
        ("ext4", Signal::INT),
        ("tar", Signal::KILL),
    ];
    for (format, how) in endings.into_iter().take(scaled(4, 2) as usize) {
        let output = outside.join("w");
        let mut caller = spawn(&story.home, &export(format, &output));
        until("an export", || story.exported(&outside) > 8 * MIB);
        signal(caller.id(), how);
        let status = caller.wait().expect("it ends");
        let code = (how == Signal::INT).then_some(INTERRUPTED);
        assert_eq!(status.code(), code, "{format}: {status}");
        story.expect_no_machine();
        assert!(!output.exists(), "half of one is there");
        if how == Signal::INT {
            assert_eq!(entries(&outside), [] as [PathBuf; 0]);
        }
    }
    let whole = outside.join("whole.tar");
    succeed(&story.home, &export("tar", &whole));
    assert_eq!(entries(&outside), [whole.as_path()]);
    let listed = Command::new("tar").arg("-tf").arg(&whole).output().expect("tar starts");
    assert!(stdout(&listed).lines().any(|name| name == "workspace/note"));
    story.end();
}
