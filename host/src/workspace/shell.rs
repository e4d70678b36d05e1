//! Shells of a workspace, seen from the host. What comes out of them passes
//! through here, and nowhere else.

use super::live::Live;
use super::place::{Place, State};
use super::screen::{self, Sight};
use super::seen::{SeenSlice, before, is_preceded, reach};
use crate::agent::shell::{Act, Attached};
use crate::agent::{AgentClient, Channel};
use crate::context::Context;
use crate::environment::Environments;
use crate::error::{Error, ErrorKind, Result};
use crate::pyro::Pyro;
use crate::secret::Redactor;
use pyro_protocol::kept::{SLICE_MAX, Slice};
use pyro_protocol::process::Exit;
use pyro_protocol::shell::{
    AttachShell, OpenShell, RETAINED, ReadShell, ReadUntil, Shell, ShellId, ShellRead, TerminalSize,
};
use pyro_protocol::{ByteString, GuestPath};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

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
    let record = live.record();
    let defaults = &environments.defaults(&record.environment, record.root_digest)?;
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
        env: defaults.with(request.env).into_iter().map(bytes).collect(),
        user: Some(request.user.unwrap_or_else(|| defaults.user.clone())),
        size: request.size,
        joined: false,
    };
    context.unless_cancelled(live.agent().open_shell(call)).await
}

/// How a shell is, and what came out of it, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The shell.
    pub shell: Shell,
    /// What came out.
    pub output: SeenSlice,
    /// Whether it was silent for as long as was asked.
    pub idle: bool,
}

/// What came out of a shell, as it came. What may be the beginning of a secret is
/// waited for like all that has not come yet, but not longer than for silence.
///
/// # Errors
/// `NotFound` when there is no such shell.
pub async fn read(live: &Live, call: ReadShell, context: &Context) -> Result<Seen> {
    let deadline = Instant::now() + Duration::from_millis(call.wait_ms.into());
    let wanted = call.max_bytes as usize;
    // More than is told, to see secrets that go on.
    let max_bytes = call.max_bytes.saturating_add(reach(live)).min(SLICE_MAX);
    let call = ReadShell { max_bytes, ..call };
    let mut fetched = fetch(live, call, context).await?;
    loop {
        let ShellRead { shell, output, idle } = fetched;
        let (next, is_running) = (output.next_cursor(), shell.state.is_running());
        let has_news = next != output.start;
        let earlier = surroundings(live, call.id, &output, context).await?;
        let output = SeenSlice::of(live, output, earlier, wanted, is_running);
        let is_held = has_news && output.told.taken == 0;
        let left = deadline.saturating_duration_since(Instant::now());
        if !is_held || !is_running || idle || left.is_zero() {
            return Ok(Seen { shell, output, idle });
        }
        let wait_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        fetch(live, ReadShell { cursor: next, wait_ms, ..call }, context).await?;
        fetched = fetch(live, ReadShell { wait_ms: 0, ..call }, context).await?;
    }
}

async fn fetch(live: &Live, call: ReadShell, context: &Context) -> Result<ShellRead> {
    known(live, context.unless_cancelled(live.agent().read_shell(call)).await)
}

/// What comes before a slice, as far as it says something about it.
async fn surroundings(
    live: &Live,
    id: ShellId,
    slice: &Slice,
    context: &Context,
) -> Result<Vec<u8>> {
    let reach = reach(live);
    if reach == 0 || !is_preceded(slice) {
        return Ok(Vec::new());
    }
    let cursor = slice.start.saturating_sub(reach.into());
    let call = ReadShell { id, cursor, max_bytes: reach, wait_ms: 0, until: ReadUntil::Output };
    Ok(before(fetch(live, call, context).await?.output, slice))
}

/// What a person sees of it, after the same wait.
///
/// # Errors
/// As [`read`].
pub async fn look(live: &Live, call: ReadShell, context: &Context) -> Result<Looked> {
    let ShellRead { shell, output, idle } = fetch(live, call, context).await?;
    let (first, bytes) = transcript(live, call.id, output.end, context).await?;
    let end = first + bytes.len() as u64;
    let mark = usize::try_from(call.cursor.max(first).min(end) - first).unwrap_or(usize::MAX);
    // A secret on both sides of the mark was seen before it as a whole.
    let redactor = live.redactor();
    let seen = redactor.window(&bytes, 0..mark, false);
    let is_running = shell.state.is_running();
    let unseen = redactor.window(&bytes, seen.taken..bytes.len(), is_running);
    let mark = seen.bytes.len();
    let told = [seen.bytes, unseen.bytes].concat();
    let Sight { text, drawn } = screen::look(&told, mark, shell.size, call.max_bytes as usize);
    let start = first + seen.taken as u64;
    let next = start + unseen.marks.original(drawn) as u64;
    // And what was put together on the screen only.
    Ok(Looked { shell, start, next, end, text: redactor.string(text), idle })
}

/// How long what may be the beginning of a secret is kept from a screen: a person
/// sees what they type, and a program writes a secret faster.
pub(super) const HELD_MAX: Duration = Duration::from_millis(50);

/// One who sits at a shell.
pub struct Seat {
    attached: Attached<Channel>,
    redactor: Redactor,
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
        let redactor = live.redactor().clone();
        let told = redactor.window(&bytes, 0..bytes.len(), true);
        let cursor = first + told.taken as u64;
        let attached = attach(live, AttachShell { id, cursor, size: Some(size) }, context).await?;
        Ok(Self { attached, redactor, repaint: screen::repaint(&told.bytes, size) })
    }

    /// The same at one that has just been opened: it is seen from its first byte
    /// on, below what the caller's terminal shows already.
    ///
    /// # Errors
    /// As [`read`].
    pub async fn first(live: &Live, id: ShellId, context: &Context) -> Result<Self> {
        let attached = attach(live, AttachShell { id, cursor: 0, size: None }, context).await?;
        Ok(Self { attached, redactor: live.redactor().clone(), repaint: Vec::new() })
    }

    /// Passes acts in and what comes out to `show`, until the shell has ended or
    /// nobody acts any more; `None` then. Secrets are left out, as far as they come
    /// without a pause.
    ///
    /// # Errors
    /// When the guest is lost.
    pub async fn sit<H: Future<Output = ()>>(
        self,
        acts: mpsc::Receiver<Act>,
        mut show: impl FnMut(Vec<u8>) -> H,
    ) -> Result<Option<Exit>> {
        if self.redactor.is_empty() {
            return self.attached.sit(acts, show).await;
        }
        let (sender, mut pieces) = mpsc::channel(1);
        let sitting = self.attached.sit(acts, move |bytes| {
            let sender = sender.clone();
            // Who looks stays as long as the shell does.
            async move { drop(sender.send(bytes).await) }
        });
        let looking = async {
            let mut telling = self.redactor.stream();
            loop {
                let patience = if telling.held() > 0 { HELD_MAX } else { Duration::MAX };
                let (told, is_last) = match timeout(patience, pieces.recv()).await {
                    Ok(Some(bytes)) => (telling.push(bytes), false),
                    Ok(None) => (telling.finish(), true),
                    Err(_) => (telling.finish(), false),
                };
                if !told.is_empty() {
                    show(told).await;
                }
                if is_last {
                    return;
                }
            }
        };
        tokio::join!(sitting, looking).0
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
        let output = fetch(live, call, context).await?.output;
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
