//! One shell, as those who ask about it see it.

use super::has_ended;
use super::terminal::Terminal;
use super::transcript::Transcript;
use pyro_protocol::kept::Slice;
use pyro_protocol::shell::{Shell, ShellId, ShellState, TerminalSize};
use pyro_protocol::{AgentError, GuestPath};
use rustix::process::Pid;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// One shell.
pub(super) struct Entry {
    pub(super) id: ShellId,
    cwd: GuestPath,
    started_at_ns: i64,
    transcript: Mutex<Transcript>,
    /// Until its program has ended.
    terminal: Mutex<Option<Arc<Terminal>>>,
    status: watch::Sender<Status>,
    close: watch::Sender<bool>,
    /// Held by the one who types: two do not mix.
    pub(super) typing: tokio::sync::Mutex<()>,
}

/// What changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Status {
    pub(super) state: ShellState,
    pub(super) size: TerminalSize,
    pub(super) end: u64,
    /// Whether nothing of it is left in the guest.
    gone: bool,
}

impl Entry {
    /// A shell that runs, and the order to close it, which may come.
    pub(super) fn new(shell: Shell, terminal: Terminal) -> (Self, watch::Receiver<bool>) {
        let Shell { id, cwd, size, started_at_ns, state, output_bytes } = shell;
        let (close, order) = watch::channel(false);
        let status = Status { state, size, end: output_bytes, gone: false };
        let entry = Self {
            id,
            cwd,
            started_at_ns,
            transcript: Mutex::default(),
            terminal: Mutex::new(Some(Arc::new(terminal))),
            status: watch::Sender::new(status),
            close,
            typing: tokio::sync::Mutex::default(),
        };
        (entry, order)
    }

    /// As everybody sees it.
    pub(super) fn describe(&self) -> Shell {
        let Status { state, size, end, gone: _ } = self.status();
        Shell {
            id: self.id,
            cwd: self.cwd.clone(),
            size,
            started_at_ns: self.started_at_ns,
            state,
            output_bytes: end,
        }
    }

    pub(super) fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// To wait for a change of it.
    pub(super) fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Has it closed; to be ordered any number of times.
    pub(super) fn order_close(&self) {
        self.close.send_replace(true);
    }

    /// Returns once nothing of it is left.
    pub(super) async fn gone(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        drop(self.watch().wait_for(|status| status.gone).await);
    }

    /// The terminal, while its program runs.
    pub(super) fn terminal(&self) -> Result<Arc<Terminal>, AgentError> {
        lock(&self.terminal).clone().ok_or_else(|| has_ended(self.id))
    }

    /// Sends a signal to the foreground job.
    pub(super) fn signal(&self, number: u8) -> Result<(), AgentError> {
        let leader = match self.status().state {
            ShellState::Running { pid } => pid,
            ShellState::Ended { .. } => return Err(has_ended(self.id)),
        };
        let foreground = self.terminal()?.foreground();
        let own = i32::try_from(leader).ok().and_then(Pid::from_raw);
        let Some(group) = foreground.or(own) else { return Err(has_ended(self.id)) };
        // SAFETY: kill takes no pointers. The group was the terminal's a moment
        // ago; one that has just ended needs no signal any more.
        unsafe { libc::kill(-group.as_raw_nonzero().get(), number.into()) };
        Ok(())
    }

    /// Makes the terminal so large.
    pub(super) fn resize(&self, size: TerminalSize) -> Result<(), AgentError> {
        let resized = self.terminal()?.resize(size);
        resized.map_err(|error| {
            crate::process::failed(&format!("the terminal of shell {}", self.id), &error)
        })?;
        self.status.send_modify(|status| status.size = size);
        Ok(())
    }

    /// Something came out.
    pub(super) fn push(&self, bytes: &[u8]) {
        let end = {
            let mut transcript = lock(&self.transcript);
            transcript.push(bytes);
            transcript.end()
        };
        self.status.send_modify(|status| status.end = end);
    }

    /// See [`Transcript::read`].
    pub(super) fn read(&self, cursor: u64, most: usize) -> Slice {
        lock(&self.transcript).read(cursor, most)
    }

    /// The oldest byte that is kept.
    pub(super) fn oldest(&self) -> u64 {
        lock(&self.transcript).oldest()
    }

    /// Its program has ended.
    pub(super) fn end(&self, state: ShellState) {
        *lock(&self.terminal) = None;
        self.status.send_modify(|status| status.state = state);
    }

    /// Nothing of it is left.
    pub(super) fn vanish(&self) {
        self.status.send_modify(|status| status.gone = true);
    }
}

/// Nobody panics with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
