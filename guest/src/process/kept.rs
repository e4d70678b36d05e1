//! Processes that outlive the call that started them: `KeepProcess` and all
//! that can be asked afterwards.
//!
//! ```text
//! KeepProcess ──▶ files, fork ──▶ Running ──exit, time-out, power-off──▶ Ended
//!                     │             │  ▲ orders: signal, kill              │
//!                     │ never ran   │  └── SignalProcess, ForgetProcess     │
//!                     ▼             │ agent or machine gone                 ▼
//!                   error           └──────────▶ Lost            the earliest is
//!                                                                forgotten in time
//! ```
//!
//! A task of the agent's waits for each, and drains its pipes into files on the
//! workspace's own disk: a program that writes never waits for a reader, and
//! never fills more than [`RETAINED`](pyro_protocol::kept::RETAINED) and some.
//! An agent that dies takes what it keeps along, for the next one cannot wait
//! for another's children: the files stay, and say `Lost`.

mod entry;
mod input;
mod life;
mod reading;
pub(crate) mod shelf;
pub(crate) mod spool;

use super::leash::SIGNAL_MAX;
use super::{command, failed, fork};
use crate::guest::Guest;
use crate::server::{Connection, while_awaited};
use crate::{clock, log};
use entry::{Entry, Order};
use life::Newborn;
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::kept::{
    ARGV_SHOWN_MAX, ENDED_MAX, FollowProcess, FollowingProcess, ForgetProcess, KeepProcess,
    KeptProcess, PollProcess, ProcessForgotten, ProcessId, ProcessKept, ProcessList,
    ProcessSignaled, ProcessState, ProcessWritten, RUNNING_MAX, SignalProcess, WAIT_MAX_MS,
    WriteProcess,
};
use pyro_protocol::process::StartProcess;
use pyro_protocol::{AgentError, AgentErrorKind, ByteString, Lost};
use shelf::Shelf;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore, oneshot, watch};
use tokio::time::timeout;

/// Threads that touch files for kept processes at the same time. A disk that
/// does not answer holds up no more.
const JOBS_MAX: usize = 4;

/// How long what was killed may take to be gone with all it wrote.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// All kept processes of a guest.
pub(crate) struct Kept {
    shelf: OnceCell<Arc<Shelf>>,
    jobs: Arc<Semaphore>,
    /// Places for those that run.
    places: Arc<Semaphore>,
    registry: Mutex<Registry>,
    running: watch::Sender<usize>,
}

#[derive(Default)]
struct Registry {
    /// In the order of starting.
    running: Vec<Arc<Entry>>,
    /// In the order of ending.
    ended: VecDeque<Arc<Entry>>,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            shelf: OnceCell::new(),
            jobs: Arc::new(Semaphore::new(JOBS_MAX)),
            places: Arc::new(Semaphore::new(RUNNING_MAX)),
            registry: Mutex::default(),
            running: watch::Sender::new(0),
        }
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("running", &*self.running.borrow()).finish_non_exhaustive()
    }
}

/// Answers `KeepProcess`.
pub(crate) async fn keep<R: Fetch, W: Carry>(
    guest: &Arc<Guest>,
    call: KeepProcess,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    super::settled(guest).await;
    let kept = start(guest, call.program).await;
    let id = kept.as_ref().ok().map(|kept| kept.id);
    let replied = connection.reply(kept).await;
    if let (Err(_), Some(id)) = (&replied, id) {
        // Nobody will ever know its name.
        drop(forget(guest, ForgetProcess { id }).await);
    }
    replied
}

async fn start(guest: &Arc<Guest>, call: StartProcess) -> Result<ProcessKept, AgentError> {
    let shelf = guest.kept.shelf(guest).await?;
    let place = guest.kept.places.clone().try_acquire_owned().map_err(|_| {
        let message = format!("{RUNNING_MAX} kept processes run already");
        AgentError::new(AgentErrorKind::OutOfResources, message)
    })?;
    let allowed = call.timeout_ms.map(Duration::from_millis);
    let process = KeptProcess {
        id: random_id()?,
        argv: shown(&call.argv),
        started_at_ns: clock::wall_ns(),
        state: ProcessState::Running { pid: 0 },
        stdout_bytes: 0,
        stderr_bytes: 0,
    };
    let command = command::prepare(guest, call)?;
    guest.kept.create(&shelf, &process).await?;
    let (started, outcome) = oneshot::channel();
    let owner = guest.clone();
    tokio::spawn(async move {
        let _place = place;
        let kept = &owner.kept;
        let (newborn, stdin) = match fork::spawn(&owner, command).await {
            Ok(spawned) => Newborn::new(spawned),
            Err(error) => {
                kept.remove_files(&shelf, process.id).await;
                // The one who asked waits for it; gone or not, nothing ran.
                let _ = started.send(Err(error));
                return;
            }
        };
        let (id, pid) = (process.id, newborn.pid());
        let running = KeptProcess { state: ProcessState::Running { pid }, ..process };
        let (entry, orders) = Entry::running(&shelf, running, stdin);
        let entry = Arc::new(entry);
        kept.add(entry.clone());
        // Should the one who asked be gone, it is forgotten as any other.
        let _ = started.send(Ok(ProcessKept { id, pid }));
        let exit = life::live(kept, &entry, newborn, allowed, orders).await;
        kept.record_end(&shelf, &entry, exit).await;
    });
    let gave_up = || AgentError::new(AgentErrorKind::System, "the agent gave up on the process");
    outcome.await.unwrap_or_else(|_| Err(gave_up()))
}

