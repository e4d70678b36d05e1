//! What the stories share: the `pyro` under test in a home of its own, and an
//! eye on what it leaves behind.
//!
//! Stories run the binary that users run. Kernels and images are expensive, so
//! every home borrows the cache of the user who runs the tests; `make test`
//! fills it first.

pub mod clock;
pub mod dice;
pub mod document;
pub mod installed;
pub mod mounted;
pub mod templates;

use mounted::{FileSystem, Mounted};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a story waits for something that is bound to happen.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The end of a log that tells why.
const LOG_MAX: usize = 4096;

/// The percentage of their full size at which stories are told. Where a guest's
/// host is translated as well, a tenth of the injections shows as much as time
/// allows.
pub const SCALE: &str = "PYRO_STORY_SCALE";

/// How many times as slow as a bare machine this host is.
pub const SLOWNESS: &str = "PYRO_STORY_SLOWNESS";

fn variable(name: &str) -> Option<u32> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// So many, at the scale of this telling, but at least `least`.
#[must_use]
pub fn scaled(full: u32, least: u32) -> u32 {
    let scale = variable(SCALE).unwrap_or(100);
    let scaled = (full * scale / 100).max(least.min(full));
    if scaled != full {
        eprintln!("{SCALE}={scale}: {scaled} instead of {full}");
    }
    scaled
}

/// How long this host may take for what a bare machine does within `limit`.
#[must_use]
pub fn patient(limit: Duration) -> Duration {
    limit * variable(SLOWNESS).unwrap_or(1)
}

/// Whether a command line is that of a VMM, whichever the host has.
#[must_use]
pub fn is_vmm(line: &str) -> bool {
    ["qemu-system", "firecracker"].iter().any(|name| line.contains(name))
}

/// A home of its own for `pyro`, removed at the end of the story.
pub struct Home {
    /// What its workspaces lie on; before what it is mounted in.
    mounted: Option<Mounted>,
    directory: TempDir,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

/// A story that fails says what the logs say, and leaves no machine running.
impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell_logs();
        }
        for left in self.leftovers() {
            let Some(id) = left.file_name().filter(|_| left.join("record.json").exists()) else {
                continue;
            };
            let words = [OsStr::new("workspace"), OsStr::new("delete"), id];
            // The story has failed already; this is only to clean up.
            drop(self.pyro(words).output());
        }
    }
}

impl Home {
    /// A home that borrows the user's kernels and images.
    ///
    /// # Panics
    /// When there are none: `make test` makes them.
    #[must_use]
    pub fn new() -> Self {
        let home = Self::bare();
        let cache = user_cache();
        assert!(cache.is_dir(), "{} is missing: run `make test`, which fills it", cache.display());
        std::os::unix::fs::symlink(cache, home.path().join("cache"))
            .expect("a new home is writable");
        home
    }

    /// A home with nothing in it.
    ///
    /// # Panics
    /// When there is no place for it.
    #[must_use]
    pub fn bare() -> Self {
        let directory = tempfile::Builder::new().prefix("pyro-story-").tempdir();
        Self { mounted: None, directory: directory.expect("a temporary directory") }
    }

    /// A home whose workspaces lie on a file system of its own; `None` and the
    /// reason on standard error where the host cannot have it.
    ///
    /// # Panics
    /// As [`Home::new`].
    #[must_use]
    pub fn on(file_system: FileSystem) -> Option<Self> {
        let mut home = Self::new();
        let state = home.path().join("state");
        std::fs::create_dir(&state).expect("a new home is writable");
        match Mounted::on(&state, file_system) {
            Ok(mounted) => home.mounted = Some(mounted),
            Err(why) => {
                eprintln!("skipped: {why}");
                return None;
            }
        }
        Some(home)
    }

    /// What its workspaces lie on.
    ///
    /// # Panics
    /// When that is nothing of its own.
    #[must_use]
    pub fn mounted(&self) -> &Mounted {
        self.mounted.as_ref().expect("a file system of its own")
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A `pyro` command in this home, its input empty.
    #[must_use]
    pub fn pyro<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(pyro_executable());
        command.args(arguments).env("PYRO_HOME", self.path()).stdin(Stdio::null());
        command
    }

    /// `pyro run debian:12 -- ...`, finished.
    ///
    /// # Panics
    /// When the command cannot be started.
    #[must_use]
    pub fn run(&self, program: &[&str]) -> Output {
        let words = ["run", "debian:12", "--"].iter().chain(program);
        self.pyro(words).output().expect("pyro starts")
    }

    /// The directory of an environment's root image.
    ///
    /// # Panics
    /// When it is not built: `make test` builds it.
    #[must_use]
    pub fn image_directory(&self, environment: &str) -> PathBuf {
        let output =
            self.pyro(["env", "inspect", environment, "--json"]).output().expect("pyro starts");
        let inspected: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
        let image = inspected["installed"]["root_image"].as_str();
        let image =
            image.unwrap_or_else(|| panic!("{environment} is not built: run `make environments`"));
        // Not by way of this home, which may be gone before the image is read.
        let image = Path::new(image).canonicalize().expect("it is built");
        image.parent().expect("an image is in a directory").to_owned()
    }

