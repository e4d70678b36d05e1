//! A command in a live workspace: run, recorded, and perhaps left running.
//!
//! A command is run at most once, whatever goes wrong: nothing here tries again.

use super::history::{Command, Ending, History, Recorder};
use super::live::Live;
use super::machine::Caller;
use super::program::{Program, execute, start_request};
use crate::agent::kept::Heard;
use crate::blocking::blocking;
use crate::context::{Context, cancelled};
use crate::environment::Environments;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events, Stream};
use crate::pyro::Pyro;
use pyro_protocol::kept::{ProcessId, ProcessState};
use pyro_protocol::process::Exit;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// A command to run in a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// What to run.
    pub program: Program,
    /// The same as one line to read, for the history.
    pub line: String,
    /// For how long the caller stays.
    pub stay: Stay,
}

/// For how long the one who runs a command stays with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// To its end: it dies with the caller, and reads the caller's input.
    ToTheEnd,
    /// So long; then it goes on as a process of the workspace's.
    Until(Duration, Input),
    /// Not at all: it is a process of the workspace's from the start.
    Leave(Input),
}

/// What a command that may outlive its caller reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Nothing.
    Empty,
    /// What is written to it later.
    Open,
}

/// A command that has ended or goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execed {
    /// Its number in the history; `None` when that could not be written.
    pub sequence: Option<u64>,
    /// Where it runs.
    pub cwd: String,
    /// How far it came.
    pub progress: Progress,
}

/// How far a command came while its caller stayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    Running {
        /// Under this id.
        id: ProcessId,
        /// After so many bytes of standard output were told.
        stdout_cursor: u64,
        /// After so many bytes of standard error were told.
        stderr_cursor: u64,
    },
    /// It has ended.
    Ended(Exit),
}

/// Runs a command. What it writes is told as events and recorded.
///
/// # Errors
/// When it never ran, and when it may have and nobody knows how it went:
/// `GuestLost`, `TimedOut`, `Cancelled`.
pub async fn exec(
    pyro: &Pyro,
    live: &Live,
    request: ExecRequest,
    mut context: Context,
) -> Result<Execed> {
    let environments = Environments::new(&pyro.config);
    let record = live.record();
    let defaults = &environments.defaults(&record.environment, record.root_digest)?;
    let program = request.program.or_defaults(defaults)?;
    let history = History::within(live.path());
    let redactor = live.redactor();
    let cwd = program.cwd.as_ref().map(ToString::to_string).unwrap_or_default();
    let command = Command {
        line: redactor.string(request.line),
        argv: program.argv.iter().map(|word| redactor.bytes(word.clone())).collect(),
        cwd: redactor.string(cwd),
        user: program.user.clone().unwrap_or_default(),
    };
    let cwd = command.cwd.clone();
    context.events = std::mem::take(&mut context.events).without(redactor);
    if context.terminal.is_some() {
        context.events = context.events.at_terminal();
    }
    let recording = Recording::begin(&history, command, &mut context.events).await;
    if !redactor.is_empty() {
        recording.count_apart();
    }
    let sequence = recording.sequence();
    let (events, cancel) = (context.events.clone(), context.cancel.clone());
    let progress = match request.stay {
        Stay::ToTheEnd => attend(pyro, live, program, context).await,
        Stay::Until(patience, input) => {
            leave(pyro, live, program, input, Some(patience), context, &recording).await
        }
        Stay::Leave(input) => leave(pyro, live, program, input, None, context, &recording).await,
    };
    let progress = progress.map_err(|error| redactor.error(error));
    // What goes on may go on with a secret whose beginning is held back.
    if recording.is_over(&progress) {
        tokio::select! {
            // What can be told at once is.
            biased;
            () = events.settle() => {}
            // Whoever does not take it keeps nobody from leaving.
            () = cancel.cancelled() => {}
        }
    }
    recording.finish(&progress, &events).await;
    Ok(Execed { sequence, cwd, progress: progress.map_err(hinted)? })
}

/// Stays to the end. Leaving earlier kills it.
async fn attend(pyro: &Pyro, live: &Live, program: Program, context: Context) -> Result<Progress> {
    let (events, cancel) = (context.events.clone(), context.cancel.clone());
    let caller = Caller { events: &events, cancel: &cancel };
    let running = execute(live.agent(), pyro.deadlines, program, context);
    caller.unless_cancelled(running).await.map(Progress::Ended)
}

