//! `pyro workspace attach` and `pyro workspace shell attach`: the caller's
//! terminal, joined to one in a guest.
//!
//! ```text
//! keyboard ──▶ detach keys? ──▶ shell        window size, signals ──▶ shell
//! screen   ◀── what comes out ◀── shell
//! ```
//!
//! The caller's terminal is in raw mode meanwhile, and as it was before however
//! this ends: the shell exits, the caller detaches or is told to stop, the guest
//! is lost, something panics.

mod words;

pub(super) use words::{asked, command, new_asked, new_command};

use super::interrupt::Interrupts;
use super::render::{self, Format};
use super::session::{in_runtime, listen};
use super::streams::{write_stderr, write_stdout};
use super::terminal::{self, ACTS_MAX, DetachKeys, Ears, Leaving, Raw};
use crate::context::Caller;
use crate::event_log::Happening;
use crate::operation::Context;
use crate::operation::argument::{ShellRef, Variable, Variables, WorkspaceRef};
use crate::secret::SecretVariable;
use crate::workspace::Live;
use crate::workspace::history::exit_code;
use crate::workspace::screen::Modes;
use crate::workspace::shell::{OpenRequest, Seat, open};
use crate::{Error, ErrorKind, Pyro, Result};
use pyro_protocol::GuestPath;
use pyro_protocol::process::Exit;
use pyro_protocol::shell::{ShellId, TerminalSize};
use rustix::process::Signal;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Pieces of output on their way to the screen; then the guest waits.
const PIECES_MAX: usize = 4;

/// How long the last output may take to be written.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What to attach to.
#[derive(Debug)]
pub(super) struct Asked {
    workspace: WorkspaceRef,
    target: Target,
    keys: DetachKeys,
}

/// Which shell.
#[derive(Debug)]
enum Target {
    /// One that is there.
    Shell(ShellRef),
    /// A new one, which is closed once it has ended.
    New {
        /// None is an interactive shell.
        argv: Vec<Vec<u8>>,
        cwd: Option<GuestPath>,
        env: Vec<Variable>,
        secret_env: Vec<SecretVariable>,
        user: Option<String>,
    },
}

/// How a session at a terminal ended.
enum Left {
    Ended(Exit),
    Detached,
    /// The caller was told to stop.
    Stopped(Signal),
}

/// Attaches, until the shell ends or the caller leaves it.
pub(super) fn run(asked: Asked) -> ExitCode {
    let ended = in_runtime(|runtime, pyro| runtime.block_on(attach(&pyro, asked)));
    match ended {
        Ok(Left::Ended(exit)) => exit_code(exit.outcome).0.into(),
        Ok(Left::Detached) => ExitCode::SUCCESS,
        Ok(Left::Stopped(signal)) => render::by_signal(signal),
        Err(error) => render::failure(&error, Format::Text),
    }
}

/// Errors are told without secrets, as those of operations are.
async fn attach(pyro: &Pyro, asked: Asked) -> Result<Left> {
    let context = Context { caller: Caller::Cli, ..Context::default() };
    let left = attach_in(pyro, asked, &context).await;
    left.map_err(|error| context.discretion.redactor().unwrap_or_default().error(error))
}

