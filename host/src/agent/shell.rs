//! Shells in the guest.

use super::kept::{broken, check};
use super::{AgentClient, Channel, Connection, lost, refused};
use crate::error::{Error, ErrorKind, Result};
use pyro_protocol::frame::STREAM_CHUNK;
use pyro_protocol::kept::Skipped;
use pyro_protocol::process::{Exit, STDIN_WINDOW, Signal, StdinTaken};
use pyro_protocol::shell::{
    AttachShell, CloseShell, ListShells, OpenShell, ReadShell, ResizeShell, Shell, ShellId,
    ShellRead, ShellWritten, SignalShell, TerminalSize, WriteShell,
};
use pyro_protocol::{FrameKind, FrameReader, FrameWriter, Lost};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};

/// How long the agent may take to close a shell: it waits for what it hangs up.
const CLOSING: Duration = Duration::from_secs(20);

/// What a terminal needs after a gap: an end of the sequence that may have been
/// cut, and of the last colours.
const AFRESH: &[u8] = b"\x18\x1b[m";

/// A connection that is joined to a shell's terminal.
pub struct Attached<S> {
    reader: FrameReader<ReadHalf<S>>,
    writer: FrameWriter<WriteHalf<S>>,
}

/// What one who sits at a terminal does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Presses keys.
    Type(Vec<u8>),
    /// Makes the window larger or smaller.
    Resize(TerminalSize),
    /// Signals the foreground job.
    Signal(u8),
}

impl AgentClient {
    /// Opens a shell. An error means that there is none.
    pub async fn open_shell(&self, call: OpenShell) -> Result<Shell> {
        Ok(self.call(call, self.deadlines.reply).await?.shell)
    }

    /// Opens a shell that is this connection's: it waits for whoever sits at it,
    /// and is closed when they leave.
    pub async fn join_shell(&self, call: OpenShell) -> Result<(ShellId, Attached<Channel>)> {
        let (connection, reply) = self.begin(OpenShell { joined: true, ..call }).await?;
        let Connection { reader, writer, .. } = connection;
        Ok((reply.shell.id, Attached { reader, writer }))
    }

    /// The shells there are.
    pub async fn shells(&self) -> Result<Vec<Shell>> {
        Ok(self.call(ListShells, self.deadlines.reply).await?.shells)
    }

    /// How a shell is and what came out of it, after waiting as the call says.
    pub async fn read_shell(&self, call: ReadShell) -> Result<ShellRead> {
        let patience = Duration::from_millis(call.wait_ms.into()) + self.deadlines.reply;
        let read = self.call(call, patience).await?;
        check(&read.output, call.cursor, call.max_bytes)?;
        of(call.id, &read.shell)?;
        Ok(read)
    }

    /// Types into a shell.
    pub async fn write_shell(&self, call: WriteShell) -> Result<ShellWritten> {
        let patience = Duration::from_millis(call.wait_ms.into()) + self.deadlines.reply;
        let (id, length) = (call.id, call.data.0.len());
        let written = self.call(call, patience).await?;
        of(id, &written.shell)?;
        match written.taken as usize <= length {
            true => Ok(written),
            false => Err(broken("took input that it was not given")),
        }
    }

    /// Signals the foreground job of a shell.
    pub async fn signal_shell(&self, id: ShellId, number: u8) -> Result<Shell> {
        let reply = self.call(SignalShell { id, number }, self.deadlines.reply).await?;
        of(id, &reply.shell).map(|()| reply.shell)
    }

    /// Gives a shell's terminal another size.
    pub async fn resize_shell(&self, id: ShellId, size: TerminalSize) -> Result<Shell> {
        let reply = self.call(ResizeShell { id, size }, self.deadlines.reply).await?;
        of(id, &reply.shell).map(|()| reply.shell)
    }

    /// Closes a shell; nothing of it is left.
    pub async fn close_shell(&self, id: ShellId) -> Result<Shell> {
        let reply = self.call(CloseShell { id }, self.deadlines.reply + CLOSING).await?;
        of(id, &reply.shell).map(|()| reply.shell)
    }

    /// Joins a connection to a shell's terminal.
    pub async fn attach_shell(&self, call: AttachShell) -> Result<Attached<Channel>> {
        let (connection, reply) = self.begin(call).await?;
        of(call.id, &reply.shell)?;
        let Connection { reader, writer, .. } = connection;
        Ok(Attached { reader, writer })
    }
}

/// The guest answers about what it was asked about.
fn of(id: ShellId, shell: &Shell) -> Result<()> {
    if shell.id == id { Ok(()) } else { Err(broken("replied about another shell")) }
}

