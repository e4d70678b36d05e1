//! What a kept process has written, to whoever asks and as often as they ask.

use super::entry::{Entry, Status};
use super::spool::Unreadable;
use super::{Kept, bounded};
use crate::room;
use crate::server::Connection;
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::channel::STREAM_UNIT;
use pyro_protocol::frame::{HEADER_LEN, STREAM_CHUNK};
use pyro_protocol::kept::{
    FollowEnd, FollowProcess, FollowingProcess, OutputStream, PollProcess, PollUntil,
    ProcessPolled, SLICE_MAX, Skipped, Slice,
};
use pyro_protocol::{AgentError, AgentErrorKind, FrameKind, FrameWriter, Lost};
use std::pin::pin;
use std::sync::Arc;
use tokio::time::timeout;

/// How much goes into one frame: with its header, what travels together.
const CHUNK: usize = STREAM_UNIT - HEADER_LEN;

/// How much is read at once for a follower, if there is room for it.
const GULP: usize = 16 * CHUNK;

const _: () = assert!(CHUNK <= STREAM_CHUNK);

/// Waits as the call says, and tells what there is.
pub(super) async fn poll(
    kept: &Kept,
    entry: &Arc<Entry>,
    call: PollProcess,
) -> Result<ProcessPolled, AgentError> {
    let PollProcess { id: _, stdout_cursor, stderr_cursor, max_bytes, wait_ms, until } = call;
    let now = entry.status();
    check(OutputStream::Stdout, stdout_cursor, now.stdout_end)?;
    check(OutputStream::Stderr, stderr_cursor, now.stderr_end)?;
    let settled = |status: &Status| match until {
        PollUntil::Output => {
            !status.is_running()
                || status.stdout_end > stdout_cursor
                || status.stderr_end > stderr_cursor
        }
        PollUntil::End => !status.is_running(),
    };
    let mut status = entry.watch();
    // In time or not, what is there is told.
    drop(timeout(bounded(wait_ms), status.wait_for(settled)).await);
    // The state first: once it has ended, nothing is added to the streams.
    let state = entry.status().state;
    let most = max_bytes.min(SLICE_MAX) as usize;
    let stdout = read(kept, entry, OutputStream::Stdout, stdout_cursor, most).await?;
    let stderr = read(kept, entry, OutputStream::Stderr, stderr_cursor, most).await?;
    Ok(ProcessPolled { state, stdout, stderr })
}

/// Sends all that is written until the end, as fast as the host takes it.
pub(super) async fn follow<R: Fetch, W: Carry>(
    kept: &Kept,
    entry: &Arc<Entry>,
    call: FollowProcess,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let FollowProcess { id: _, stdout_cursor, stderr_cursor } = call;
    let now = entry.status();
    let checked = check(OutputStream::Stdout, stdout_cursor, now.stdout_end)
        .and_then(|()| check(OutputStream::Stderr, stderr_cursor, now.stderr_end));
    if let Err(error) = checked {
        return connection.reply::<FollowingProcess>(Err(error)).await;
    }
    connection.reply(Ok(FollowingProcess)).await?;
    let Connection { reader, writer, .. } = connection;
    let mut hung_up = pin!(reader.next());
    let mut status = entry.watch();
    let mut cursors =
        [(OutputStream::Stdout, stdout_cursor), (OutputStream::Stderr, stderr_cursor)];
    loop {
        // Before reading, so that no change after it is missed.
        let Status { state, .. } = *status.borrow_and_update();
        let mut is_behind = false;
        for (stream, cursor) in &mut cursors {
            let room = room::OUTPUT.try_take(GULP);
            let most = if room.is_some() { GULP } else { CHUNK };
            let slice = match read(kept, entry, *stream, *cursor, most).await {
                Ok(slice) => slice,
                Err(error) => return writer.send(FrameKind::Error, &error).await,
            };
            pass_on(writer, *stream, *cursor, &slice).await?;
            *cursor = slice.next_cursor();
            is_behind |= *cursor < slice.end;
        }
        if is_behind {
            continue;
        }
        if !(Status { state, ..now }).is_running() {
            return writer.send(FrameKind::DataEnd, &FollowEnd { state }).await;
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
    stream: OutputStream,
    cursor: u64,
    slice: &Slice,
) -> Result<(), Lost> {
    let bytes = slice.start.saturating_sub(cursor);
    if bytes > 0 {
        writer.send(FrameKind::Skipped, &Skipped { stream, bytes }).await?;
    }
    for piece in slice.data.0.chunks(CHUNK) {
        writer.send_raw(stream.frame_kind(), piece).await?;
    }
    Ok(())
}

async fn read(
    kept: &Kept,
    entry: &Arc<Entry>,
    stream: OutputStream,
    cursor: u64,
    most: usize,
) -> Result<Slice, AgentError> {
    let reader = entry.clone();
    let slice = kept.block_on(move || reader.read(stream, cursor, most)).await;
    let unreadable = match slice {
        Ok(Ok(slice)) => return Ok(slice),
        Ok(Err(unreadable)) => unreadable,
        Err(error) => Unreadable::File(error),
    };
    let kind = match unreadable {
        Unreadable::Beyond { .. } => AgentErrorKind::InvalidArgument,
        Unreadable::File(_) => AgentErrorKind::System,
    };
    Err(AgentError::new(kind, format!("{} of process {}: {unreadable}", name(stream), entry.id)))
}

/// Nobody waits for a byte whose predecessors are not there.
fn check(stream: OutputStream, cursor: u64, end: u64) -> Result<(), AgentError> {
    if cursor <= end {
        return Ok(());
    }
    let beyond = Unreadable::Beyond { cursor, end };
    let message = format!("{}: {beyond}", name(stream));
    Err(AgentError::new(AgentErrorKind::InvalidArgument, message))
}

fn name(stream: OutputStream) -> &'static str {
    match stream {
        OutputStream::Stdout => "stdout",
        OutputStream::Stderr => "stderr",
    }
}
