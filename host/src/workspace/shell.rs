//! Shells of a workspace, seen from the host. What comes out of them passes
//! through here, and nowhere else.

use super::live::Live;
use super::place::{Place, State};
use super::screen::{self, Sight};
use crate::agent::shell::{Act, Attached};
use crate::agent::{AgentClient, Channel};
use crate::context::Context;
use crate::environment::Environments;
use crate::error::{Error, ErrorKind, Result};
use crate::pyro::Pyro;
use pyro_protocol::kept::SLICE_MAX;
use pyro_protocol::process::Exit;
use pyro_protocol::shell::{
    AttachShell, OpenShell, RETAINED, ReadShell, ReadUntil, Shell, ShellId, ShellRead, TerminalSize,
};
use pyro_protocol::{ByteString, GuestPath};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// How many replies the whole of what is kept of a terminal may take to fetch,
/// with some to spare for what comes out meanwhile.
const FETCHES_MAX: usize = 2 * RETAINED / SLICE_MAX as usize + 8;

/// What to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRequest {
    /// The program and its arguments; none is an interactive shell.
    pub argv: Vec<Vec<u8>>,
    /// Where; `None` is the environment's default.
    pub cwd: Option<GuestPath>,
    /// Variables to add.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// As whom; `None` is the environment's default.
    pub user: Option<String>,
    /// How large the terminal is.
    pub size: TerminalSize,
}

/// How a shell is, and what a person sees of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// The shell.
    pub shell: Shell,
    /// The byte from which on it was looked at.
    pub start: u64,
    /// The byte up to which it was.
    pub next: u64,
    /// How many bytes have come out.
    pub end: u64,
    /// What there was to see.
    pub text: String,
    /// Whether it was silent for as long as was asked.
    pub idle: bool,
}

/// Opens a shell, with what the environment says where the caller said nothing.
///
/// # Errors
/// When there is none: no such program, directory or user, or too many.
pub async fn open(
    pyro: &Pyro,
    live: &Live,
    request: OpenRequest,
    context: &Context,
) -> Result<Shell> {
    let environments = Environments::new(&pyro.config);
    let defaults = &environments.recipe(&live.record().environment)?.defaults;
    let cwd = match request.cwd {
        Some(cwd) => cwd,
        None => GuestPath::new(defaults.cwd.as_str()).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "the environment's default directory is none")
                .because(error)
        })?,
    };
    let bytes = |(name, value)| (ByteString(name), ByteString(value));
    let call = OpenShell {
        argv: request.argv.into_iter().map(ByteString).collect(),
        cwd: Some(cwd),
        env: request.env.into_iter().map(bytes).collect(),
        user: Some(request.user.unwrap_or_else(|| defaults.user.clone())),
        size: request.size,
        joined: false,
    };
    context.unless_cancelled(live.agent().open_shell(call)).await
}

/// What came out of a shell, as it came.
///
/// # Errors
/// `NotFound` when there is no such shell.
pub async fn read(live: &Live, call: ReadShell, context: &Context) -> Result<ShellRead> {
    known(live, context.unless_cancelled(live.agent().read_shell(call)).await)
}

/// What a person sees of it, after the same wait.
///
/// # Errors
/// As [`read`].
pub async fn look(live: &Live, call: ReadShell, context: &Context) -> Result<Looked> {
    let ShellRead { shell, output, idle } = read(live, call, context).await?;
    let (first, bytes) = transcript(live, call.id, output.end, context).await?;
    let start = call.cursor.max(first).min(first + bytes.len() as u64);
    let mark = usize::try_from(start - first).unwrap_or(usize::MAX);
    let Sight { text, drawn } = screen::look(&bytes, mark, shell.size, call.max_bytes as usize);
    let end = first + bytes.len() as u64;
    Ok(Looked { shell, start, next: start + drawn as u64, end, text, idle })
}

/// One who sits at a shell.
pub struct Seat {
    attached: Attached<Channel>,
    /// What puts a terminal of the size that was asked for into the state that
    /// the shell's is in.
    pub repaint: Vec<u8>,
}

