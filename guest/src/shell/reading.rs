//! What came out of a terminal, to whoever asks and as often as they ask.

use super::bounded;
use super::entry::{Entry, Status};
use pyro_protocol::kept::SLICE_MAX;
use pyro_protocol::shell::{ReadShell, ReadUntil, ShellRead};
use pyro_protocol::{AgentError, AgentErrorKind};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Waits as the call says, and tells what there is.
pub(super) async fn read(entry: &Entry, call: ReadShell) -> Result<ShellRead, AgentError> {
    let ReadShell { id: _, cursor, max_bytes, wait_ms, until } = call;
    check(entry, cursor)?;
    let most = max_bytes.min(SLICE_MAX);
    let waiting = async {
        match until {
            ReadUntil::Output => {
                let news = |status: &Status| !status.state.is_running() || status.end > cursor;
                // The entry, and so the sender, outlives this.
                drop(entry.watch().wait_for(news).await);
                false
            }
            ReadUntil::Idle { ms: 0 } => false,
            ReadUntil::Idle { ms } => idle(entry, cursor, most, bounded(ms)).await,
        }
    };
    // In time or not, what is there is told.
    let idle = timeout(bounded(wait_ms), waiting).await.unwrap_or(false);
    // The state first: once it has ended, nothing is added to the output.
    let mut shell = entry.describe();
    let output = entry.read(cursor, most as usize);
    shell.output_bytes = output.end;
    Ok(ShellRead { shell, output, idle })
}

/// Waits until nothing has come out for so long, and says whether that came: the
/// end of the shell may come first, or as much as is wanted.
async fn idle(entry: &Entry, cursor: u64, most: u32, quiet: Duration) -> bool {
    let mut status = entry.watch();
    let mut seen = status.borrow_and_update().end;
    let mut until = Instant::now() + quiet;
    loop {
        let now = *status.borrow_and_update();
        if now.end != seen {
            seen = now.end;
            until = Instant::now() + quiet;
        }
        let there = now.end.saturating_sub(cursor.max(entry.oldest()));
        if !now.state.is_running() || there >= most.into() {
            return false;
        }
        if timeout_at(until, status.changed()).await.is_err() {
            return true;
        }
    }
}

/// Nobody waits for a byte whose predecessors are not there.
pub(super) fn check(entry: &Entry, cursor: u64) -> Result<(), AgentError> {
    let end = entry.status().end;
    if cursor <= end {
        return Ok(());
    }
    let message =
        format!("the cursor {cursor} is beyond byte {end}, the last of shell {}", entry.id);
    Err(AgentError::new(AgentErrorKind::InvalidArgument, message))
}
