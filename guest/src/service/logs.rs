//! What a service wrote, to whoever asks.

use super::entry::Entry;
use super::journal::{Batch, Journal, Position};
use crate::guest::Guest;
use crate::process::kept::spool::Unreadable;
use crate::server::Connection;
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::kept::{OutputStream, Skipped};
use pyro_protocol::service::{LogChunk, ServiceLogging, ServiceLogs};
use pyro_protocol::{AgentError, AgentErrorKind, ByteString, FrameKind, FrameWriter, Lost};
use std::pin::pin;
use std::sync::Arc;

/// Lines of each stream that are passed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Lines {
    stdout: u64,
    stderr: u64,
}

/// What of a log is to be sent.
struct Plan {
    from: Position,
    over: Lines,
    /// Where the log ended when it was asked for.
    end: Position,
    truncated: bool,
}

impl Lines {
    fn of(&mut self, stream: OutputStream) -> &mut u64 {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    /// What of a chunk comes after the lines to pass over.
    fn after(&mut self, stream: OutputStream, mut data: Vec<u8>) -> Vec<u8> {
        let left = self.of(stream);
        if *left == 0 {
            return data;
        }
        for (at, _) in data.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            *left -= 1;
            if *left == 0 {
                return data.split_off(at + 1);
            }
        }
        Vec::new()
    }
}

/// Answers `ServiceLogs` about a service.
pub(super) async fn send<R: Fetch, W: Carry>(
    guest: &Arc<Guest>,
    entry: &Arc<Entry>,
    call: ServiceLogs,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let tail_lines = call.tail_lines;
    let planned = on_journal(guest, entry, move |journal| plan(journal, tail_lines)).await;
    let Plan { from, mut over, end, truncated } = match planned {
        Ok(plan) => plan,
        Err(error) => return connection.reply::<ServiceLogging>(Err(error)).await,
    };
    let service = entry.describe();
    connection.reply(Ok(ServiceLogging { service, truncated })).await?;
    let Connection { reader, writer, .. } = connection;
    let mut hung_up = pin!(reader.next());
    let mut status = entry.watch();
    let mut place = from;
    loop {
        // Before reading, so that no change after it is missed.
        let now = *status.borrow_and_update();
        let batch = match on_journal(guest, entry, move |journal| journal.read(place)).await {
            Ok(batch) => batch,
            Err(error) => return writer.send(FrameKind::Error, &error).await,
        };
        place = batch.next;
        let is_behind = !batch.chunks.is_empty();
        pass_on(writer, batch, &mut over).await?;
        let is_enough = !call.follow && place.at >= end.at;
        if is_enough || (!is_behind && (!call.follow || now.state.is_over())) {
            return writer.send(FrameKind::DataEnd, &entry.describe()).await;
        }
        if is_behind {
            continue;
        }
        tokio::select! {
            // The entry, and so the sender, outlives this.
            _ = status.changed() => {}
            frame = &mut hung_up => {
                let got = frame?.kind;
                return Err(Lost::OutOfPlace { got, wanted: "nothing" });
            }
        }
    }
}

async fn pass_on<W: Carry>(
    writer: &mut FrameWriter<W>,
    batch: Batch,
    over: &mut Lines,
) -> Result<(), Lost> {
    for (stream, bytes) in batch.skipped {
        if bytes > 0 {
            writer.send(FrameKind::Skipped, &Skipped { stream, bytes }).await?;
            // Which lines these were nobody knows: rather too many than too few.
            *over.of(stream) = 0;
        }
    }
    for LogChunk { stream, at_ns, data } in batch.chunks {
        let data = over.after(stream, data.0);
        if !data.is_empty() {
            let chunk = LogChunk { stream, at_ns, data: ByteString(data) };
            writer.send(FrameKind::Data, &chunk).await?;
        }
    }
    Ok(())
}

/// Blocks. Reads all there is to count its lines, if some are to be left out.
fn plan(journal: &Journal, tail_lines: Option<u32>) -> Result<Plan, Unreadable> {
    let (from, end) = journal.extent();
    let was_more = from != Position::default();
    let Some(tail) = tail_lines else {
        return Ok(Plan { from, over: Lines::default(), end, truncated: was_more });
    };
    let mut lines = Lines::default();
    let mut is_open = [(OutputStream::Stdout, false), (OutputStream::Stderr, false)];
    let mut place = from;
    while place.at < end.at {
        let batch = journal.read(place)?;
        for LogChunk { stream, data, .. } in &batch.chunks {
            *lines.of(*stream) += data.0.iter().filter(|byte| **byte == b'\n').count() as u64;
            for (of, is_open) in &mut is_open {
                if of == stream {
                    *is_open = data.0.last().is_some_and(|byte| *byte != b'\n');
                }
            }
        }
        if batch.chunks.is_empty() {
            break;
        }
        place = batch.next;
    }
    for (stream, is_open) in is_open {
        let all = lines.of(stream);
        *all = (*all + u64::from(is_open)).saturating_sub(tail.into());
    }
    let truncated = was_more || lines != Lines::default();
    Ok(Plan { from, over: lines, end, truncated })
}

async fn on_journal<T: Send + 'static>(
    guest: &Arc<Guest>,
    entry: &Arc<Entry>,
    job: impl FnOnce(&Journal) -> Result<T, Unreadable> + Send + 'static,
) -> Result<T, AgentError> {
    let journal = entry.journal.clone();
    let done = guest.kept.block_on(move || job(&journal)).await;
    done.map_err(Unreadable::File).flatten().map_err(|error| {
        let text = format!("the log of service {}: {error}", entry.spec.name);
        AgentError::new(AgentErrorKind::System, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_passed_over_wherever_chunks_are_cut() {
        let text = b"one\ntwo\nthree\nfour";
        for cut in 0..text.len() {
            let mut over = Lines { stdout: 2, stderr: 0 };
            let (head, tail) = text.split_at(cut);
            let mut rest = over.after(OutputStream::Stdout, head.to_vec());
            rest.extend(over.after(OutputStream::Stdout, tail.to_vec()));
            assert_eq!(rest, b"three\nfour", "cut at {cut}");
            assert_eq!(over.after(OutputStream::Stderr, b"x".to_vec()), b"x");
        }
    }
}
