//! Services: programs that are kept going under a name.
//!
//! ```text
//! StartService ──▶ Starting ──ready──▶ Running ──ends──▶ Exited
//!                   ▲  │ ends, late,      │  ▲              (never, or it did well)
//!                   │  │ left             │  │
//!            again  │  ▼                  │  │ ends: its policy
//!                   │ Failed ◀──limit──   │  ▼
//!                   └──────────────────────Backoff
//!         StopService, from any of the upper row and Backoff ──▶ Stopped
//! ```
//!
//! A task of the agent's looks after each, and waits for nothing but events: the
//! program's end by its pidfd, output by its pipes, orders. Only a probe that
//! looks for readiness and a back-off know the time, and both come to an end. So
//! a service that is ready and quiet costs nothing.
//!
//! Services are this agent's: one that dies takes them along, and the next knows
//! nothing of them. Their variables are nowhere but in memory; their logs are
//! on the workspace's disk, where the next agent removes them.

mod backoff;
mod entry;
mod journal;
mod life;
mod logs;
mod probe;
mod table;

use crate::guest::Guest;
use crate::process::failed;
use crate::server::{Connection, while_awaited};
use entry::{Entry, Order, Spec, Status};
use journal::Journal;
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::service::{
    GRACE_MS_MAX, PROGRAM_MAX, Probe, RemoveService, RestartService, Service, ServiceCounts,
    ServiceList, ServiceLogging, ServiceLogs, ServiceName, ServiceState, ServiceStatus,
    StartService, StopService,
};
use pyro_protocol::{AgentError, AgentErrorKind, Lost};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

pub(crate) use table::Services;

/// How much longer than the grace a stop may take: KILL, and the last output.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// Answers `StartService`.
pub(crate) async fn start<R: Fetch, W: Carry>(
    guest: &Arc<Guest>,
    call: StartService,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let started = match while_awaited(&mut connection.reader, begin(guest, call)).await? {
        Ok(entry) => attend(&entry, connection).await?,
        Err(error) => Err(error),
    };
    connection.reply(started).await
}

/// Answers `RestartService`.
pub(crate) async fn restart<R: Fetch, W: Carry>(
    guest: &Arc<Guest>,
    call: RestartService,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let again = async {
        let entry = guest.services.find(guest, &call.name)?;
        let (starts, grace) = (entry.status().starts, grace(call.grace_ms));
        if !entry.order(Order::Restart { grace }).await {
            revive(guest, &entry).await?;
            return Ok(entry);
        }
        let mut status = entry.watch();
        let begun = status.wait_for(|status| status.starts > starts || status.state.is_over());
        let begun = timeout(grace + END_DEADLINE, begun).await;
        // The entry, and so the sender, outlives this.
        drop(begun.map_err(|_| does_not_die(&call.name))?);
        if entry.status().starts == starts && entry.refusal().is_none() {
            // It was just over, and did not take the order.
            revive(guest, &entry).await?;
        }
        Ok(entry)
    };
    let started = match while_awaited(&mut connection.reader, again).await? {
        Ok(entry) => attend(&entry, connection).await?,
        Err(error) => Err(error),
    };
    connection.reply(started).await
}

/// Waits until a service that was just started is ready, or never will be. It is
/// stopped when the one who waits hangs up.
async fn attend<R: Fetch, W: Carry>(
    entry: &Arc<Entry>,
    connection: &mut Connection<R, W>,
) -> Result<Result<Service, AgentError>, Lost> {
    let starts = entry.status().starts;
    let mut status = entry.watch();
    let settled = async {
        let is_settled = |status: &Status| !matches!(status.state, ServiceState::Starting { .. });
        // The entry, and so the sender, outlives this.
        drop(status.wait_for(is_settled).await);
    };
    match while_awaited(&mut connection.reader, settled).await {
        Ok(()) => Ok(match entry.refusal() {
            Some(refusal) => Err(refusal),
            None => Ok(entry.describe()),
        }),
        Err(lost) => {
            // It may have become ready meanwhile: then it is not stopped.
            entry.order(Order::Cancel { starts }).await;
            Err(lost)
        }
    }
}

/// Starts the program; the service is there once it runs.
async fn begin(guest: &Arc<Guest>, call: StartService) -> Result<Arc<Entry>, AgentError> {
    check(&call)?;
    let shelf = guest.services.shelf(guest).await?;
    let reservation = guest.services.reserve(guest, &call.name)?;
    let file = guest.services.next_file();
    let making = move || Journal::create(shelf, file);
    let made = guest.kept.block_on(making).await.and_then(|made| made);
    let journal = made.map_err(|error| failed("the service's log cannot be kept", &error))?;
    let (started, outcome) = oneshot::channel();
    let guest = guest.clone();
    tokio::spawn(async move {
        let journal = Arc::new(journal);
        let spec = Spec::from(call);
        let process = match crate::process::spawn(&guest, spec.program.clone()).await {
            Ok(process) => process,
            Err(error) => {
                discard(&guest, &journal).await;
                // The one who asked waits for it; gone or not, nothing ran.
                let _ = started.send(Err(error));
                return;
            }
        };
        let (entry, orders) = Entry::new(spec, journal, process.leash.pid());
        let entry = Arc::new(entry);
        let old = reservation.fill(entry.clone());
        drop(reservation);
        if started.send(Ok(entry.clone())).is_err() {
            // Nobody waits any more.
            entry.order(Order::Cancel { starts: entry.status().starts }).await;
        }
        if let Some(old) = old {
            discard(&guest, &old.journal).await;
        }
        life::live(&guest, &entry, process, orders).await;
    });
    let gave_up = || AgentError::new(AgentErrorKind::System, "the agent gave up on the service");
    outcome.await.unwrap_or_else(|_| Err(gave_up()))
}

