//! Input for a kept process.

use super::bounded;
use super::entry::Entry;
use pyro_protocol::kept::{ProcessWritten, WriteProcess};
use pyro_protocol::{AgentError, AgentErrorKind};
use rustix::io::Errno;
use std::io;
use tokio::net::unix::pipe;
use tokio::time::{Instant, timeout_at};

/// One that writes; the end of the process finds the input taken, and so leaves
/// it to the writer to close it, also to one that gives up.
struct Writer<'entry>(&'entry Entry);

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if let (false, Ok(mut stdin)) = (self.0.status().is_running(), self.0.stdin.try_lock()) {
            *stdin = None;
        }
    }
}

/// Hands over as much as the process takes in time. Two callers at the same
/// time do not mix: the second waits for the first.
pub(super) async fn write(entry: &Entry, call: WriteProcess) -> Result<ProcessWritten, AgentError> {
    let WriteProcess { id, data, end, wait_ms } = call;
    let deadline = Instant::now() + bounded(wait_ms);
    // Dropped after the lock.
    let _writer = Writer(entry);
    let Ok(mut stdin) = timeout_at(deadline, entry.stdin.lock()).await else {
        return Ok(ProcessWritten { taken: 0, ended: false });
    };
    let Some(pipe) = stdin.as_ref() else {
        let message = match entry.status().is_running() {
            true => format!("process {id} has no input: it is closed, or was never open"),
            false => format!("process {id} has ended"),
        };
        return Err(AgentError::new(AgentErrorKind::Conflict, message));
    };
    let (taken, state) = hand_over(entry, pipe, &data.0, deadline).await;
    let all_taken = taken == data.0.len();
    let ended = match state {
        Taker::Reads => end && all_taken,
        Taker::ReadsNoMore => true,
    };
    if ended {
        *stdin = None;
    }
    if taken == 0 && !all_taken && ended {
        let message = format!("process {id} does not read its input any more");
        return Err(AgentError::new(AgentErrorKind::Conflict, message));
    }
    Ok(ProcessWritten { taken: u32::try_from(taken).unwrap_or(u32::MAX), ended })
}

/// Who is at the other end of an input.
enum Taker {
    Reads,
    ReadsNoMore,
}

async fn hand_over(
    entry: &Entry,
    pipe: &pipe::Sender,
    data: &[u8],
    deadline: Instant,
) -> (usize, Taker) {
    // The runtime may not have heard yet that there is room.
    let mut taken = match rustix::io::write(pipe, data) {
        Ok(taken) => taken,
        Err(Errno::AGAIN | Errno::INTR) => 0,
        Err(_) => return (0, Taker::ReadsNoMore),
    };
    let mut status = entry.watch();
    while let Some(rest @ [_, ..]) = data.get(taken..) {
        let room = async {
            tokio::select! {
                writable = pipe.writable() => writable,
                // What it left behind may read on, but not for us.
                _ = status.wait_for(|status| !status.is_running()) => {
                    Err(io::ErrorKind::BrokenPipe.into())
                }
            }
        };
        match timeout_at(deadline, room).await {
            Err(_) => break,
            Ok(Err(_)) => return (taken, Taker::ReadsNoMore),
            Ok(Ok(())) => match pipe.try_write(rest) {
                Ok(more) => taken += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return (taken, Taker::ReadsNoMore),
            },
        }
    }
    (taken, Taker::Reads)
}
