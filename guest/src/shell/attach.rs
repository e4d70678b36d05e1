//! A connection joined to a terminal: its screen one way, its keyboard the
//! other.
//!
//! ```text
//! connection ──frames──▶ intake ──(at most STDIN_WINDOW)──▶ typist ──▶ terminal
//!                          └── Signal, Resize ─────────────────────────▶ │
//! connection ◀──frames── screen ◀── transcript ◀─────────────────────────┘
//! ```
//!
//! Three futures of one task. None waits for another: a shell that does not read
//! delays neither signals nor the closing, and a host that does not take output
//! delays nobody but itself: it misses some, and is told so.

use super::entry::Entry;
use super::reading;
use crate::process::leash::SIGNAL_MAX;
use crate::server::Connection;
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::channel::STREAM_UNIT;
use pyro_protocol::frame::HEADER_LEN;
use pyro_protocol::kept::{OutputStream, Skipped};
use pyro_protocol::process::{STDIN_WINDOW, Signal, StdinTaken};
use pyro_protocol::shell::{AttachShell, ShellAttached, ShellOpened, ShellState, TerminalSize};
use pyro_protocol::{FrameKind, FrameReader, FrameWriter, Lost};
use std::future::pending;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// How much goes into one frame: with its header, what travels together.
const CHUNK: usize = STREAM_UNIT - HEADER_LEN;

/// A connection that is joined to a shell from its opening on, and takes it along
/// when it ends.
pub(super) async fn join<R: Fetch, W: Carry>(
    entry: &Entry,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let joint = Joint(entry);
    connection.reply(Ok(ShellOpened { shell: entry.describe() })).await?;
    converse(entry, 0, Some(&joint), connection).await
}

/// What ties a shell to a connection: it waits for it, and is closed with it.
struct Joint<'entry>(&'entry Entry);

impl Drop for Joint<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// From the reply on, until the host hangs up or the shell has ended.
pub(super) async fn serve<R: Fetch, W: Carry>(
    entry: &Entry,
    call: AttachShell,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let AttachShell { id: _, cursor, size } = call;
    let is_running = entry.status().state.is_running();
    // One that has ended is shown, in whatever size it had.
    let sized = size.filter(|_| is_running).map_or(Ok(()), |size| entry.resize(size));
    if let Err(error) = reading::check(entry, cursor).and(sized) {
        return connection.reply::<ShellAttached>(Err(error)).await;
    }
    connection.reply(Ok(ShellAttached { shell: entry.describe() })).await?;
    converse(entry, cursor, None, connection).await
}

async fn converse<R: Fetch, W: Carry>(
    entry: &Entry,
    cursor: u64,
    joint: Option<&Joint<'_>>,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let keys = Keys::default();
    let Connection { reader, writer, .. } = connection;
    tokio::select! {
        // The screen first: a host that closes once it has the end of it
        // detaches from nothing.
        biased;
        shown = screen(entry, cursor, joint, &keys, writer) => shown,
        left = intake(entry, &keys, reader) => left,
        () = typist(entry, &keys) => pending().await,
    }
}

/// Sends what comes out, until the shell has ended and all of it is sent.
async fn screen<W: Carry>(
    entry: &Entry,
    mut cursor: u64,
    joint: Option<&Joint<'_>>,
    keys: &Keys,
    writer: &mut FrameWriter<W>,
) -> Result<(), Lost> {
    let mut status = entry.watch();
    loop {
        // In any case: what comes out may never end.
        if let Some(bytes) = keys.taken() {
            writer.send(FrameKind::StdinTaken, &StdinTaken { bytes }).await?;
        }
        // Before reading, so that no change after it is missed.
        let state = status.borrow_and_update().state;
        let slice = entry.read(cursor, CHUNK);
        let bytes = slice.start.saturating_sub(cursor);
        if bytes > 0 {
            let skipped = Skipped { stream: OutputStream::Stdout, bytes };
            writer.send(FrameKind::Skipped, &skipped).await?;
        }
        cursor = slice.next_cursor();
        if !slice.data.0.is_empty() {
            writer.send_raw(FrameKind::Stdout, &slice.data.0).await?;
            if let Some(Joint(entry)) = joint {
                entry.took(cursor);
            }
        }
        if cursor < slice.end {
            continue;
        }
        if let ShellState::Ended { exit, .. } = state {
            return writer.send(FrameKind::Exit, &exit).await;
        }
        tokio::select! {
            // The entry, and so the sender, outlives this.
            _ = status.changed() => {}
            () = keys.gone.notified() => {}
        }
    }
}

