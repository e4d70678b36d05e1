//! What is typed into a terminal.

use super::entry::Entry;
use super::{bounded, has_ended};
use pyro_protocol::AgentError;
use pyro_protocol::shell::{ShellWritten, WriteShell};
use tokio::time::{Instant, timeout_at};

/// Types as much as the terminal takes in time: one whose programs do not read
/// takes some thousand bytes and then no more. Two callers at the same time do
/// not mix: the second waits for the first.
pub(super) async fn write(entry: &Entry, call: WriteShell) -> Result<ShellWritten, AgentError> {
    let WriteShell { id, data, wait_ms } = call;
    let deadline = Instant::now() + bounded(wait_ms);
    let terminal = entry.terminal()?;
    let mut taken = 0;
    if let Ok(_typing) = timeout_at(deadline, entry.typing.lock()).await {
        let mut status = entry.watch();
        while let Some(rest @ [_, ..]) = data.0.get(taken..) {
            let typing = async {
                tokio::select! {
                    // What can be taken is, also when there is no time to wait.
                    biased;
                    written = terminal.write(rest) => written.ok(),
                    _ = status.wait_for(|status| !status.state.is_running()) => None,
                }
            };
            match timeout_at(deadline, typing).await {
                Ok(Some(more)) => taken += more,
                Ok(None) => {
                    // The shell has ended.
                    if taken == 0 {
                        return Err(has_ended(id));
                    }
                    break;
                }
                Err(_) => break,
            }
        }
    }
    let taken = u32::try_from(taken).unwrap_or(u32::MAX);
    Ok(ShellWritten { shell: entry.describe(), taken })
}