/// Starts it as a process of the workspace's, and stays for a while if at all.
/// One that ends meanwhile needs not be kept.
async fn leave(
    pyro: &Pyro,
    live: &Live,
    program: Program,
    input: Input,
    patience: Option<Duration>,
    context: Context,
    recording: &Recording<'_>,
) -> Result<Progress> {
    let agent = live.agent();
    let Context { events, mut signals, cancel, .. } = context;
    let limit = program.timeout;
    let kept = agent.keep(start_request(program, input == Input::Open)).await?;
    let id = kept.id;
    recording.name_process(id);
    events.emit(Event::ProgramStarted).await;
    let Some(patience) = patience else { return Ok(recording.running(id, &events)) };
    let following = async {
        let following = agent.follow(id, (0, 0)).await?;
        following.finish(|heard| recording.hear(heard, &events)).await
    };
    // The guest keeps the time; should it not, the host does.
    let overdue = async {
        match limit {
            Some(limit) => sleep(limit.saturating_add(pyro.deadlines.timeout_grace)).await,
            None => std::future::pending().await,
        }
    };
    let state = tokio::select! {
        // An end that has come is told.
        biased;
        state = following => state.map_err(|error| may_go_on(error, id))?,
        () = sleep(patience) => return Ok(recording.running(id, &events)),
        () = overdue => return Ok(recording.running(id, &events)),
        () = cancel.cancelled() => {
            // Whether it can be told or not, nobody waits for it any more.
            drop(agent.forget(id).await);
            return Err(cancelled());
        }
        never = pass_on(&mut signals, live, id) => match never {},
    };
    match state {
        ProcessState::Ended { exit } => {
            // Should it stay, the guest forgets it in time.
            drop(agent.forget(id).await);
            Ok(Progress::Ended(exit))
        }
        ProcessState::Running { .. } | ProcessState::Lost => Err(unknown_end(id)),
    }
}

async fn pass_on(
    signals: &mut mpsc::Receiver<u8>,
    live: &Live,
    id: ProcessId,
) -> std::convert::Infallible {
    while let Some(number) = signals.recv().await {
        // It may just have ended, and then needs none.
        drop(live.agent().signal(id, number).await);
    }
    std::future::pending().await
}

pub(super) fn unknown_end(id: ProcessId) -> Error {
    let message = format!("the guest or its agent went away while process {id} ran");
    Error::new(ErrorKind::GuestLost, message)
}

fn may_go_on(error: Error, id: ProcessId) -> Error {
    let message = format!("process {id} could not be followed and may still run");
    Error::new(error.kind(), message).because(error)
}

/// Says what nobody may do: run it again without looking.
fn hinted(error: Error) -> Error {
    match (may_have_run(&error), error.next_step()) {
        (true, None) => error.hint("the program may have run; look before you run it again"),
        (_, _) => error,
    }
}

/// Whether the program may have run although there is an error.
fn may_have_run(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::GuestLost
        | ErrorKind::TimedOut
        | ErrorKind::Protocol
        | ErrorKind::Cancelled
        | ErrorKind::Internal => true,
        ErrorKind::InvalidInput
        | ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::Unsupported
        | ErrorKind::EnvironmentMissing
        | ErrorKind::EnvironmentCorrupt
        | ErrorKind::StateCorrupt
        | ErrorKind::HostRequirement
        | ErrorKind::OutOfMemory
        | ErrorKind::DiskFull
        | ErrorKind::BootFailed
        | ErrorKind::Network
        | ErrorKind::Untrusted
        | ErrorKind::ProgramNotFound
        | ErrorKind::ProgramNotExecutable
        | ErrorKind::Io => false,
    }
}

/// The entry of a command, if it could be begun. What cannot be recorded stops
/// no command.
struct Recording<'a> {
    history: &'a History,
    recorder: Arc<Mutex<Option<Recorder>>>,
    sequence: Option<u64>,
    stdout_heard: AtomicU64,
    stderr_heard: AtomicU64,
}

