//! One cgroup for everything that a process of the host's starts.

use crate::readiness::watch;
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Where the cgroups of processes live.
pub(crate) const PROCESSES: &str = "/sys/fs/cgroup/process";

/// The most cgroups that one sweep tries to remove.
const SWEEP_MAX: usize = 16;

/// The most names of left-behind cgroups to remember; what is forgotten stays
/// until the machine goes.
const LEFT_BEHIND_MAX: usize = 4096;

/// How much of the list of a cgroup's processes is read: some ten thousand. What
/// has more does not get the signal, and is killed in time.
const PROCESSES_MAX: u64 = 64 * 1024;

/// The parent of all of them.
#[derive(Debug)]
pub(crate) struct Cgroups {
    root: OwnedFd,
    next: AtomicU64,
    /// Those whose process ended and left others running.
    left_behind: Mutex<Vec<String>>,
}

/// One process's, and its descendants'.
#[derive(Debug)]
pub(crate) struct Cgroup {
    directory: OwnedFd,
    name: String,
}

impl Cgroups {
    /// Opens the parent, and ends whatever an agent that died has left in it.
    pub(crate) fn open() -> io::Result<Self> {
        let root = open_directory(rustix::fs::CWD, PROCESSES)?;
        let mut left_behind = Vec::new();
        for entry in rustix::fs::Dir::read_from(&root)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_child = entry.file_type() == rustix::fs::FileType::Directory
                && !matches!(name.to_bytes(), b"." | b"..");
            if is_child {
                write_at(&open_directory(root.as_fd(), name)?, "cgroup.kill", b"1")?;
                left_behind.push(name.to_string_lossy().into_owned());
            }
        }
        // Names of the dead agent's that could not be removed are not reused.
        let next = AtomicU64::new(u64::from(std::process::id()) << 32);
        Ok(Self { root, next, left_behind: Mutex::new(left_behind) })
    }

    /// Makes a new one, and clears up to [`SWEEP_MAX`] that are empty by now.
    pub(crate) fn create(&self) -> io::Result<Cgroup> {
        self.sweep();
        let name = format!("{:x}", self.next.fetch_add(1, Ordering::Relaxed));
        rustix::fs::mkdirat(&self.root, &*name, Mode::from_raw_mode(0o755))?;
        Ok(Cgroup { directory: open_directory(self.root.as_fd(), &*name)?, name })
    }

    /// Removes one whose process is gone, now or when what it left behind is.
    pub(crate) fn retire(&self, cgroup: &Cgroup) {
        if unlinkat(&self.root, &*cgroup.name, AtFlags::REMOVEDIR).is_err() {
            let mut left_behind = lock(&self.left_behind);
            if left_behind.len() < LEFT_BEHIND_MAX {
                left_behind.push(cgroup.name.clone());
            }
        }
    }

    /// Kills everything in all of them.
    pub(crate) fn kill_all(&self) -> io::Result<()> {
        write_at(&self.root, "cgroup.kill", b"1")
    }

    /// Returns when nothing lives in any of them.
    pub(crate) async fn empty(&self) -> io::Result<()> {
        unpopulated(&self.root).await
    }

    fn sweep(&self) {
        let mut left_behind = lock(&self.left_behind);
        let tried = left_behind.len().min(SWEEP_MAX);
        // The oldest first; what is still alive goes to the end of the queue.
        let (old, rest) = left_behind.split_at(tried);
        let alive = |name: &&String| {
            matches!(unlinkat(&self.root, name.as_str(), AtFlags::REMOVEDIR), Err(Errno::BUSY))
        };
        let kept = old.iter().filter(alive);
        *left_behind = rest.iter().chain(kept).cloned().collect();
    }
}

impl Cgroup {
    /// Where a child is to be born.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Kills everything in it.
    pub(crate) fn kill(&self) -> io::Result<()> {
        write_at(&self.directory, "cgroup.kill", b"1")
    }

    /// Sends a signal to everything in it. A process that is held by its
    /// descriptor while it is still listed is no other.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let held: Vec<_> = self
            .processes()?
            .into_iter()
            .filter_map(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?)))
            .collect();
        let listed: BTreeSet<i32> =
            self.processes()?.into_iter().map(|pid| pid.as_raw_pid()).collect();
        for (pid, pidfd) in held {
            if listed.contains(&pid.as_raw_pid()) {
                match pidfd_send_signal(&pidfd, signal) {
                    // It has ended by itself.
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Returns when nothing lives in it.
    pub(crate) async fn empty(&self) -> io::Result<()> {
        unpopulated(&self.directory).await
    }

    fn processes(&self) -> io::Result<Vec<Pid>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.directory, "cgroup.procs", flags, Mode::empty())?;
        let mut list = String::new();
        File::from(file).take(PROCESSES_MAX).read_to_string(&mut list)?;
        Ok(list.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw)).collect())
    }
}

/// Waits until nothing lives in a cgroup or below it: its file of events signals
/// a change as an exceptional condition.
async fn unpopulated(directory: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let events = openat(directory, "cgroup.events", flags, Mode::empty())?;
    let events: AsyncFd<OwnedFd> = watch(events, Interest::PRIORITY)?;
    loop {
        // Read first: reading arms the next event.
        if !populated(events.get_ref())? {
            return Ok(());
        }
        events.ready(Interest::PRIORITY).await?.clear_ready();
    }
}

/// Whether `cgroup.events` says that something lives.
fn populated(events: &OwnedFd) -> io::Result<bool> {
    let mut buffer = [0; 256];
    let length = rustix::io::pread(events, &mut buffer, 0)?;
    let text = buffer.get(..length).unwrap_or_default();
    Ok(text.split(|byte| *byte == b'\n').any(|line| line == b"populated 1"))
}

fn open_directory<P: rustix::path::Arg>(at: BorrowedFd<'_>, path: P) -> io::Result<OwnedFd> {
    Ok(openat(at, path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn write_at(directory: &OwnedFd, name: &str, text: &[u8]) -> io::Result<()> {
    let file = openat(directory, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text)?;
    Ok(())
}

/// A poisoned list of names is still a list of names.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
