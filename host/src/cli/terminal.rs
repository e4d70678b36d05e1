//! The caller's terminal, when a program in a guest has it: the keys pressed at
//! it, its size, and raw mode that does not outlive us.

mod keys;
mod raw;

pub(super) use keys::{DETACH_KEYS, DetachKeys};
pub(super) use raw::{Raw, size};

use super::streams::{Stdin, write_stdout};
use crate::agent::shell::Act;
use crate::context::Terminal;
use crate::event::{Event, Events};
use crate::workspace::screen::Modes;
use crate::{Error, ErrorKind, Result};
use keys::Pressed;
use rustix::process::Signal;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::sync::{Notify, mpsc};

/// What the caller did and the guest was not told.
pub(super) const ACTS_MAX: usize = 4;

/// What is read from the keyboard at once; a paste is read in pieces.
const KEYS_MAX: usize = 4096;

/// Why nobody sits at the terminal any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    /// The detach keys.
    Detached,
    /// It was hung up.
    Gone,
    /// By SIGQUIT, which nobody else hears.
    Quit,
}

/// What whoever sits at a terminal is told by signals.
pub(super) struct Ears {
    resized: Signals,
    quit: Signals,
}

impl Ears {
    /// Hears them from here on. Raw mode begins after that: else SIGQUIT would end
    /// us in it.
    pub(super) fn open() -> io::Result<Self> {
        let (resized, quit) = (SignalKind::window_change(), SignalKind::quit());
        Ok(Self { resized: signal(resized)?, quit: signal(quit)? })
    }
}

/// Passes on what the caller does, until they leave.
pub(super) async fn hands(
    acts: &mpsc::Sender<Act>,
    keys: Option<DetachKeys>,
    ears: Ears,
) -> Result<Leaving> {
    let Ears { mut resized, mut quit } = ears;
    let mut keyboard = Stdin::open().ok_or_else(|| {
        Error::new(ErrorKind::Conflict, "the terminal belongs to another program now")
            .hint("bring this one to the foreground: `fg`")
    })?;
    if let Some(size) = size() {
        // It may have another by now than it was opened for, and from here on that
        // is heard. Nobody takes it only if the program has ended.
        drop(acts.send(Act::Resize(size)).await);
    }
    let mut watcher = keys.map(DetachKeys::watcher);
    let mut buffer = [0; KEYS_MAX];
    loop {
        let act = tokio::select! {
            read = keyboard.read(&mut buffer) => match (read, &mut watcher) {
                // The error is that of a terminal that was hung up.
                (Ok(0) | Err(_), _) => return Ok(Leaving::Gone),
                (Ok(length), None) => Act::Type(buffer[..length].to_vec()),
                (Ok(length), Some(watcher)) => match watcher.press(&buffer[..length]) {
                    Pressed::Passed(keys) => Act::Type(keys),
                    Pressed::Detach => return Ok(Leaving::Detached),
                },
            },
            _ = resized.recv() => match size() {
                Some(size) => Act::Resize(size),
                None => return Ok(Leaving::Gone),
            },
            _ = quit.recv() => return Ok(Leaving::Quit),
        };
        if acts.send(act).await.is_err() {
            // The other side has left, and says how.
            std::future::pending::<()>().await;
        }
    }
}

/// One who sits at the terminal while an operation runs its program there. The
/// terminal is as it was until that has started: till then it is for pyro that
/// Ctrl-C is pressed.
pub(super) struct Sitter {
    acts: mpsc::Sender<Act>,
    started: Arc<Notify>,
    screen: Arc<Mutex<Screen>>,
}

struct Screen {
    modes: Modes,
    raw: Option<Raw>,
    /// There from the program's start on, until somebody sits down.
    ears: io::Result<Option<Ears>>,
}

impl Screen {
    fn begin(&mut self) {
        self.ears = Ears::open().and_then(|ears| {
            self.raw = Some(Raw::enter()?);
            Ok(Some(ears))
        });
    }
}

impl Sitter {
    /// Also gives the terminal as the operation gets it.
    ///
    /// # Errors
    /// `InvalidInput` when there is none.
    pub(super) fn new() -> Result<(Self, Terminal)> {
        let size = size().ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "standard input is no terminal")
                .hint("leave out `-t`; standard input is passed on without it")
        })?;
        let (acts, receiver) = mpsc::channel(ACTS_MAX);
        let screen = Screen { modes: Modes::new(size), raw: None, ears: Ok(None) };
        let screen = Arc::new(Mutex::new(screen));
        let sitter = Self { acts, started: Arc::default(), screen };
        Ok((sitter, Terminal { size, acts: receiver }))
    }

    /// The same events, watched for what becomes of the terminal.
    pub(super) fn watch(&self, events: Events) -> Events {
        let (started, screen) = (self.started.clone(), self.screen.clone());
        events.tap(move |event| match event {
            Event::ProgramStarted => {
                // Before anything of the program's is seen.
                lock(&screen).begin();
                started.notify_one();
            }
            Event::Output { bytes, .. } => lock(&screen).modes.pass(bytes),
            Event::Stage { .. } | Event::Progress(_) | Event::Warning(_) => {}
        })
    }

    /// Sits there from the program's start on; gives the signal that would end the
    /// program if the terminal were its own.
    pub(super) async fn sit(&self) -> Result<Signal> {
        self.started.notified().await;
        let ears = std::mem::replace(&mut lock(&self.screen).ears, Ok(None));
        let ears = ears.map_err(|error| Error::io("cannot set the terminal up", error))?;
        // Nobody sits there twice.
        let Some(ears) = ears else { return std::future::pending().await };
        Ok(match hands(&self.acts, None, ears).await? {
            Leaving::Detached | Leaving::Gone => Signal::HUP,
            Leaving::Quit => Signal::QUIT,
        })
    }

    /// Leaves the terminal as it was before, once all of the program's is on it.
    pub(super) fn rise(&self) {
        let mut screen = lock(&self.screen);
        if let Some(raw) = screen.raw.take() {
            // First: what is written waits for whoever has stopped the output.
            drop(raw);
            if io::stdout().is_terminal() {
                // A screen that is gone needs it no more.
                drop(write_stdout(&screen.modes.undo()));
            }
        }
    }
}

fn lock(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
    // Whatever was drawn last: it is a screen.
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}