impl<S: AsyncRead + AsyncWrite> Attached<S> {
    /// Passes acts in and what comes out to `show`, until the shell has ended or
    /// nobody acts any more; `None` then. What is typed waits for the shell to
    /// read it, all else does not. Dropping the future detaches.
    pub async fn sit<H: Future<Output = ()>>(
        mut self,
        mut acts: mpsc::Receiver<Act>,
        mut show: impl FnMut(Vec<u8>) -> H,
    ) -> Result<Option<Exit>> {
        let keyboard = Keyboard::new();
        let showing = async {
            loop {
                let frame = self.reader.next().await.map_err(lost)?;
                match frame.kind {
                    FrameKind::Stdout => show(frame.payload).await,
                    // The screen is behind, and gets the last that there is: more
                    // than fills it.
                    FrameKind::Skipped => {
                        let Skipped { .. } = frame.decode(FrameKind::Skipped).map_err(lost)?;
                        show(AFRESH.into()).await;
                    }
                    FrameKind::StdinTaken => {
                        keyboard.widen(frame.decode(FrameKind::StdinTaken).map_err(lost)?)?;
                    }
                    FrameKind::Exit => {
                        return frame.decode(FrameKind::Exit).map(Some).map_err(lost);
                    }
                    FrameKind::Error => {
                        let error = frame.decode(FrameKind::Error).map_err(lost)?;
                        let message = "the guest's agent gave up on the shell";
                        return Err(
                            Error::new(ErrorKind::Protocol, message).because(refused(error))
                        );
                    }
                    got @ (FrameKind::Hello
                    | FrameKind::Welcome
                    | FrameKind::Call
                    | FrameKind::Reply
                    | FrameKind::Announcement
                    | FrameKind::Stdin
                    | FrameKind::StdinEnd
                    | FrameKind::Stderr
                    | FrameKind::Signal
                    | FrameKind::Data
                    | FrameKind::DataEnd
                    | FrameKind::Resize) => {
                        return Err(lost(Lost::OutOfPlace { got, wanted: "output or an exit" }));
                    }
                }
            }
        };
        let acting = async {
            loop {
                let sent = tokio::select! {
                    act = acts.recv() => match act {
                        None => return,
                        Some(Act::Type(keys)) => {
                            keyboard.press(&keys);
                            Ok(())
                        }
                        Some(Act::Resize(size)) => self.writer.send(FrameKind::Resize, &size).await,
                        Some(Act::Signal(number)) => {
                            self.writer.send(FrameKind::Signal, &Signal { number }).await
                        }
                    },
                    keys = keyboard.pressed() => {
                        self.writer.send_raw(FrameKind::Stdin, &keys).await
                    }
                };
                if sent.is_err() {
                    // That the guest takes no more is the reader's to notice.
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            exit = showing => exit,
            () = acting => Ok(None),
        }
    }
}

/// Keys that were pressed and not sent, and how many may be: see
/// [`STDIN_WINDOW`]. Who types faster than a shell reads, types into the void.
struct Keyboard {
    state: Mutex<Pressed>,
    changed: Notify,
}

struct Pressed {
    waiting: VecDeque<u8>,
    room: usize,
}

/// What waits here for a shell that does not read; then keys are lost, as a
/// terminal's are.
const WAITING_MAX: usize = 1024 * 1024;

impl Keyboard {
    fn new() -> Self {
        let state = Pressed { waiting: VecDeque::new(), room: STDIN_WINDOW };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    fn press(&self, keys: &[u8]) {
        let mut state = self.state();
        let room = WAITING_MAX.saturating_sub(state.waiting.len());
        state.waiting.extend(&keys[..keys.len().min(room)]);
        self.changed.notify_one();
    }

    /// Waits for some that may be sent.
    async fn pressed(&self) -> Vec<u8> {
        loop {
            {
                let mut state = self.state();
                let length = state.waiting.len().min(state.room).min(STREAM_CHUNK);
                if length > 0 {
                    state.room -= length;
                    return state.waiting.drain(..length).collect();
                }
            }
            self.changed.notified().await;
        }
    }

    /// A guest that takes more than it was given breaks the protocol.
    fn widen(&self, taken: StdinTaken) -> Result<()> {
        let mut state = self.state();
        let room = state.room.saturating_add(taken.bytes as usize);
        if room > STDIN_WINDOW {
            return Err(broken("took input that it was not given"));
        }
        state.room = room;
        self.changed.notify_one();
        Ok(())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Pressed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
