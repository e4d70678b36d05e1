//! Shells: terminals that outlive the calls that opened them.
//!
//! ```text
//! OpenShell ──▶ terminal, fork ──▶ Running ──exit, power-off──▶ Ended ──CloseShell,──▶ (none)
//!                     │               │                                  or too many
//!                     │ never ran     └──CloseShell: HUP, then KILL──▶ (none)
//!                     ▼
//!                   error
//! ```
//!
//! A task of the agent's waits for each, and takes all that comes out of its
//! terminal at once into a transcript of a bounded size: a program that
//! writes never waits for a reader. Whoever reads, waits for the transcript to
//! grow; whoever writes, waits no longer than they said. A shell in which
//! nothing happens wakes nobody.

mod attach;
mod entry;
mod life;
mod reading;
mod terminal;
mod transcript;
mod writing;

use crate::clock;
use crate::guest::{Guest, WORKSPACE};
use crate::process::command::{self, Command};
use crate::process::leash::{Leash, SIGNAL_MAX};
use crate::process::{self, fork};
use crate::server::{Connection, while_awaited};
use entry::Entry;
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::kept::WAIT_MAX_MS;
use pyro_protocol::process::StartProcess;
use pyro_protocol::shell::{
    AttachShell, COLS_MAX, CloseShell, ENDED_MAX, OpenShell, ROWS_MAX, RUNNING_MAX, ReadShell,
    ResizeShell, Shell, ShellAttached, ShellClosed, ShellId, ShellList, ShellOpened, ShellResized,
    ShellSignaled, ShellState, SignalShell, TerminalSize, WriteShell,
};
use pyro_protocol::{AgentError, AgentErrorKind, ByteString, GuestPath, Lost};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use terminal::Terminal;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

/// How long what was hung up and killed may take to be gone.
const CLOSE_DEADLINE: Duration = Duration::from_secs(15);

/// What is run when the caller names no program, the first that is there. A
/// model reads better without the colours and titles of a user's own start-up
/// files.
const INTERACTIVE: &[&[&str]] = &[&["bash", "--noprofile", "--norc", "-i"], &["/bin/sh", "-i"]];

/// What every terminal's program finds in its environment. The prompt is one
/// that is easily recognised, and nothing is run before it.
const VARIABLES: &[(&str, &str)] =
    &[("TERM", "xterm-256color"), ("PS1", "pyro$ "), ("PROMPT_COMMAND", "")];

/// All shells of a guest.
pub(crate) struct Shells {
    registry: Mutex<Registry>,
    /// Places for those that run.
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct Registry {
    /// In the order of opening.
    running: Vec<Arc<Entry>>,
    /// In the order of ending.
    ended: VecDeque<Arc<Entry>>,
}

impl Default for Shells {
    fn default() -> Self {
        Self { registry: Mutex::default(), places: Arc::new(Semaphore::new(RUNNING_MAX)) }
    }
}

impl std::fmt::Debug for Shells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let registry = self.registry();
        f.debug_struct("Shells")
            .field("running", &registry.running.len())
            .field("ended", &registry.ended.len())
            .finish_non_exhaustive()
    }
}

/// Answers `OpenShell`.
pub(crate) async fn open<R: Fetch, W: Carry>(
    guest: &Arc<Guest>,
    call: OpenShell,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    process::settled(guest).await;
    let is_joined = call.joined;
    let entry = match start(guest, call).await {
        Ok(entry) => entry,
        Err(error) => return connection.reply::<ShellOpened>(Err(error)).await,
    };
    if is_joined {
        return attach::join(&entry, connection).await;
    }
    let replied = connection.reply(Ok(ShellOpened { shell: entry.describe() })).await;
    if replied.is_err() {
        // Nobody will ever know its name.
        drop(close(guest, CloseShell { id: entry.id }).await);
    }
    replied
}