    /// What is left of workspaces here.
    #[must_use]
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let directory = self.path().join("state/workspaces");
        let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
        entries.flatten().map(|entry| entry.path()).collect()
    }

    /// The ends of the logs of the workspaces here.
    fn tell_logs(&self) {
        for left in self.leftovers() {
            for name in ["supervisor.log", "console.log"] {
                let log = std::fs::read(left.join(name)).unwrap_or_default();
                let end = &log[log.len().saturating_sub(LOG_MAX)..];
                if !end.is_empty() {
                    eprintln!("--- {name} of {}", left.display());
                    eprintln!("{}", String::from_utf8_lossy(end));
                }
            }
        }
    }

    /// Processes of this home that run now: supervisors, VMMs, commands.
    #[must_use]
    pub fn processes(&self) -> Vec<(u32, String)> {
        let needle = self.path().to_string_lossy().into_owned();
        let mut ours = HashSet::new();
        let mut found = Vec::new();
        // Each after its parent, but for numbers that have come round.
        for pid in process_ids() {
            let environment = read_of(pid, "environ");
            // What is jailed has neither, but a parent that is ours.
            if pid != std::process::id()
                && (environment.contains(&needle)
                    || open_files(pid).iter().any(|file| file.starts_with(&needle))
                    || parent(pid).is_some_and(|parent| ours.contains(&parent)))
            {
                ours.insert(pid);
                found.push((pid, read_of(pid, "cmdline").replace('\0', " ")));
            }
        }
        found
    }

    /// The one supervisor.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn supervisor(&self) -> u32 {
        let all = self.processes();
        let one = all.into_iter().find(|(_, line)| line.contains("__supervise"));
        one.expect("it runs").0
    }

    /// The processes of so many guests: for each a supervisor, a VMM and, where
    /// that is jailed, its watcher.
    ///
    /// # Panics
    /// When there are others.
    #[must_use]
    pub fn processes_of_guests(&self, guests: usize) -> Vec<(u32, String)> {
        let all = self.processes();
        let watchers = all.iter().filter(|(pid, _)| is_watcher(*pid)).count();
        assert!(watchers == 0 || watchers == guests, "{all:?}");
        assert_eq!(all.len(), 2 * guests + watchers, "{all:?}");
        all
    }

    /// Waits until nothing of this home runs or is left, for at most `limit`.
    ///
    /// # Panics
    /// When something stays.
    pub fn expect_clean_within(&self, limit: Duration) {
        self.expect_clean_within_but(limit, "\0");
    }

    /// The same, but for processes with these words in their command lines.
    ///
    /// # Panics
    /// When something else stays.
    pub fn expect_clean_within_but(&self, limit: Duration, words: &str) {
        let limit = patient(limit);
        if let Some(stays) = self.stays_after(limit, words) {
            panic!("still there after {limit:?}: {stays}");
        }
    }

    /// What of this home runs or is left when the time is over, but for processes
    /// with these words in their command lines.
    #[must_use]
    pub fn stays_after(&self, limit: Duration, words: &str) -> Option<String> {
        let deadline = Instant::now() + limit;
        loop {
            let (mut processes, leftovers) = (self.processes(), self.leftovers());
            processes.retain(|(_, line)| !line.contains(words));
            if processes.is_empty() && leftovers.is_empty() {
                return None;
            }
            if Instant::now() > deadline {
                return Some(format!("{processes:?}, {leftovers:?}"));
            }
            // Processes of others' children cannot be waited for by event.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The `pyro` under test: `PYRO_BIN`, or the release build.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn pyro_executable() -> PathBuf {
    let path = std::env::var_os("PYRO_BIN").map_or_else(
        || {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../target/x86_64-unknown-linux-musl/release/pyro")
        },
        PathBuf::from,
    );
    assert!(path.is_file(), "{} is missing: run `make build`", path.display());
    path
}

/// Where a program of this machine is.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|place| place.join(name)).find(|program| program.is_file())
}

/// The cache of the user who runs the tests.
///
/// # Panics
/// When the user has no home.
#[must_use]
pub fn user_cache() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(".cache"),
        PathBuf::from,
    );
    cache.join("pyro")
}

/// Waits until a process ends, whosever child it is. Says whether it did in time.
#[must_use]
pub fn ends_within(pid: u32, limit: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let Some(pid) = Pid::from_raw(pid.cast_signed()) else { return true };
    // One that cannot be watched has ended already.
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let limit = Timespec::try_from(limit).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)) == Ok(1)
}

/// A program, which may lie where an ordinary user's PATH does not lead.
#[must_use]
pub fn tool(name: &str) -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<_> = std::env::split_paths(&path).collect();
    all.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = all.into_iter().map(|directory| directory.join(name)).find(|path| path.is_file());
    found.map(Command::new)
}

/// Standard output as text.
///
/// # Panics
/// When the command failed or its output is no UTF-8.
#[must_use]
pub fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{:?}: {}", output.status, stderr(output));
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// Standard error as text.
#[must_use]
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn process_ids() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let mut ids: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    ids
}

/// A file of a process's, empty when it has gone.
fn read_of(pid: u32, name: &str) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Who started a process, or has taken it over.
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    let status = read_of(pid, "status");
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Whether it watches over a VMM that is jailed.
#[must_use]
pub fn is_watcher(pid: u32) -> bool {
    read_of(pid, "comm").trim() == "pyro-watcher"
}

fn open_files(pid: u32) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect()
}