/// Starts one that is over as it was started.
async fn revive(guest: &Arc<Guest>, entry: &Arc<Entry>) -> Result<(), AgentError> {
    let reservation = guest.services.reserve(guest, &entry.spec.name)?;
    let (started, outcome) = oneshot::channel();
    let (guest, entry) = (guest.clone(), entry.clone());
    tokio::spawn(async move {
        match crate::process::spawn(&guest, entry.spec.program.clone()).await {
            Ok(process) => {
                let orders = entry.revive(process.leash.pid());
                drop(reservation);
                // Gone or not: it was asked for.
                let _ = started.send(Ok(()));
                life::live(&guest, &entry, process, orders).await;
            }
            Err(error) => drop(started.send(Err(error))),
        }
    });
    let gave_up = || AgentError::new(AgentErrorKind::System, "the agent gave up on the service");
    outcome.await.unwrap_or_else(|_| Err(gave_up()))
}

/// Answers `ListServices`.
pub(crate) fn list(guest: &Guest) -> Result<ServiceList, AgentError> {
    guest.require_activated()?;
    let services = guest.services.all().iter().map(|entry| entry.describe()).collect();
    Ok(ServiceList { services })
}

/// Answers `CountServices`.
pub(crate) fn count(guest: &Guest) -> Result<ServiceCounts, AgentError> {
    guest.require_activated()?;
    let mut counts = ServiceCounts { services: 0, running: 0 };
    for entry in guest.services.all() {
        counts.services += 1;
        counts.running += u32::from(matches!(entry.status().state, ServiceState::Running { .. }));
    }
    Ok(counts)
}

/// Answers `ServiceStatus`.
pub(crate) fn status(guest: &Guest, call: ServiceStatus) -> Result<Service, AgentError> {
    guest.services.find(guest, &call.name).map(|entry| entry.describe())
}

/// Answers `ServiceLogs`.
pub(crate) async fn logs<R: Fetch, W: Carry>(
    guest: &Arc<Guest>,
    call: ServiceLogs,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    match guest.services.find(guest, &call.name) {
        Ok(entry) => logs::send(guest, &entry, call, connection).await,
        Err(error) => connection.reply::<ServiceLogging>(Err(error)).await,
    }
}

/// Answers `StopService`; a host that hangs up does not take it back.
pub(crate) async fn stop<R: Fetch, W: Carry>(
    guest: &Arc<Guest>,
    call: StopService,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let stopped = async {
        let entry = guest.services.find(guest, &call.name)?;
        finish(&entry, grace(call.grace_ms)).await?;
        Ok(entry.describe())
    };
    let stopped = while_awaited(&mut connection.reader, stopped).await?;
    connection.reply(stopped).await
}

/// Answers `RemoveService`.
pub(crate) async fn remove<R: Fetch, W: Carry>(
    guest: &Arc<Guest>,
    call: RemoveService,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let removed = async {
        let entry = guest.services.find(guest, &call.name)?;
        finish(&entry, grace(call.grace_ms)).await?;
        if !guest.services.forget(&entry) {
            let text = format!("service {} was started again meanwhile", call.name);
            return Err(AgentError::new(AgentErrorKind::Conflict, text));
        }
        discard(guest, &entry.journal).await;
        Ok(entry.describe())
    };
    let removed = while_awaited(&mut connection.reader, removed).await?;
    connection.reply(removed).await
}

/// Stops a service, and waits until it is over.
async fn finish(entry: &Entry, grace: Duration) -> Result<(), AgentError> {
    if !entry.order(Order::Stop { grace }).await {
        return Ok(());
    }
    let mut status = entry.watch();
    let over = status.wait_for(|status| status.state.is_over());
    match timeout(grace + END_DEADLINE, over).await {
        // The entry, and so the sender, outlives this.
        Ok(_) => Ok(()),
        Err(_) => Err(does_not_die(&entry.spec.name)),
    }
}

fn does_not_die(name: &ServiceName) -> AgentError {
    AgentError::new(AgentErrorKind::System, format!("service {name} does not die"))
}

/// Removes a log that nobody asks for any more.
async fn discard(guest: &Guest, journal: &Arc<Journal>) {
    let journal = journal.clone();
    // What stays is removed by the agent after this one.
    let _ = guest.kept.block_on(move || journal.remove()).await;
}

fn grace(grace_ms: u32) -> Duration {
    Duration::from_millis(grace_ms.min(GRACE_MS_MAX).into())
}

/// Refuses what no service can be.
fn check(call: &StartService) -> Result<(), AgentError> {
    let StartService { program, readiness, .. } = call;
    let invalid = |text: &str| Err(AgentError::new(AgentErrorKind::InvalidArgument, text));
    if program.stdin || program.timeout_ms.is_some() {
        return invalid("a service has neither input nor a time-out");
    }
    let command = match readiness.as_ref().map(|readiness| &readiness.probe) {
        Some(Probe::Command(words)) if words.is_empty() => {
            return invalid("the command that tells readiness is empty");
        }
        Some(Probe::Command(words)) => words.as_slice(),
        Some(Probe::File(_) | Probe::Tcp(_) | Probe::Http(_)) | None => &[],
    };
    let variables = program.env.iter().map(|(name, value)| name.0.len() + value.0.len());
    let words = program.argv.iter().chain(command).map(|word| word.0.len());
    if variables.chain(words).sum::<usize>() > PROGRAM_MAX {
        let text = format!("the arguments and variables have more than {PROGRAM_MAX} bytes");
        return Err(AgentError::new(AgentErrorKind::TooLarge, text));
    }
    Ok(())
}
