//! Writing the disk out, and going off.

use crate::activate::Disk;
use crate::cgroup::Cgroups;
use crate::guest::{Guest, Machine};
use crate::log;
use crate::server::Connection;
use crate::work;
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::power::{DiskSynced, PowerOff, PoweringOff};
use pyro_protocol::{AgentError, AgentErrorKind, Lost};
use rustix::process::Signal;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The longest grace a caller can ask for.
const GRACE_MAX: Duration = Duration::from_secs(600);

/// How long the kernel may take to end what got KILL.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// Answers `SyncDisk`. The file system is not frozen: while it were, a program
/// that writes could not even be killed.
pub(crate) async fn sync<R: Fetch, W: Carry>(
    guest: &Guest,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    if let Err(error) = guest.require_activated() {
        return connection.reply::<DiskSynced>(Err(error)).await;
    }
    let disk = guest.disk();
    work::answer(connection, move |_| match disk.map_or(Ok(()), |disk| disk.sync()) {
        Ok(()) => Ok(DiskSynced),
        Err(error) => {
            let text = format!("the disk cannot be written out: {error}");
            Err(AgentError::new(AgentErrorKind::System, text).into())
        }
    })
    .await
}

/// Answers `PowerOff` once [`Guest::begin_power_off`] has allowed it, up to the
/// reply; [`Guest::halt`] does the rest. The machine goes off either way: an
/// error says that its disk may not be consistent.
pub(crate) async fn run(
    guest: &Guest,
    disk: Option<Arc<Disk>>,
    call: PowerOff,
) -> Result<PoweringOff, AgentError> {
    let grace = Duration::from_millis(call.grace_ms.into()).min(GRACE_MAX);
    // An interactive shell ignores TERM.
    guest.shells.hang_up();
    match &guest.machine {
        Machine::Virtual { cgroups } => {
            let ended = end_machine(cgroups, grace).await;
            ended.unwrap_or_else(|error| complain("ending the processes")(&error));
            record(guest).await;
            if let Some(disk) = disk {
                hurry();
                settle(|| disk.sync(), || disk.freeze()).map_err(|error| {
                    complain("settling the disk")(&error);
                    let text = format!("the machine goes off, its disk is not settled: {error}");
                    AgentError::new(AgentErrorKind::System, text)
                })?;
            }
        }
        Machine::InProcess { .. } => {
            guest.running.signal_all(Signal::TERM);
            if timeout(grace, guest.running.empty()).await.is_err() {
                guest.running.kill_all();
                if timeout(KILL_DEADLINE, guest.running.empty()).await.is_err() {
                    complain("ending the processes")(&io::ErrorKind::TimedOut.into());
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
        complain("recording the ends of processes")(&io::ErrorKind::TimedOut.into());
    }
}

/// A machine that is told to go off goes off; what failed is only said.
fn complain(what: &str) -> impl Fn(&io::Error) {
    move |error| log::warn(format_args!("{what}: {error}"))
}

async fn end_machine(cgroups: &Cgroups, grace: Duration) -> io::Result<()> {
    // All but PID 1 and ourselves.
    // SAFETY: kill takes no pointers.
    unsafe { libc::kill(-1, Signal::TERM.as_raw()) };
    if !matches!(timeout(grace, cgroups.empty()).await, Ok(Ok(()))) {
        cgroups.kill_all()?;
        timeout(KILL_DEADLINE, cgroups.empty()).await??;
    }
    Ok(())
}

/// Freezing waits for three of the kernel's grace periods: a tenth of a second,
/// or nothing once they are hurried.
fn hurry() {
    // Root can make /sys read-only: then it takes the tenth of a second.
    let hurried = std::fs::write("/sys/kernel/rcu_expedited", "1");
    hurried.unwrap_or_else(|error| complain("hurrying the kernel")(&error));
}

/// Freezes also what could not be synced: that the disk then stays as it is, is
/// the better half. The first failure is told.
fn settle(
    sync: impl FnOnce() -> io::Result<()>,
    freeze: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let synced = sync();
    let frozen = freeze();
    synced.and(frozen)
}

/// The end. There is no power-off without ACPI: both VMMs end on a reboot.
/// Returns only when the kernel refuses.
pub(crate) fn reboot() -> io::Error {
    match rustix::system::reboot(rustix::system::RebootCommand::Restart) {
        Ok(()) => io::ErrorKind::Other.into(),
        Err(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r12_what_cannot_be_synced_is_frozen_and_told() {
        let failing = || Err(io::ErrorKind::ReadOnlyFilesystem.into());
        let mut frozen = false;
        let mut freeze = || {
            frozen = true;
            Ok(())
        };
        let settled = settle(failing, &mut freeze);
        assert_eq!(settled.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert!(frozen);
        assert!(settle(|| Ok(()), failing).is_err());
        assert!(settle(|| Ok(()), || Ok(())).is_ok());
    }
}