/// Reads the host's frames, until it hangs up: that is how one detaches.
async fn intake<R: Fetch>(
    entry: &Entry,
    keys: &Keys,
    reader: &mut FrameReader<R>,
) -> Result<(), Lost> {
    loop {
        let frame = match reader.next().await {
            Ok(frame) => frame,
            Err(Lost::Closed) => return Ok(()),
            Err(lost) => return Err(lost),
        };
        let out_of_place = |wanted| Lost::OutOfPlace { got: frame.kind, wanted };
        match frame.kind {
            FrameKind::Stdin => keys
                .press(&frame.payload)
                .ok_or_else(|| out_of_place("nothing beyond the window"))?,
            FrameKind::Signal => match frame.decode(FrameKind::Signal)? {
                // One that has just ended needs none.
                Signal { number: number @ 1..=SIGNAL_MAX } => drop(entry.signal(number)),
                Signal { .. } => return Err(out_of_place("a signal from 1 to 64")),
            },
            FrameKind::Resize => {
                let size: TerminalSize = frame.decode(FrameKind::Resize)?;
                if !size.is_possible() {
                    return Err(out_of_place("a possible size"));
                }
                // Nor has it a size.
                drop(entry.resize(size));
            }
            FrameKind::Hello
            | FrameKind::Welcome
            | FrameKind::Call
            | FrameKind::Reply
            | FrameKind::Error
            | FrameKind::Announcement
            | FrameKind::StdinEnd
            | FrameKind::Stdout
            | FrameKind::Stderr
            | FrameKind::Exit
            | FrameKind::StdinTaken
            | FrameKind::Data
            | FrameKind::DataEnd
            | FrameKind::Skipped => return Err(out_of_place("Stdin, Signal or Resize")),
        }
    }
}

/// Types what was pressed, as fast as the shell reads; returns once it has
/// ended.
async fn typist(entry: &Entry, keys: &Keys) {
    let Ok(terminal) = entry.terminal() else { return };
    let mut status = entry.watch();
    loop {
        let pressed = keys.pressed().await;
        // Others may type at the same time, but not in between.
        let _typing = entry.typing.lock().await;
        let mut rest = pressed.as_slice();
        while !rest.is_empty() {
            let written = tokio::select! {
                written = terminal.write(rest) => written,
                _ = status.wait_for(|status| !status.state.is_running()) => return,
            };
            let Ok(written) = written else { return };
            keys.take(written);
            rest = rest.get(written..).unwrap_or_default();
        }
    }
}

/// What was pressed and not yet typed: never more than [`STDIN_WINDOW`].
#[derive(Default)]
struct Keys {
    state: Mutex<Pressed>,
    come: Notify,
    gone: Notify,
}

#[derive(Default)]
struct Pressed {
    waiting: Vec<u8>,
    /// Sent by the host and not acknowledged to it.
    outstanding: usize,
    /// Typed, and not yet acknowledged.
    typed: usize,
}

impl Keys {
    /// `None` if the host was not allowed as much.
    fn press(&self, bytes: &[u8]) -> Option<()> {
        let mut state = self.state();
        state.outstanding += bytes.len();
        if state.outstanding > STDIN_WINDOW {
            return None;
        }
        state.waiting.extend_from_slice(bytes);
        self.come.notify_one();
        Some(())
    }

    /// Waits for some.
    async fn pressed(&self) -> Vec<u8> {
        loop {
            let pressed = std::mem::take(&mut self.state().waiting);
            if !pressed.is_empty() {
                return pressed;
            }
            self.come.notified().await;
        }
    }

    fn take(&self, bytes: usize) {
        self.state().typed += bytes;
        self.gone.notify_one();
    }

    /// How many bytes are to be acknowledged, if some are.
    fn taken(&self) -> Option<u32> {
        let mut state = self.state();
        let typed = std::mem::take(&mut state.typed);
        state.outstanding = state.outstanding.saturating_sub(typed);
        (typed > 0).then(|| u32::try_from(typed).unwrap_or(u32::MAX))
    }

    /// Nobody panics with it.
    fn state(&self) -> MutexGuard<'_, Pressed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
