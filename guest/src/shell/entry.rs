//! One shell, as those who ask about it see it.

use super::has_ended;
use super::terminal::Terminal;
use super::transcript::Transcript;
use pyro_protocol::kept::Slice;
use pyro_protocol::shell::{RETAINED, Shell, ShellId, ShellState, TerminalSize};
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
    close: watch::Sender<Close>,
    /// How much of it the one has to whom it is joined; `None` if it is to
    /// nobody, or is to be closed.
    joined: watch::Sender<Option<u64>>,
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

/// Whether it is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// Nobody has said so.
    No,
    /// The one to whom it was joined has left. What a program left running that
    /// had ended by itself goes on.
    Left,
    /// With all that was started in it.
    All,
}

impl Entry {
    /// A shell that runs, and the order to close it, which may come.
    pub(super) fn new(
        shell: Shell,
        terminal: Terminal,
        joined: bool,
    ) -> (Self, watch::Receiver<Close>) {
        let Shell { id, cwd, size, started_at_ns, state, output_bytes } = shell;
        let (close, order) = watch::channel(Close::No);
        let status = Status { state, size, end: output_bytes, gone: false };
        let entry = Self {
            id,
            cwd,
            started_at_ns,
            transcript: Mutex::default(),
            terminal: Mutex::new(Some(Arc::new(terminal))),
            status: watch::Sender::new(status),
            close,
            joined: watch::Sender::new(joined.then_some(output_bytes)),
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
        self.close.send_replace(Close::All);
        // Whoever does not take what comes out keeps nobody from it.
        self.joined.send_replace(None);
    }

    /// The one to whom it was joined has left.
    pub(super) fn leave(&self) {
        self.close.send_if_modified(|close| {
            let is_first = *close == Close::No;
            if is_first {
                *close = Close::Left;
            }
            is_first
        });
        self.joined.send_replace(None);
    }

    /// The one to whom it is joined, if it is, has all before this byte.
    pub(super) fn took(&self, cursor: u64) {
        self.joined.send_if_modified(|joined| match joined {
            Some(taken) => {
                *taken = cursor;
                true
            }
            None => false,
        });
    }

    /// Waits until so much more can be kept without loss for the one to whom it
    /// is joined.
    pub(super) async fn room(&self, bytes: usize) {
        let end = self.status().end;
        let has_room = |joined: &Option<u64>| {
            let behind = joined.map_or(0, |taken| end.saturating_sub(taken));
            behind <= RETAINED.saturating_sub(bytes) as u64
        };
        if !has_room(&self.joined.borrow()) {
            // The sender lives as long as `self`, so waiting cannot fail.
            drop(self.joined.subscribe().wait_for(has_room).await);
        }
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
