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

use crate::guest::Guest;
use crate::process::failed;
use crate::process::kept::shelf::Shelf;
use crate::server::{Connection, while_awaited};
use entry::{Entry, Order, Spec, Status};
use journal::Journal;
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::service::{
    GRACE_MS_MAX, ListServices, PROGRAM_MAX, Probe, RemoveService, RestartService, SERVICES_MAX,
    Service, ServiceCounts, ServiceList, ServiceLogging, ServiceLogs, ServiceName, ServiceState,
    ServiceStatus, StartService, StopService,
};
use pyro_protocol::{AgentError, AgentErrorKind, Lost};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The directory of the logs, on the workspace's disk.
const DIRECTORY: &str = "service";

/// How much longer than the grace a stop may take: KILL, and the last output.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// All services of a guest.
#[derive(Default)]
pub(crate) struct Services {
    shelf: OnceCell<Arc<Shelf>>,
    slots: Mutex<BTreeMap<ServiceName, Slot>>,
    /// For the files of logs.
    next: AtomicU64,
    looks: probe::Looks,
}

/// What a name stands for.
enum Slot {
    /// A service.
    There(Arc<Entry>),
    /// One that is about to be there, and what was.
    Reserved(Option<Arc<Entry>>),
}

impl Slot {
    fn entry(&self) -> Option<&Arc<Entry>> {
        match self {
            Slot::There(entry) | Slot::Reserved(Some(entry)) => Some(entry),
            Slot::Reserved(None) => None,
        }
    }
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").field("count", &self.slots().len()).finish_non_exhaustive()
    }
}

/// A name that is taken until this is dropped or filled.
struct Reservation {
    guest: Arc<Guest>,
    name: ServiceName,
}

impl Reservation {
    /// Gives the name to a service; what had it is returned.
    fn fill(&self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let mut slots = self.guest.services.slots();
        let slot = slots.insert(self.name.clone(), Slot::There(entry))?;
        slot.entry().cloned()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut slots = self.guest.services.slots();
        if let Some(Slot::Reserved(old)) = slots.get_mut(&self.name) {
            match old.take() {
                Some(old) => drop(slots.insert(self.name.clone(), Slot::There(old))),
                None => drop(slots.remove(&self.name)),
            }
        }
    }
}

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
    let file = format!("{:x}", guest.services.next.fetch_add(1, Ordering::Relaxed));
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
pub(crate) fn list(guest: &Guest, ListServices: ListServices) -> Result<ServiceList, AgentError> {
    guest.require_activated()?;
    let slots = guest.services.slots();
    let services = slots.values().filter_map(Slot::entry).map(|entry| entry.describe()).collect();
    Ok(ServiceList { services })
}

/// Answers `CountServices`.
pub(crate) fn count(guest: &Guest) -> Result<ServiceCounts, AgentError> {
    guest.require_activated()?;
    let slots = guest.services.slots();
    let entries = slots.values().filter_map(Slot::entry);
    let (mut services, mut running) = (0, 0);
    for entry in entries {
        services += 1;
        running += u32::from(matches!(entry.status().state, ServiceState::Running { .. }));
    }
    Ok(ServiceCounts { services, running })
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
        // One that was started again meanwhile is another.
        let is_it = |slot: &Slot| matches!(slot, Slot::There(there) if Arc::ptr_eq(there, &entry));
        {
            let mut slots = guest.services.slots();
            if !slots.get(&call.name).is_some_and(is_it) || !entry.status().state.is_over() {
                let text = format!("service {} was started again meanwhile", call.name);
                return Err(AgentError::new(AgentErrorKind::Conflict, text));
            }
            slots.remove(&call.name);
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

impl Services {
    /// Where the logs are. The first time it removes what was there before.
    async fn shelf(&self, guest: &Guest) -> Result<Arc<Shelf>, AgentError> {
        guest.require_activated()?;
        let opened = self.shelf.get_or_try_init(|| async {
            let private = guest.private()?;
            let open = move || -> io::Result<Arc<Shelf>> {
                let shelf = Shelf::within(&private, DIRECTORY)?;
                shelf.clear()?;
                Ok(Arc::new(shelf))
            };
            guest.kept.block_on(open).await?
        });
        opened.await.cloned().map_err(|error| failed("logs of services cannot be kept", &error))
    }

    /// Takes a name whose service is over, if there is one.
    fn reserve(&self, guest: &Arc<Guest>, name: &ServiceName) -> Result<Reservation, AgentError> {
        let mut slots = self.slots();
        let is_new = !slots.contains_key(name);
        if is_new && slots.len() >= SERVICES_MAX {
            let text = format!("there are {SERVICES_MAX} services already; remove one");
            return Err(AgentError::new(AgentErrorKind::OutOfResources, text));
        }
        let taken = |how: &str| {
            let text = format!("service {name} {how} already");
            AgentError::new(AgentErrorKind::AlreadyExists, text)
        };
        let old = match slots.get(name) {
            None => None,
            Some(Slot::Reserved(_)) => return Err(taken("is being started")),
            Some(Slot::There(entry)) if entry.status().state.is_over() => Some(entry.clone()),
            Some(Slot::There(_)) => return Err(taken("runs")),
        };
        slots.insert(name.clone(), Slot::Reserved(old));
        Ok(Reservation { guest: guest.clone(), name: name.clone() })
    }

    fn find(&self, guest: &Guest, name: &ServiceName) -> Result<Arc<Entry>, AgentError> {
        guest.require_activated()?;
        let slots = self.slots();
        let found = slots.get(name).and_then(Slot::entry).cloned();
        found.ok_or_else(|| {
            AgentError::new(AgentErrorKind::NotFound, format!("there is no service {name}"))
        })
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Slot>> {
        // No code panics while it holds the lock; were it so, the map is whole.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
