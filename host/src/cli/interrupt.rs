//! The signals that tell `pyro` to stop, and why it stops.

use rustix::process::Signal;
use std::io;
use std::sync::{Arc, OnceLock};
use tokio::signal::unix::{self, SignalKind};
use tokio_util::sync::CancellationToken;

/// The signals that ask `pyro` to leave.
pub(super) struct Interrupts {
    int: Option<unix::Signal>,
    term: Option<unix::Signal>,
    hup: Option<unix::Signal>,
}

impl Interrupts {
    /// Listens from here on to those that the parent did not have ignored:
    /// `nohup` means it.
    pub(super) fn listen() -> io::Result<Self> {
        let listen = |signal: Signal| match is_ignored(signal) {
            true => Ok(None),
            false => unix::signal(SignalKind::from_raw(signal.as_raw())).map(Some),
        };
        Ok(Self {
            int: listen(Signal::INT)?,
            term: listen(Signal::TERM)?,
            hup: listen(Signal::HUP)?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            () = arrival(&mut self.int) => Signal::INT,
            () = arrival(&mut self.term) => Signal::TERM,
            () = arrival(&mut self.hup) => Signal::HUP,
        }
    }
}

async fn arrival(signal: &mut Option<unix::Signal>) {
    let arrived = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if arrived.is_none() {
        std::future::pending::<()>().await;
    }
}

fn is_ignored(signal: Signal) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action sigaction only fills in the old one, which
    // is read only after it succeeded.
    unsafe {
        libc::sigaction(signal.as_raw(), std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Why the operation is to stop early.
#[derive(Debug)]
pub(super) enum Cause {
    /// Somebody asked for it.
    Signal(Signal),
    /// What the guest's program writes has nowhere to go.
    Unwritable(io::Error),
}

/// Stops the operation, and remembers the first cause.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    cause: Arc<OnceLock<Cause>>,
    token: CancellationToken,
}

impl Stop {
    pub(super) fn because(&self, cause: Cause) {
        // Only the first cause counts.
        drop(self.cause.set(cause));
        self.token.cancel();
    }

    pub(super) fn cause(&self) -> Option<&Cause> {
        self.cause.get()
    }

    pub(super) fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}