impl Seat {
    /// Takes a seat at a shell, whose terminal then has the caller's size.
    ///
    /// # Errors
    /// As [`read`].
    pub async fn take(
        live: &Live,
        id: ShellId,
        size: TerminalSize,
        context: &Context,
    ) -> Result<Self> {
        let (first, bytes) = transcript(live, id, u64::MAX, context).await?;
        let cursor = first + bytes.len() as u64;
        let attached = attach(live, AttachShell { id, cursor, size: Some(size) }, context).await?;
        Ok(Self { attached, repaint: screen::repaint(&bytes, size) })
    }

    /// The same at one that has just been opened: it is seen from its first byte
    /// on, below what the caller's terminal shows already.
    ///
    /// # Errors
    /// As [`read`].
    pub async fn first(live: &Live, id: ShellId, context: &Context) -> Result<Self> {
        let attached = attach(live, AttachShell { id, cursor: 0, size: None }, context).await?;
        Ok(Self { attached, repaint: Vec::new() })
    }

    /// Passes acts in and what comes out to `show`, until the shell has ended or
    /// nobody acts any more; `None` then.
    ///
    /// # Errors
    /// When the guest is lost.
    pub async fn sit<H: Future<Output = ()>>(
        self,
        acts: mpsc::Receiver<Act>,
        show: impl FnMut(Vec<u8>) -> H,
    ) -> Result<Option<Exit>> {
        self.attached.sit(acts, show).await
    }
}

async fn attach(live: &Live, call: AttachShell, context: &Context) -> Result<Attached<Channel>> {
    known(live, context.unless_cancelled(live.agent().attach_shell(call)).await)
}

/// All that is kept of what came out, up to this byte or what there is now, and
/// the number of its first byte.
async fn transcript(
    live: &Live,
    id: ShellId,
    until: u64,
    context: &Context,
) -> Result<(u64, Vec<u8>)> {
    let (mut first, mut bytes) = (0, Vec::new());
    for _ in 0..FETCHES_MAX {
        let cursor = first + bytes.len() as u64;
        if cursor >= until {
            break;
        }
        let max_bytes = SLICE_MAX;
        let call = ReadShell { id, cursor, max_bytes, wait_ms: 0, until: ReadUntil::Output };
        let output = read(live, call, context).await?.output;
        if output.start > cursor {
            // What was fetched before is gone meanwhile, and a gap draws nothing.
            bytes.clear();
            first = output.start;
        }
        let is_all = output.data.0.is_empty() || output.next_cursor() == output.end;
        bytes.extend(output.data.0);
        if is_all && (until == u64::MAX || first + bytes.len() as u64 >= until) {
            break;
        }
    }
    Ok((first, bytes))
}

/// How many shells there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Also of those whose program has ended.
    pub all: u32,
    /// In which one runs.
    pub running: u32,
}

/// How many a workspace has, if that can be said at once; nobody is woken up for
/// it. What does not run has none: they go with their guest.
pub async fn count(pyro: &Pyro, place: &Place, deadline: Instant) -> Option<Counts> {
    match place.state() {
        State::Stopped | State::Crashed => Some(Counts { all: 0, running: 0 }),
        State::Running => {
            let agent = AgentClient::new(place.path(), pyro.deadlines).ok()?;
            let shells = timeout_at(deadline, agent.shells()).await.ok()?.ok()?;
            let running = shells.iter().filter(|shell| shell.state.is_running()).count();
            let number = |count: usize| u32::try_from(count).ok();
            Some(Counts { all: number(shells.len())?, running: number(running)? })
        }
        State::Paused | State::Changing | State::Damaged => None,
    }
}

/// Says which there are when there is no such shell.
///
/// # Errors
/// Those of what was asked.
pub fn known<T>(live: &Live, asked: Result<T>) -> Result<T> {
    asked.map_err(|error| {
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        error.hint(format!("`pyro workspace shell list {}` shows those there are", live.id()))
    })
}