/// Answers `ListProcesses`.
pub(crate) async fn list(guest: &Guest) -> Result<ProcessList, AgentError> {
    guest.kept.shelf(guest).await?;
    let registry = guest.kept.registry();
    let processes = registry.ended.iter().chain(&registry.running).map(|entry| entry.describe());
    Ok(ProcessList { processes: processes.collect() })
}

/// Answers `PollProcess`; a host that hangs up waits no more.
pub(crate) async fn poll<R: Fetch, W: Carry>(
    guest: &Guest,
    call: PollProcess,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let polled = async {
        let entry = guest.kept.find(guest, call.id).await?;
        reading::poll(&guest.kept, &entry, call).await
    };
    let polled = while_awaited(&mut connection.reader, polled).await?;
    connection.reply(polled).await
}

/// Answers `FollowProcess`.
pub(crate) async fn follow<R: Fetch, W: Carry>(
    guest: &Guest,
    call: FollowProcess,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    match guest.kept.find(guest, call.id).await {
        Ok(entry) => reading::follow(&guest.kept, &entry, call, connection).await,
        Err(error) => connection.reply::<FollowingProcess>(Err(error)).await,
    }
}

/// Answers `WriteProcess`; a host that hangs up gives no more, and lets the next
/// one write.
pub(crate) async fn write<R: Fetch, W: Carry>(
    guest: &Guest,
    call: WriteProcess,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let written = async {
        let entry = guest.kept.find(guest, call.id).await?;
        input::write(&entry, call).await
    };
    let written: Result<ProcessWritten, _> = while_awaited(&mut connection.reader, written).await?;
    connection.reply(written).await
}

/// Answers `SignalProcess`.
pub(crate) async fn signal(
    guest: &Guest,
    call: SignalProcess,
) -> Result<ProcessSignaled, AgentError> {
    let SignalProcess { id, number } = call;
    if !(1..=SIGNAL_MAX).contains(&number) {
        let message = format!("there is no signal {number}; they are 1 to {SIGNAL_MAX}");
        return Err(AgentError::new(AgentErrorKind::InvalidArgument, message));
    }
    let entry = guest.kept.find(guest, id).await?;
    match entry.order(Order::Signal(number)).await {
        true => Ok(ProcessSignaled),
        false => {
            let message = format!("process {id} has ended");
            Err(AgentError::new(AgentErrorKind::Conflict, message))
        }
    }
}

/// Answers `ForgetProcess`.
pub(crate) async fn forget(
    guest: &Guest,
    call: ForgetProcess,
) -> Result<ProcessForgotten, AgentError> {
    let ForgetProcess { id } = call;
    let shelf = guest.kept.shelf(guest).await?;
    let entry = guest.kept.find(guest, id).await?;
    let state = entry.status().state;
    // One that is just ending takes no order, and its end is still to be
    // recorded: what is forgotten before that would come back.
    let _ = entry.order(Order::Kill).await;
    let mut status = entry.watch();
    let ended = status.wait_for(|status| !status.is_running());
    if timeout(END_DEADLINE, ended).await.is_err() {
        let message = format!("process {id} does not die");
        return Err(AgentError::new(AgentErrorKind::System, message));
    }
    guest.kept.registry().ended.retain(|entry| entry.id != id);
    guest.kept.remove_files(&shelf, id).await;
    Ok(ProcessForgotten { state })
}

impl Kept {
    /// Returns when none runs and all is written about those that did.
    pub(crate) async fn idle(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        drop(self.running.subscribe().wait_for(|running| *running == 0).await);
    }

    /// Where the files are. The first time it looks what is there from before.
    async fn shelf(&self, guest: &Guest) -> Result<Arc<Shelf>, AgentError> {
        guest.require_activated()?;
        let opened = self.shelf.get_or_try_init(|| async {
            let private = guest.private()?;
            let (shelf, old) = self.block_on(move || open(&private)).await??;
            self.registry().ended.extend(old);
            Ok(shelf)
        });
        opened.await.cloned().map_err(|error| failed("what is kept cannot be reached", &error))
    }

    async fn find(&self, guest: &Guest, id: ProcessId) -> Result<Arc<Entry>, AgentError> {
        self.shelf(guest).await?;
        let registry = self.registry();
        let found = registry.running.iter().chain(&registry.ended).find(|entry| entry.id == id);
        found.cloned().ok_or_else(|| {
            AgentError::new(AgentErrorKind::NotFound, format!("there is no process {id}"))
        })
    }

