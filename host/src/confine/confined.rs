//! A confined program, while it runs and until it is gone.

use super::cgroup::Group;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::AsFd;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use tokio::io::unix::AsyncFd;
use tokio_util::task::AbortOnDropHandle;

/// How long the kernel may take to end one that got KILL.
const DYING_MAX: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// A confined program.
#[derive(Debug)]
pub struct Confined {
    /// The VMM.
    pub(super) pid: Pid,
    /// Our child: the VMM, or the watcher whose end is the VMM's.
    pub(super) pidfd: AsyncFd<OwnedFd>,
    /// Where a watcher says how the VMM ended.
    pub(super) ending: Option<File>,
    pub(super) ended: Option<String>,
    /// Gives the program what it is lent. Nobody does any more without.
    pub(super) _loan: Option<AbortOnDropHandle<()>>,
    /// Removed when all in it are gone.
    pub(super) _group: Option<Group>,
}

impl Confined {
    /// The VMM's process id on the host.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Whether Firecracker's jailer started it.
    #[must_use]
    pub fn is_jailed(&self) -> bool {
        self.ending.is_some()
    }

    /// Waits for its end and says how it ended.
    pub async fn wait(&mut self) -> String {
        if let Some(ended) = &self.ended {
            return ended.clone();
        }
        loop {
            // A failing wait for readiness means that the runtime shuts down;
            // waitid then blocks for the moment the child still needs.
            drop(self.pidfd.readable().await);
            if let Some(ended) = self.reap(WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                return ended;
            }
        }
    }

    fn reap(&mut self, options: WaitIdOptions) -> Option<String> {
        if self.ended.is_none() {
            let status = waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options);
            self.ended = match status {
                Ok(None) => None,
                Ok(Some(status)) => {
                    let own = match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => exited(code),
                        (None, Some(signal)) => killed(signal),
                        (None, None) => "ended".into(),
                    };
                    Some(self.told_by_watcher().unwrap_or(own))
                }
                Err(errno) => Some(format!("is lost: {errno}")),
            };
        }
        self.ended.clone()
    }

    /// `None` when there is no watcher, or when it was killed before the VMM
    /// ended: then the kernel killed the VMM with it.
    fn told_by_watcher(&mut self) -> Option<String> {
        let mut status = [0; 4];
        self.ending.as_mut()?.read_exact(&mut status).ok()?;
        let status = ExitStatus::from_raw(i32::from_ne_bytes(status));
        Some(match (status.code(), status.signal()) {
            (Some(code), _) => exited(code),
            (None, Some(signal)) => killed(signal),
            (None, None) => "ended".into(),
        })
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            // Fails only when it has ended already.
            let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
        }
    }
}

fn exited(code: i32) -> String {
    format!("exited with status {code}")
}

fn killed(signal: i32) -> String {
    format!("was killed by signal {signal}")
}

impl Drop for Confined {
    fn drop(&mut self) {
        self.kill();
        // The workspace's files are removed next, so it must be gone. A pidfd
        // that does not block does not make waitid block either.
        let mut gone = [PollFd::new(self.pidfd.get_ref(), PollFlags::IN)];
        let _ = rustix::event::poll(&mut gone, Some(&DYING_MAX));
        self.reap(WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}
