//! Going off.

use crate::activate::Disk;
use crate::cgroup::{Cgroups, populated};
use crate::guest::{Guest, Machine};
use crate::log;
use crate::readiness::watch;
use pyro_protocol::AgentError;
use pyro_protocol::power::{PowerOff, PoweringOff};
use rustix::process::Signal;
use std::io;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// The longest grace a caller can ask for.
const GRACE_MAX: Duration = Duration::from_secs(600);

/// How long the kernel may take to end what got KILL.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// Answers `PowerOff`, up to the reply; [`Guest::halt`] does the rest.
pub(crate) async fn run(guest: &Guest, call: PowerOff) -> Result<PoweringOff, AgentError> {
    let grace = Duration::from_millis(call.grace_ms.into()).min(GRACE_MAX);
    let disk = guest.begin_power_off()?;
    match &guest.machine {
        Machine::Virtual { cgroups } => {
            end_machine(cgroups, grace).await.unwrap_or_else(complain("ending the processes"));
            record(guest).await;
            if let Some(disk) = disk {
                settle(&disk).unwrap_or_else(complain("settling the disk"));
            }
        }
        Machine::InProcess { .. } => {
            guest.running.signal_all(Signal::TERM);
            if timeout(grace, guest.running.empty()).await.is_err() {
                guest.running.kill_all();
                if timeout(KILL_DEADLINE, guest.running.empty()).await.is_err() {
                    complain("ending the processes")(io::ErrorKind::TimedOut.into());
                }
            }
            record(guest).await;
        }
    }
    Ok(PoweringOff)
}

/// Lets the ends of kept processes reach the disk.
async fn record(guest: &Guest) {
    if timeout(KILL_DEADLINE, guest.kept.idle()).await.is_err() {
        complain("recording the ends of processes")(io::ErrorKind::TimedOut.into());
    }
}

/// A machine that is told to go off goes off; what failed is only said.
fn complain(what: &str) -> impl Fn(io::Error) {
    move |error| log::warn(format_args!("{what}: {error}"))
}

async fn end_machine(cgroups: &Cgroups, grace: Duration) -> io::Result<()> {
    let events = watch(cgroups.events()?, Interest::PRIORITY)?;
    // All but PID 1 and ourselves.
    // SAFETY: kill takes no pointers.
    unsafe { libc::kill(-1, Signal::TERM.as_raw()) };
    if timeout(grace, unpopulated(&events)).await.is_err() {
        cgroups.kill_all()?;
        timeout(KILL_DEADLINE, unpopulated(&events)).await??;
    }
    Ok(())
}

async fn unpopulated(events: &AsyncFd<std::os::fd::OwnedFd>) -> io::Result<()> {
    loop {
        // Read first: reading arms the next event.
        if !populated(events.get_ref())? {
            return Ok(());
        }
        events.ready(Interest::PRIORITY).await?.clear_ready();
    }
}

fn settle(disk: &Disk) -> io::Result<()> {
    // Freezing waits for three of the kernel's grace periods: a tenth of a
    // second, or nothing once they are hurried.
    std::fs::write("/sys/kernel/rcu_expedited", "1")?;
    disk.sync()?;
    disk.freeze()
}

/// The end. There is no power-off without ACPI: both VMMs end on a reboot.
/// Returns only when the kernel refuses.
pub(crate) fn reboot() -> io::Error {
    match rustix::system::reboot(rustix::system::RebootCommand::Restart) {
        Ok(()) => io::ErrorKind::Other.into(),
        Err(error) => error.into(),
    }
}
