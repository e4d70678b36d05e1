//! One operation from start to exit code.

use super::interrupt::{Cause, Interrupts, Stop};
use super::render::{self, Format, Telling};
use super::streams::Stdin;
use super::terminal::Sitter;
use crate::config::Homes;
use crate::context::{Caller, Roots, Terminal};
use crate::event::{Event, Events};
use crate::mcp::{self, Tools};
use crate::operation::{AnyAnswer, Context, Entry, Input, Prepared, Streams};
use crate::{Config, Error, ErrorKind, Pyro, Result};
use rustix::process::Signal;
use std::future::pending;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

/// Signals on their way to the guest.
const FORWARDED_MAX: usize = 4;

/// How long output may still be written after a stop: whoever reads it may be
/// the one who does not.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs an operation and shows how it goes; its program may have the terminal.
pub(super) fn run(
    entry: &Entry,
    prepared: Prepared,
    format: Format,
    at_terminal: bool,
) -> ExitCode {
    let stop = Stop::default();
    let ended = in_runtime(|runtime, pyro| {
        let seat = at_terminal.then(Sitter::new).transpose()?;
        runtime.block_on(converse(&pyro, entry, prepared, (format, seat), &stop))
    });
    match (ended, stop.cause()) {
        (Ok(answer), None | Some(Cause::Signal(_))) => {
            render::answer(&*answer, format, entry.streams)
        }
        (Ok(_), Some(cause)) => {
            let error = Error::new(ErrorKind::Io, "the output could not be written");
            render::stopped(cause, &error, format)
        }
        (Err(error), Some(cause)) if error.kind() == ErrorKind::Cancelled => {
            render::stopped(cause, &error, format)
        }
        (Err(error), _) => render::failure(&error, format),
    }
}

/// Serves MCP until the client is gone. What the client may name of the host's
/// files lies below these directories, or where the server was started.
pub(super) fn serve(tools: Tools, roots: &[PathBuf]) -> ExitCode {
    let ended = in_runtime(|runtime, pyro| {
        let roots = match roots {
            [] => below(Config::working_directory()?)?,
            chosen => Roots::below(chosen)?,
        };
        runtime.block_on(async {
            let mut interrupts = listen()?;
            mcp::serve(pyro, tools, roots, async { interrupts.next().await }).await
        })
    });
    match ended {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(signal)) => render::by_signal(signal),
        Err(error) => render::failure(&error, Format::Text),
    }
}

/// A client that starts its servers nowhere in particular, in `/` or at home, has
/// not chosen the whole host nor all that its user has.
fn below(start: PathBuf) -> Result<Roots> {
    // Whoever has no home cannot be at home.
    let home = Homes::from_environment().ok().and_then(|homes| homes.home.canonicalize().ok());
    if start.parent().is_none() || home.is_some_and(|home| home.starts_with(&start)) {
        Ok(Roots::NONE)
    } else {
        Roots::below(&[start])
    }
}

/// One thread is enough: all the work is waiting. A read of standard input that
/// still blocks is left behind.
pub(super) fn in_runtime<T>(work: impl FnOnce(&Runtime, Pyro) -> Result<T>) -> Result<T> {
    let pyro = Pyro::new(Config::from_environment()?);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("cannot start the event loop", error))?;
    let ended = work(&runtime, pyro);
    runtime.shutdown_background();
    ended
}

pub(super) fn listen() -> Result<Interrupts> {
    Interrupts::listen().map_err(|error| Error::io("cannot listen to signals", error))
}

async fn converse(
    pyro: &Pyro,
    entry: &Entry,
    prepared: Prepared,
    (format, seat): (Format, Option<(Sitter, Terminal)>),
    stop: &Stop,
) -> Result<Box<dyn AnyAnswer>> {
    let mut interrupts = listen()?;
    let pass_streams = format == Format::Text;
    let telling = Telling::beside(entry.streams, pass_streams);
    let (events, received) = Events::channel();
    let shown = render::show_events(received, telling, stop.clone())
        .map_err(|error| Error::io("cannot start a thread", error))?;
    let (forward, signals) = mpsc::channel(FORWARDED_MAX);
    let mut escalation = Escalation { forward, running: Arc::default(), stop };
    let (sitter, terminal) = seat.unzip();
    let events = match &sitter {
        Some(sitter) => sitter.watch(events),
        None => events,
    };
    let context = Context {
        events: escalation.watch(events),
        stdin: match entry.streams {
            Streams::None => None,
            Streams::Program if terminal.is_some() => None,
            Streams::Answer => Stdin::open().map(|stdin| Box::new(stdin) as Input),
            Streams::Program => Stdin::for_program().map(|stdin| Box::new(stdin) as Input),
        },
        terminal,
        cancel: stop.token(),
        signals,
        takes_output: pass_streams,
        caller: Caller::Cli,
        ..Context::default()
    };
    let mut work = prepared(pyro, context);
    let mut sitting = pin!(async {
        let left = match &sitter {
            Some(sitter) => sitter.sit().await?,
            None => pending().await,
        };
        stop.because(Cause::Signal(left));
        pending().await
    });
    let ended = loop {
        tokio::select! {
            // An end that has come is told.
            biased;
            ended = &mut work => break ended,
            failed = &mut sitting => break failed,
            signal = interrupts.next() => escalation.step(signal)?,
        }
    };
    // The last sender of events goes with the work.
    drop(work);
    tokio::select! {
        () = flushed(shown, stop) => {}
        signal = interrupts.next() => stop.because(Cause::Signal(signal)),
    }
    if let Some(sitter) = &sitter {
        sitter.rise();
    }
    ended
}

/// Everything is written, or nobody will wait for it any more.
async fn flushed(shown: oneshot::Receiver<()>, stop: &Stop) {
    let token = stop.token();
    let patience = async {
        token.cancelled().await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        _ = shown => {}
        () = patience => {}
    }
}

/// What a signal comes to: the first Ctrl-C is the guest's program's own if it
/// runs already, then the operation is cancelled, then nobody waits for it.
struct Escalation<'a> {
    /// Closed once the program had its chance.
    forward: mpsc::Sender<u8>,
    running: Arc<AtomicBool>,
    stop: &'a Stop,
}

impl Escalation<'_> {
    /// The same events, watched for the start of the guest's program.
    fn watch(&self, events: Events) -> Events {
        let running = Arc::clone(&self.running);
        events.tap(move |event| {
            if *event == Event::ProgramStarted {
                running.store(true, Ordering::Relaxed);
            }
        })
    }

    /// # Errors
    /// When there is nothing left but to leave; the supervisor cleans up alone.
    fn step(&mut self, signal: Signal) -> Result<()> {
        if self.stop.cause().is_some() {
            return Err(Error::new(
                ErrorKind::Cancelled,
                "stopped before everything was cleaned up",
            ));
        }
        let for_program = signal == Signal::INT && self.running.swap(false, Ordering::Relaxed);
        let number = u8::try_from(signal.as_raw()).unwrap_or_default();
        if !for_program || self.forward.try_send(number).is_err() {
            self.stop.because(Cause::Signal(signal));
        }
        Ok(())
    }
}
