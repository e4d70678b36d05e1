//! The caller's terminal: its size, and raw mode that does not outlive us.

use pyro_protocol::shell::{COLS_MAX, ROWS_MAX, TerminalSize};
use rustix::stdio;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;
use std::panic;
use std::sync::{Mutex, Once, PoisonError};

/// How the terminal was, while it is not.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

static HOOK: Once = Once::new();

/// How large the terminal is, if there is one for input; one that does not know
/// is of the usual size.
pub(in crate::cli) fn size() -> Option<TerminalSize> {
    let size = tcgetwinsize(stdio::stdin()).ok()?;
    let or = |number: u16, usual, max| if number == 0 { usual } else { number.min(max) };
    Some(TerminalSize { cols: or(size.ws_col, 80, COLS_MAX), rows: or(size.ws_row, 24, ROWS_MAX) })
}

/// Raw mode, for as long as it lives.
pub(in crate::cli) struct Raw(());

impl Raw {
    /// Hands every key over as it is, and shows every byte as it is.
    pub(in crate::cli) fn enter() -> io::Result<Self> {
        let before = tcgetattr(stdio::stdin())?;
        let mut modes = before.clone();
        modes.make_raw();
        *lock() = Some(before);
        // A panic ends the process before anything is dropped.
        HOOK.call_once(|| {
            let next = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                restore();
                next(info);
            }));
        });
        // From here on there is something to restore.
        let raw = Self(());
        tcsetattr(stdio::stdin(), OptionalActions::Now, &modes)?;
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(before) = lock().take() {
        // A terminal that has gone needs it no more.
        let _ = tcsetattr(stdio::stdin(), OptionalActions::Now, &before);
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<Termios>> {
    // It is there or not, whatever happened to who held it.
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}