async fn start(guest: &Arc<Guest>, call: OpenShell) -> Result<Arc<Entry>, AgentError> {
    guest.require_activated()?;
    check(call.size)?;
    let place = guest.shells.places.clone().try_acquire_owned().map_err(|_| {
        let message = format!("{RUNNING_MAX} shells run already; close one");
        AgentError::new(AgentErrorKind::OutOfResources, message)
    })?;
    let (size, is_joined) = (call.size, call.joined);
    let cwd = match &call.cwd {
        Some(cwd) => cwd.clone(),
        None => GuestPath::new(WORKSPACE)
            .map_err(|error| AgentError::new(AgentErrorKind::System, error.to_string()))?,
    };
    let commands = commands(guest, call)?;
    let failed = |error| process::failed("the terminal cannot be opened", &error);
    let (terminal, inner) = Terminal::open(size).map_err(failed)?;
    let id = random_id().map_err(failed)?;
    let (started, outcome) = oneshot::channel();
    let owner = guest.clone();
    tokio::spawn(async move {
        let leash = match spawn_first(&owner, &commands, &inner).await {
            Ok(leash) => leash,
            Err(error) => {
                // The one who asked waits for it; gone or not, nothing ran.
                let _ = started.send(Err(error));
                return;
            }
        };
        // From here on only what runs in it keeps the terminal open.
        drop(inner);
        let shell = Shell {
            id,
            cwd,
            size,
            started_at_ns: clock::wall_ns(),
            state: ShellState::Running { pid: leash.pid() },
            output_bytes: 0,
        };
        let (entry, close) = Entry::new(shell, terminal, is_joined);
        let entry = Arc::new(entry);
        owner.shells.registry().running.push(entry.clone());
        // Should the one who asked be gone, it can be listed and closed.
        let _ = started.send(Ok(entry.clone()));
        life::live(&owner.shells, &entry, leash, close, place).await;
    });
    let gave_up = || AgentError::new(AgentErrorKind::System, "the agent gave up on the shell");
    outcome.await.unwrap_or_else(|_| Err(gave_up()))
}

/// What may be run, the best first.
fn commands(guest: &Guest, call: OpenShell) -> Result<Vec<Command>, AgentError> {
    let OpenShell { argv, cwd, env, user, size: _, joined: _ } = call;
    let words = |words: &&[&str]| words.iter().map(|word| (*word).into()).collect();
    let programs: Vec<Vec<ByteString>> = match argv.is_empty() {
        true => INTERACTIVE.iter().map(words).collect(),
        false => vec![argv],
    };
    let own = VARIABLES.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    let env: Vec<(ByteString, ByteString)> = own.chain(env).collect();
    let commands = programs.into_iter().map(|argv| {
        let (cwd, env, user) = (cwd.clone(), env.clone(), user.clone());
        let call = StartProcess { argv, cwd, env, user, stdin: false, timeout_ms: None };
        command::prepare(guest, call)
    });
    commands.collect()
}

/// Starts the first of them that is there.
async fn spawn_first<'guest>(
    guest: &'guest Guest,
    commands: &[Command],
    terminal: &OwnedFd,
) -> Result<Leash<'guest>, AgentError> {
    let mut verdict = Err(AgentError::new(AgentErrorKind::ProgramNotFound, "there is no shell"));
    for command in commands {
        verdict = fork::spawn_on_terminal(guest, command, terminal).await;
        let is_missing = |error: &AgentError| error.kind == AgentErrorKind::ProgramNotFound;
        if !verdict.as_ref().is_err_and(is_missing) {
            break;
        }
    }
    verdict
}

/// Answers `ListShells`.
pub(crate) fn list(guest: &Guest) -> Result<ShellList, AgentError> {
    guest.require_activated()?;
    let registry = guest.shells.registry();
    let shells = registry.ended.iter().chain(&registry.running).map(|entry| entry.describe());
    Ok(ShellList { shells: shells.collect() })
}

/// Answers `ReadShell`; a host that hangs up waits no more.
pub(crate) async fn read<R: Fetch, W: Carry>(
    guest: &Guest,
    call: ReadShell,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let reading = async {
        let entry = guest.shells.find(guest, call.id)?;
        reading::read(&entry, call).await
    };
    let read = while_awaited(&mut connection.reader, reading).await?;
    connection.reply(read).await
}

/// Answers `WriteShell`; a host that hangs up gives no more.
pub(crate) async fn write<R: Fetch, W: Carry>(
    guest: &Guest,
    call: WriteShell,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let writing = async {
        let entry = guest.shells.find(guest, call.id)?;
        writing::write(&entry, call).await
    };
    let written = while_awaited(&mut connection.reader, writing).await?;
    connection.reply(written).await
}