async fn attach_in(pyro: &Pyro, asked: Asked, context: &Context) -> Result<Left> {
    let size = terminal::size().ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, "standard input is no terminal").hint(
            "attach from a terminal; programs use `pyro workspace shell write` and \
             `pyro workspace shell read`",
        )
    })?;
    let live = Live::open(pyro, asked.workspace.as_str(), context).await?;
    let started = Instant::now();
    // Signals may come as soon as there is something to leave.
    let interrupts = listen()?;
    let (id, seat, is_new) = match asked.target {
        Target::Shell(ShellRef(id)) => (id, Seat::take(&live, id, size, context).await?, false),
        Target::New { argv, cwd, env, secret_env, user } => {
            let mut env = Variables::resolve(env, &pyro.config);
            live.add_secrets(&mut env, &secret_env)?;
            let request = OpenRequest { argv, cwd, env, user, size };
            let id = open(pyro, &live, request, context).await?.id;
            (id, Seat::first(&live, id, context).await?, true)
        }
    };
    let left = sit(seat, size, asked.keys, interrupts).await;
    note(&live, id, started, &left);
    match &left {
        // What came out of it was seen.
        Ok(Left::Ended(_)) if is_new => drop(live.agent().close_shell(id).await),
        Ok(Left::Detached | Left::Stopped(_)) => {
            let back = format!("`pyro workspace shell attach {} {id}` comes back", live.id());
            say(&format!("pyro: detached from shell {id}, which goes on; {back}\n"));
        }
        Ok(Left::Ended(_)) | Err(_) => {}
    }
    left
}

fn note(live: &Live, id: ShellId, started: Instant, left: &Result<Left>) {
    let result = match left {
        Ok(_) => "ok".into(),
        Err(error) => error.kind().to_string(),
    };
    let happening = Happening::Operation {
        operation: "workspace shell attach".into(),
        caller: Caller::Cli.as_str().into(),
        what: Some(id.to_string()),
        result,
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    live.place().note(happening, true);
}

/// From the first byte on the screen to the last; then the caller's terminal is
/// as it was.
async fn sit(
    seat: Seat,
    size: TerminalSize,
    keys: DetachKeys,
    mut interrupts: Interrupts,
) -> Result<Left> {
    let (pieces, shown) = show().map_err(|error| Error::io("cannot start a thread", error))?;
    let (acts, receiver) = mpsc::channel(ACTS_MAX);
    let unset = |error| Error::io("cannot set the terminal up", error);
    let ears = Ears::open().map_err(unset)?;
    let raw = Raw::enter().map_err(unset)?;
    let mut modes = Modes::new(size);
    modes.pass(&seat.repaint);
    // Nobody shows it only if nobody can, and then the other branch tells.
    drop(pieces.send(seat.repaint.clone()).await);
    let sitting = seat.sit(receiver, |bytes| {
        modes.pass(&bytes);
        let pieces = pieces.clone();
        async move { drop(pieces.send(bytes).await) }
    });
    let left = tokio::select! {
        // An end that has come is told.
        biased;
        ended = sitting => ended.map(|exit| exit.map_or(Left::Detached, Left::Ended)),
        leaving = terminal::hands(&acts, Some(keys), ears) => leaving.map(|leaving| match leaving {
            Leaving::Detached | Leaving::Gone => Left::Detached,
            Leaving::Quit => Left::Stopped(Signal::QUIT),
        }),
        signal = interrupts.next() => Ok(Left::Stopped(signal)),
        // The terminal has gone.
        () = pieces.closed() => Ok(Left::Detached),
    };
    let undo = modes.undo();
    let showing = async move {
        drop(pieces.send(undo).await);
        drop(pieces);
        drop(shown.await);
    };
    // Whoever has stopped the output keeps nobody here.
    drop(timeout(LAST_WORDS, showing).await);
    drop(raw);
    left
}

/// Where pieces of output go, and the end of those that show them: a screen that
/// is stopped, as by Ctrl-S, stops neither the keyboard nor signals.
fn show() -> io::Result<(mpsc::Sender<Vec<u8>>, oneshot::Receiver<()>)> {
    let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(PIECES_MAX);
    let (done, shown) = oneshot::channel();
    std::thread::Builder::new().name("screen".into()).spawn(move || {
        while let Some(piece) = pieces.blocking_recv() {
            if write_stdout(&piece).is_err() {
                break;
            }
        }
        // Whoever waited may have left.
        let _ = done.send(());
    })?;
    Ok((sender, shown))
}

fn say(text: &str) {
    // There may be nobody left to hear it.
    drop(write_stderr(text.as_bytes()));
}