    /// Does what may block on a thread of its own.
    pub(crate) async fn block_on<T, F>(&self, job: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let place = self.jobs.clone().acquire_owned().await.map_err(io::Error::other)?;
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            job()
        });
        done.await.map_err(io::Error::other)
    }

    async fn create(&self, shelf: &Arc<Shelf>, process: &KeptProcess) -> Result<(), AgentError> {
        let (shelf, process) = (shelf.clone(), process.clone());
        let made =
            self.block_on(move || shelf.create(&process).inspect_err(|_| shelf.remove(process.id)));
        made.await
            .and_then(|made| made)
            .map_err(|error| failed("the process cannot be kept", &error))
    }

    async fn remove_files(&self, shelf: &Arc<Shelf>, id: ProcessId) {
        let shelf = shelf.clone();
        // What stays is swept by the agent after this one.
        let _ = self.block_on(move || shelf.remove(id)).await;
    }

    fn add(&self, entry: Arc<Entry>) {
        let mut registry = self.registry();
        registry.running.push(entry);
        self.running.send_replace(registry.running.len());
    }

    /// In the file first: an agent that comes after this one knows of an end
    /// that was told, unless the disk took no more.
    async fn record_end(
        &self,
        shelf: &Arc<Shelf>,
        entry: &Arc<Entry>,
        exit: Option<pyro_protocol::process::Exit>,
    ) {
        let state = exit.map_or(ProcessState::Lost, |exit| ProcessState::Ended { exit });
        let record = KeptProcess { state, ..entry.describe() };
        let target = shelf.clone();
        let recorded = self.block_on(move || target.record(&record)).await.and_then(|done| done);
        if let Err(error) = recorded {
            log::warn(format_args!("the end of process {}: {error}", entry.id));
        }
        let forgotten = {
            let mut registry = self.registry();
            registry.running.retain(|running| running.id != entry.id);
            registry.ended.push_back(entry.clone());
            let excess = registry.ended.len().saturating_sub(ENDED_MAX);
            registry.ended.drain(..excess).collect::<Vec<_>>()
        };
        entry.end(exit);
        for old in forgotten {
            self.remove_files(shelf, old.id).await;
        }
        self.running.send_replace(self.registry().running.len());
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // No code panics while it holds the lock; were it so, the lists are whole.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Blocks.
fn open(private: &std::os::fd::OwnedFd) -> io::Result<(Arc<Shelf>, Vec<Arc<Entry>>)> {
    let shelf = Arc::new(Shelf::within(private, shelf::DIRECTORY)?);
    let mut entries = Vec::new();
    for process in shelf.load()? {
        let id = process.id;
        match Entry::old(&shelf, process) {
            Ok(entry) => entries.push(Arc::new(entry)),
            // Without its output it is worth nothing.
            Err(_) => shelf.remove(id),
        }
    }
    let excess = entries.len().saturating_sub(ENDED_MAX);
    entries.drain(..excess).for_each(|entry| shelf.remove(entry.id));
    Ok((shelf, entries))
}

/// How long a call may wait that asks to wait so long.
fn bounded(wait_ms: u32) -> Duration {
    Duration::from_millis(wait_ms.min(WAIT_MAX_MS).into())
}

fn random_id() -> Result<ProcessId, AgentError> {
    let mut id = [0; 6];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| failed("there are no random numbers", &error.into()))?;
    Ok(ProcessId(id))
}

/// The first of the arguments, for lists.
pub(crate) fn shown(argv: &[ByteString]) -> Vec<ByteString> {
    let (mut room, words) = ARGV_SHOWN_MAX;
    let cut = |ByteString(word): &ByteString| {
        let shown = word.get(..word.len().min(room)).unwrap_or_default();
        room -= shown.len();
        ByteString(shown.to_vec())
    };
    argv.iter().take(words).map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Phase;

    #[tokio::test]
    async fn r10_what_is_forgotten_while_it_ends_does_not_come_back() {
        let workspace = tempfile::tempdir().unwrap();
        let guest = Guest::in_process(workspace.path(), Phase::Activated);
        let shelf = guest.kept.shelf(&guest).await.unwrap();
        let process = KeptProcess {
            id: random_id().unwrap(),
            argv: Vec::new(),
            started_at_ns: 0,
            state: ProcessState::Running { pid: 1 },
            stdout_bytes: 0,
            stderr_bytes: 0,
        };
        let id = process.id;
        guest.kept.create(&shelf, &process).await.unwrap();
        // The one that waits for it has seen its end, and takes no more orders.
        let (entry, _) = Entry::running(&shelf, process, None);
        let entry = Arc::new(entry);
        guest.kept.add(entry.clone());
        let forgetting = forget(&guest, ForgetProcess { id });
        let ending = guest.kept.record_end(&shelf, &entry, None);
        let (forgotten, ()) = tokio::join!(forgetting, ending);
        forgotten.unwrap();
        assert_eq!(list(&guest).await.unwrap().processes, []);
        assert!(shelf.load().unwrap().is_empty());
    }
}