impl<'a> Recording<'a> {
    /// Records from here on what goes to this sink.
    async fn begin(history: &'a History, command: Command, events: &mut Events) -> Self {
        let begun = {
            let history = history.clone();
            blocking(move || history.begin(command)).await
        };
        let recorder = match begun {
            Ok(recorder) => Some(recorder),
            Err(error) => {
                events.emit(unwritten(&error)).await;
                None
            }
        };
        let sequence = recorder.as_ref().map(Recorder::sequence);
        let recorder = Arc::new(Mutex::new(recorder));
        let listener = Arc::clone(&recorder);
        *events = std::mem::take(events).tap(move |event| {
            if let Event::Output { stream, bytes } = event
                && let Some(recorder) = &mut *lock(&listener)
            {
                recorder.push(*stream, bytes);
            }
        });
        let (stdout_heard, stderr_heard) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { history, recorder, sequence, stdout_heard, stderr_heard }
    }

    fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    fn running(&self, id: ProcessId, events: &Events) -> Progress {
        let (stdout_cursor, stderr_cursor) = self.told(events);
        Progress::Running { id, stdout_cursor, stderr_cursor }
    }

    /// How many bytes of each stream have come and are not held back.
    fn told(&self, events: &Events) -> (u64, u64) {
        let told = |heard: &AtomicU64, stream| {
            heard.load(Ordering::Relaxed).saturating_sub(events.held(stream))
        };
        (told(&self.stdout_heard, Stream::Stdout), told(&self.stderr_heard, Stream::Stderr))
    }

    /// What is recorded is not as long as what comes.
    fn count_apart(&self) {
        if let Some(recorder) = &mut *lock(&self.recorder) {
            // Should it not be written now, it is at the end.
            drop(recorder.set_heard((0, 0)));
        }
    }

    /// Whether nothing more comes.
    fn is_over(&self, progress: &Result<Progress>) -> bool {
        let is_kept = || lock(&self.recorder).as_ref().is_some_and(Recorder::is_kept);
        match progress {
            Ok(Progress::Ended(_)) => true,
            Ok(Progress::Running { .. }) => false,
            Err(_) => !is_kept(),
        }
    }

    fn count(&self, stream: Stream, bytes: u64) {
        let heard = match stream {
            Stream::Stdout => &self.stdout_heard,
            Stream::Stderr => &self.stderr_heard,
        };
        heard.fetch_add(bytes, Ordering::Relaxed);
    }

    fn name_process(&self, id: ProcessId) {
        if let Some(recorder) = &mut *lock(&self.recorder) {
            // Without it the entry stays open; the id is told all the same.
            drop(self.history.name_process(recorder, id));
        }
    }

    async fn hear(&self, heard: Heard, events: &Events) {
        match heard {
            Heard::Output(stream, bytes) => {
                // Before the event, which may wait: its tap has heard it by then.
                self.count(stream, bytes.len() as u64);
                events.emit(Event::Output { stream, bytes }).await;
            }
            Heard::Skipped(stream, bytes) => {
                events.skip(stream, bytes).await;
                self.count(stream, bytes);
                if let Some(recorder) = &mut *lock(&self.recorder) {
                    recorder.skip(stream, bytes);
                }
                let text = format!("{bytes} bytes of {stream} came faster than they were read");
                events.emit(Event::Warning(text)).await;
            }
        }
    }

    async fn finish(self, progress: &Result<Progress>, events: &Events) {
        let Some(mut recorder) = lock(&self.recorder).take() else { return };
        if recorder.counts_apart() {
            // That it cannot be written, the end says.
            drop(recorder.set_heard(self.told(events)));
        }
        let ending = match progress {
            Ok(Progress::Running { .. }) => Ending::Open,
            Ok(Progress::Ended(exit)) => Ending::of(*exit),
            // Whoever asks for it next learns what became of it.
            Err(error) if recorder.is_kept() && error.kind() != ErrorKind::Cancelled => {
                Ending::Open
            }
            Err(error) if may_have_run(error) => Ending::lost(error),
            Err(_) => return recorder.discard(),
        };
        if let Err(error) = recorder.finish(ending) {
            events.emit(unwritten(&error)).await;
        }
    }
}

pub(super) fn unwritten(error: &Error) -> Event {
    Event::Warning(format!("the history could not be written: {}", error.chain()))
}

fn lock(recorder: &Mutex<Option<Recorder>>) -> std::sync::MutexGuard<'_, Option<Recorder>> {
    recorder.lock().unwrap_or_else(PoisonError::into_inner)
}
