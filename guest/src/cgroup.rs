//! One cgroup for everything that a process of the host's starts.

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use std::io;
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

    /// The file that says whether anything lives in them, and signals a change
    /// as an exceptional condition.
    pub(crate) fn events(&self) -> io::Result<OwnedFd> {
        Ok(openat(&self.root, "cgroup.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    fn sweep(&self) {
        let mut left_behind = lock(&self.left_behind);
        let tried = left_behind.len().min(SWEEP_MAX);
        // The oldest first; what is still alive goes to the end of the queue.
        let (old, rest) = left_behind.split_at(tried);
        let alive = |name: &&String| {
            matches!(
                unlinkat(&self.root, name.as_str(), AtFlags::REMOVEDIR),
                Err(rustix::io::Errno::BUSY)
            )
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

    /// As [`Cgroups::events`], of this one alone.
    pub(crate) fn events(&self) -> io::Result<OwnedFd> {
        Ok(openat(
            &self.directory,
            "cgroup.events",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    }

    /// Kills everything in it.
    pub(crate) fn kill(&self) -> io::Result<()> {
        write_at(&self.directory, "cgroup.kill", b"1")
    }
}

/// Returns when `cgroup.events` says that nothing lives; watched for exceptional
/// conditions.
pub(crate) async fn unpopulated(events: &AsyncFd<OwnedFd>) -> io::Result<()> {
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
