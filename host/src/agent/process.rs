//! A program in the guest, on the connection that started it.

use super::{AgentClient, Channel, Connection, lost};
use crate::error::{Error, ErrorKind, Result};
use pyro_protocol::frame::STREAM_CHUNK;
use pyro_protocol::process::{Exit, STDIN_WINDOW, Signal, StartProcess, StdinTaken};
use pyro_protocol::{FrameKind, FrameReader, FrameWriter, Lost};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

/// What flows into a program.
pub type Stdin = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// A program that has started.
pub struct Running<S> {
    reader: FrameReader<ReadHalf<S>>,
    writer: FrameWriter<WriteHalf<S>>,
}

/// What a program says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// On file descriptor 1.
    Stdout(Vec<u8>),
    /// On file descriptor 2.
    Stderr(Vec<u8>),
}

impl AgentClient {
    /// Starts a program. An error means that it never ran.
    pub async fn start(&self, request: StartProcess) -> Result<Running<Channel>> {
        let mut connection = self.connect_with(request).await?;
        connection.reply::<StartProcess>().await?;
        let Connection { reader, writer, .. } = connection;
        Ok(Running { reader, writer })
    }
}

impl<S: AsyncRead + AsyncWrite> Running<S> {
    /// Carries input and signals in, hands output to `hear`, and waits for the
    /// end. While `hear` waits, so does the guest. The guest may make us wait
    /// for `patience` in all; the time that `hear` takes does not count. Dropping the future kills
    /// everything the program started.
    pub async fn finish<H: Future<Output = ()>>(
        mut self,
        stdin: Option<Stdin>,
        signals: &mut mpsc::Receiver<u8>,
        patience: Option<Duration>,
        mut hear: impl FnMut(Said) -> H,
    ) -> Result<Exit> {
        let window = Window::new();
        let mut waited = Duration::ZERO;
        let reading = async {
            loop {
                let asked = Instant::now();
                let next = self.reader.next();
                let frame = match patience {
                    None => next.await,
                    Some(patience) => {
                        let left = patience.saturating_sub(waited);
                        timeout(left, next).await.map_err(|_| overdue())?
                    }
                };
                waited += asked.elapsed();
                let frame = frame.map_err(lost)?;
                match frame.kind {
                    FrameKind::StdinTaken => {
                        let taken: StdinTaken =
                            frame.decode(FrameKind::StdinTaken).map_err(lost)?;
                        window.widen(taken)?;
                    }
                    FrameKind::Stdout => hear(Said::Stdout(frame.payload)).await,
                    FrameKind::Stderr => hear(Said::Stderr(frame.payload)).await,
                    FrameKind::Exit => return frame.decode(FrameKind::Exit).map_err(lost),
                    FrameKind::Error => {
                        let error = frame.decode(FrameKind::Error).map_err(lost)?;
                        // Whatever kind it claims to be: the program did run.
                        let message = "the guest's agent gave up on the program";
                        return Err(
                            Error::new(ErrorKind::Protocol, message).because(super::refused(error))
                        );
                    }
                    got @ (FrameKind::Hello
                    | FrameKind::Welcome
                    | FrameKind::Call
                    | FrameKind::Reply
                    | FrameKind::Announcement
                    | FrameKind::Stdin
                    | FrameKind::StdinEnd
                    | FrameKind::Signal
                    | FrameKind::Data
                    | FrameKind::DataEnd
                    | FrameKind::Skipped
                    | FrameKind::Resize) => {
                        return Err(lost(Lost::OutOfPlace { got, wanted: "output or an exit" }));
                    }
                }
            }
        };
        tokio::select! {
            exit = reading => exit,
            error = feed(&mut self.writer, stdin, signals, &window) => Err(error),
        }
    }
}

fn overdue() -> Error {
    Error::new(ErrorKind::TimedOut, "the guest did not end the program when its time was over")
}

/// Carries input and signals into the guest; returns only when the caller's
/// input fails. That the guest takes no more is the reader's to notice.
async fn feed<W: AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    mut stdin: Option<Stdin>,
    signals: &mut mpsc::Receiver<u8>,
    window: &Window,
) -> Error {
    let mut buffer = vec![0; if stdin.is_some() { STREAM_CHUNK } else { 0 }];
    loop {
        let sent = tokio::select! {
            Some(number) = signals.recv() => writer.send(FrameKind::Signal, &Signal { number }).await,
            read = read_from(&mut stdin, &mut buffer, window) => match read {
                Ok(0) => {
                    stdin = None;
                    writer.send_raw(FrameKind::StdinEnd, &[]).await
                }
                Ok(length) => writer.send_raw(FrameKind::Stdin, &buffer[..length]).await,
                Err(error) => {
                    return Error::new(ErrorKind::Io, "cannot read standard input").because(error);
                }
            },
        };
        if sent.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Reads once, as much as the guest will take; never returns when there is
/// nothing to read from.
async fn read_from(
    stdin: &mut Option<Stdin>,
    buffer: &mut [u8],
    window: &Window,
) -> std::io::Result<usize> {
    let Some(stdin) = stdin else { return std::future::pending().await };
    let room = window.room().await.min(buffer.len());
    let length = stdin.read(&mut buffer[..room]).await?;
    window.narrow(length);
    Ok(length)
}

/// How much input the guest will still take: see [`STDIN_WINDOW`].
struct Window {
    room: AtomicUsize,
    widened: Notify,
}

impl Window {
    fn new() -> Self {
        Self { room: AtomicUsize::new(STDIN_WINDOW), widened: Notify::new() }
    }

    /// Waits until there is any.
    async fn room(&self) -> usize {
        loop {
            match self.room.load(Ordering::Relaxed) {
                // One task reads and the same task widens: no wake-up is lost.
                0 => self.widened.notified().await,
                room => return room,
            }
        }
    }

    fn narrow(&self, sent: usize) {
        self.room.fetch_sub(sent, Ordering::Relaxed);
    }

    /// A guest that takes more than it was given breaks the protocol.
    fn widen(&self, taken: StdinTaken) -> Result<()> {
        let room = self.room.load(Ordering::Relaxed) + taken.bytes as usize;
        if room > STDIN_WINDOW {
            return Err(Error::new(
                ErrorKind::Protocol,
                "the guest took input that it was not given",
            ));
        }
        self.room.store(room, Ordering::Relaxed);
        self.widened.notify_one();
        Ok(())
    }
}