/// Answers `SignalShell`.
pub(crate) fn signal(guest: &Guest, call: SignalShell) -> Result<ShellSignaled, AgentError> {
    let SignalShell { id, number } = call;
    if !(1..=SIGNAL_MAX).contains(&number) {
        let message = format!("there is no signal {number}; they are 1 to {SIGNAL_MAX}");
        return Err(AgentError::new(AgentErrorKind::InvalidArgument, message));
    }
    let entry = guest.shells.find(guest, id)?;
    entry.signal(number)?;
    Ok(ShellSignaled { shell: entry.describe() })
}

/// Answers `ResizeShell`.
pub(crate) fn resize(guest: &Guest, call: ResizeShell) -> Result<ShellResized, AgentError> {
    let ResizeShell { id, size } = call;
    check(size)?;
    let entry = guest.shells.find(guest, id)?;
    entry.resize(size)?;
    Ok(ShellResized { shell: entry.describe() })
}

/// Answers `CloseShell`. Once ordered it goes on, whether the host waits or not.
pub(crate) async fn close(guest: &Guest, call: CloseShell) -> Result<ShellClosed, AgentError> {
    let CloseShell { id } = call;
    let entry = guest.shells.find(guest, id)?;
    entry.order_close();
    if timeout(CLOSE_DEADLINE, entry.gone()).await.is_err() {
        let message = format!("what runs in shell {id} does not die");
        return Err(AgentError::new(AgentErrorKind::System, message));
    }
    Ok(ShellClosed { shell: entry.describe() })
}

/// Answers `AttachShell`.
pub(crate) async fn attach<R: Fetch, W: Carry>(
    guest: &Guest,
    call: AttachShell,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let found = call.size.map_or(Ok(()), check).and_then(|()| guest.shells.find(guest, call.id));
    match found {
        Ok(entry) => attach::serve(&entry, call, connection).await,
        Err(error) => connection.reply::<ShellAttached>(Err(error)).await,
    }
}

impl Shells {
    /// Has all of them end, and does not wait for it.
    pub(crate) fn hang_up(&self) {
        self.registry().running.iter().for_each(|entry| entry.order_close());
    }

    fn find(&self, guest: &Guest, id: ShellId) -> Result<Arc<Entry>, AgentError> {
        guest.require_activated()?;
        let registry = self.registry();
        let found = registry.running.iter().chain(&registry.ended).find(|entry| entry.id == id);
        found.cloned().ok_or_else(|| {
            AgentError::new(AgentErrorKind::NotFound, format!("there is no shell {id}"))
        })
    }

    /// Its program has ended; the earliest such beyond [`ENDED_MAX`] are closed.
    fn ended(&self, entry: &Arc<Entry>) {
        let mut registry = self.registry();
        registry.running.retain(|running| running.id != entry.id);
        registry.ended.push_back(entry.clone());
        let excess = registry.ended.len().saturating_sub(ENDED_MAX);
        registry.ended.iter().take(excess).for_each(|old| old.order_close());
    }

    /// Nothing of it is left.
    fn forget(&self, id: ShellId) {
        let mut registry = self.registry();
        registry.running.retain(|entry| entry.id != id);
        registry.ended.retain(|entry| entry.id != id);
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // No code panics while it holds the lock; were it so, the lists are whole.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(size: TerminalSize) -> Result<(), AgentError> {
    if size.is_possible() {
        return Ok(());
    }
    let TerminalSize { cols, rows } = size;
    let message =
        format!("a terminal of {cols} by {rows}: 1 to {COLS_MAX} columns, 1 to {ROWS_MAX} rows");
    Err(AgentError::new(AgentErrorKind::InvalidArgument, message))
}

fn random_id() -> std::io::Result<ShellId> {
    let mut id = [0; 6];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    Ok(ShellId(id))
}

/// How long a call may wait that asks to wait so long.
fn bounded(wait_ms: u32) -> Duration {
    Duration::from_millis(wait_ms.min(WAIT_MAX_MS).into())
}

fn has_ended(id: ShellId) -> AgentError {
    AgentError::new(AgentErrorKind::Conflict, format!("shell {id} has ended"))
}
