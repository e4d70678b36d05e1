//! Ending a supervisor that obeys no orders, and its VMM with it.
//!
//! No recorded process id is believed. A supervisor is whoever is one by its
//! first argument and has the workspace's lock open, looked at through a pidfd:
//! whatever was seen between opening it and finding its process still alive was
//! that very process.

use super::ARGUMENT;
use crate::error::{Error, ErrorKind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The most of a command line that is looked at.
const WORDS_MAX: usize = 4096;

/// A process that cannot be mistaken for another.
struct Process {
    pid: Pid,
    pidfd: OwnedFd,
}

/// Kills the supervisor that has this lock, and waits until it and its VMM are
/// gone. Says whether there was one.
///
/// # Errors
/// `TimedOut` when one is not gone by the deadline: its kernel holds it.
pub async fn end(lock: &File, deadline: Duration) -> Result<bool> {
    let mut dying = Vec::new();
    for supervisor in supervisors(lock)? {
        // The supervisor first: it is not to take its VMM's end for a crash.
        let vmms = children(&supervisor);
        dying.push(supervisor);
        dying.extend(vmms);
    }
    for process in &dying {
        // One that is gone already is what we want.
        let _ = pidfd_send_signal(&process.pidfd, Signal::KILL);
    }
    let found = !dying.is_empty();
    let pids: Vec<_> = dying.iter().map(|process| process.pid.to_string()).collect();
    let gone = async {
        for process in dying {
            process.gone().await?;
        }
        Ok::<_, std::io::Error>(())
    };
    match tokio::time::timeout(deadline, gone).await {
        Ok(gone) => gone.map_err(|error| Error::io("cannot wait for a supervisor", error))?,
        Err(_) => {
            let message = format!("processes {} were killed and do not end", pids.join(", "));
            return Err(Error::new(ErrorKind::TimedOut, message)
                .hint("their state in /proc says what the kernel waits for, such as a disk"));
        }
    }
    Ok(found)
}

fn supervisors(lock: &File) -> Result<Vec<Process>> {
    let lock = lock.metadata().map_err(|error| Error::io("cannot look at a lock", error))?;
    let has_lock = |pid: Pid| {
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        let mut files = open.flatten().filter_map(|file| file.path().metadata().ok());
        files.any(|file| (file.dev(), file.ino()) == (lock.dev(), lock.ino()))
    };
    matching(|pid| is_supervisor(pid) && has_lock(pid))
}

fn children(parent: &Process) -> Vec<Process> {
    matching(|pid| parent_of(pid) == Some(parent.pid)).unwrap_or_default()
}

/// All processes that are so.
fn matching(is_so: impl Fn(Pid) -> bool) -> Result<Vec<Process>> {
    let entries = fs::read_dir("/proc").map_err(|error| Error::io("cannot read /proc", error))?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pids = pids.filter_map(Pid::from_raw);
    Ok(pids.filter(|pid| is_so(*pid)).filter_map(|pid| Process::open(pid, &is_so)).collect())
}

fn is_supervisor(pid: Pid) -> bool {
    let Ok(words) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let mut words = words[..words.len().min(WORDS_MAX)].split(|byte| *byte == 0);
    words.nth(1) == Some(ARGUMENT.as_bytes())
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, parentheses too.
    let (_, rest) = stat.rsplit_once(") ")?;
    Pid::from_raw(rest.split(' ').nth(1)?.parse().ok()?)
}

impl Process {
    /// Gets hold of a process, if it is still so.
    fn open(pid: Pid, is_so: impl Fn(Pid) -> bool) -> Option<Self> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let process = Self { pid, pidfd };
        (is_so(pid) && process.lives()).then_some(process)
    }

    fn lives(&self) -> bool {
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(0)
    }

    async fn gone(self) -> std::io::Result<()> {
        // SAFETY: an OwnedFd is open, always names the same descriptor, and is
        // not given out here.
        let watched = unsafe { AsyncFd::register_with_interest(self.pidfd, Interest::READABLE) };
        drop(watched.map_err(std::io::Error::from)?.readable().await?);
        Ok(())
    }
}
