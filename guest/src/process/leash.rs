//! The hold on a running program and all it started.

use super::lifetime::KILL_DEADLINE;
use crate::cgroup::{Cgroup, Cgroups};
use crate::guest::{Guest, Machine};
use crate::log;
use crate::readiness::watch;
use pyro_protocol::process::Outcome;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, kill_process_group, waitid,
    waitpid,
};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// The largest signal that Linux knows.
pub(crate) const SIGNAL_MAX: u8 = 64;

/// A program on its leash. The child is not reaped before the leash is gone,
/// so until then its process id, and that of its group, are nobody else's.
/// Dropping the leash kills, unless it was released.
pub(crate) struct Leash<'guest> {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    hold: Hold<'guest>,
    released: bool,
    running: &'guest Registry,
    born: Instant,
}

/// What reaches a program's descendants.
pub(super) enum Hold<'guest> {
    /// Everything, wherever it went.
    Cgroup { cgroup: Cgroup, cgroups: &'guest Cgroups },
    /// What has not left the process group.
    Group,
}

impl<'guest> Hold<'guest> {
    /// For a program that is about to be started.
    pub(super) fn new(guest: &'guest Guest) -> io::Result<Self> {
        match &guest.machine {
            Machine::Virtual { cgroups } => Ok(Self::Cgroup { cgroup: cgroups.create()?, cgroups }),
            Machine::InProcess { .. } => Ok(Self::Group),
        }
    }

    /// Where it is to be born.
    pub(super) fn cgroup(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Hold::Cgroup { cgroup, .. } => Some(cgroup.directory()),
            Hold::Group => None,
        }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        match self {
            Hold::Cgroup { cgroup, cgroups } => cgroups.retire(cgroup),
            Hold::Group => {}
        }
    }
}

impl<'guest> Leash<'guest> {
    /// Takes a child that has just been forked.
    pub(super) fn new(
        guest: &'guest Guest,
        pid: Pid,
        pidfd: OwnedFd,
        hold: Hold<'guest>,
    ) -> io::Result<Self> {
        let pidfd = watch(pidfd, Interest::READABLE).inspect_err(|_| {
            // It is still ours alone, so it is there to be killed and reaped.
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        })?;
        guest.running.add(pid);
        Ok(Self {
            pid,
            pidfd,
            hold,
            released: false,
            running: &guest.running,
            born: Instant::now(),
        })
    }

    /// The program's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The time since it was forked.
    pub(crate) fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// Returns once the program is gone; what it started may go on.
    pub(crate) async fn gone(&self) -> io::Result<()> {
        self.pidfd.readable().await?.retain_ready();
        Ok(())
    }

    /// How it ended; to be asked once it has.
    pub(crate) fn outcome(&self) -> io::Result<Outcome> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options)?
            .ok_or(io::ErrorKind::WouldBlock)?;
        let byte = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ok(Outcome::Exited { code: byte(code) }),
            (None, Some(signal)) => Ok(Outcome::Signaled { signal: byte(signal) }),
            (None, None) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Sends a signal to the program's process group.
    pub(crate) fn signal(&self, number: u8) {
        // SAFETY: kill takes no pointers; the group is ours until we reap.
        // A group that has just ended needs no signal any more.
        unsafe { libc::kill(-self.pid.as_raw_nonzero().get(), number.into()) };
    }

    /// Kills the program and what it started.
    pub(crate) fn kill(&self) {
        match &self.hold {
            Hold::Cgroup { cgroup, .. } => {
                if let Err(error) = cgroup.kill() {
                    log::warn(format_args!("killing process {}: {error}", self.pid()));
                }
            }
            Hold::Group => {
                // It may have gone by itself.
                let _ = kill_process_group(self.pid, Signal::KILL);
            }
        }
    }

    /// Asks the program and what it started to end.
    pub(crate) fn ask_to_end(&self) {
        match &self.hold {
            Hold::Cgroup { cgroup, .. } => {
                if let Err(error) = cgroup.signal(Signal::TERM) {
                    log::warn(format_args!("ending process {}: {error}", self.pid()));
                }
            }
            Hold::Group => {
                // It may have gone by itself.
                let _ = kill_process_group(self.pid, Signal::TERM);
            }
        }
    }

    /// Returns once the program and all it started are gone. Without a cgroup
    /// nobody can wait for the latter: there they are killed.
    pub(crate) async fn empty(&self) -> io::Result<()> {
        self.gone().await?;
        match &self.hold {
            Hold::Cgroup { cgroup, .. } => cgroup.empty().await?,
            Hold::Group => self.kill(),
        }
        Ok(())
    }

    /// Kills, and waits for the program's end.
    pub(crate) async fn end(&self) {
        self.kill();
        if timeout(KILL_DEADLINE, self.gone()).await.is_err() {
            log::warn(format_args!("process {} does not die", self.pid()));
        }
    }

    /// Reaps the program, which has ended, and keeps hold of what it left behind.
    pub(crate) fn reap(mut self) -> Remains<'guest> {
        self.released = true;
        Remains { hold: std::mem::replace(&mut self.hold, Hold::Group) }
    }

    /// Lets go of what the program started: it may outlive the connection.
    pub(super) fn release(&mut self) {
        self.released = true;
    }
}

/// What a program that has ended left behind: all of it in a machine; nobody
/// without one, where a group's number may mean another by now.
pub(crate) struct Remains<'guest> {
    hold: Hold<'guest>,
}

impl Remains<'_> {
    /// Waits for the end of all of it, and after the grace kills what is left.
    pub(crate) async fn end(&self, grace: Duration) {
        let cgroup = match &self.hold {
            Hold::Cgroup { cgroup, .. } => cgroup,
            Hold::Group => return,
        };
        let ending = async {
            if timeout(grace, cgroup.empty()).await.is_err() {
                cgroup.kill()?;
                timeout(KILL_DEADLINE, cgroup.empty()).await??;
            }
            Ok::<(), io::Error>(())
        };
        if let Err(error) = ending.await {
            log::warn(format_args!("ending what a program left behind: {error}"));
        }
    }
}

impl Drop for Leash<'_> {
    fn drop(&mut self) {
        if !self.released {
            self.kill();
        }
        // Once it is reaped, its number may come to mean another.
        self.running.remove(self.pid);
        // Reaps, if there is something to reap; a child that does not even die
        // of KILL stays a child.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let _ = waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options);
    }
}

/// The process groups on a leash, for those who must end them all.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    groups: Mutex<BTreeSet<i32>>,
    count: tokio::sync::watch::Sender<usize>,
}

impl Registry {
    fn add(&self, pid: Pid) {
        let mut groups = self.groups();
        groups.insert(pid.as_raw_nonzero().get());
        self.count.send_replace(groups.len());
    }

    fn remove(&self, pid: Pid) {
        let mut groups = self.groups();
        groups.remove(&pid.as_raw_nonzero().get());
        self.count.send_replace(groups.len());
    }

    /// Sends a signal to every group; each is still there, for it is reaped
    /// only after it left the set.
    pub(crate) fn signal_all(&self, signal: Signal) {
        for pid in self.groups().iter().filter_map(|raw| Pid::from_raw(*raw)) {
            // A group whose processes have all ended needs no signal.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Kills every group.
    pub(crate) fn kill_all(&self) {
        self.signal_all(Signal::KILL);
    }

    /// Returns when there is none.
    pub(crate) async fn empty(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        drop(self.count.subscribe().wait_for(|count| *count == 0).await);
    }

    fn groups(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
