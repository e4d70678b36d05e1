//! A program in the guest, on the connection that started it.

use super::{Connection, lost};
use crate::error::{Error, ErrorKind, Result};
use pyro_protocol::frame::STREAM_CHUNK;
use pyro_protocol::process::{Exit, Signal, StartProcess};
use pyro_protocol::{FrameKind, FrameReader, FrameWriter, Lost};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

/// What flows into a program.
pub type Stdin = Box<dyn AsyncRead + Send + Unpin>;

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

impl<S: AsyncRead + AsyncWrite> Connection<S> {
    /// Starts a program. An error means that it never ran.
    pub async fn start(mut self, request: StartProcess) -> Result<Running<S>> {
        self.call(request).await?;
        Ok(Running { reader: self.reader, writer: self.writer })
    }
}

impl<S: AsyncRead + AsyncWrite> Running<S> {
    /// Carries input and signals in, hands output to `hear`, and waits for the
    /// end. While `hear` waits, so does the guest. Dropping the future kills
    /// everything the program started.
    pub async fn finish<H: Future<Output = ()>>(
        mut self,
        stdin: Option<Stdin>,
        signals: &mut mpsc::Receiver<u8>,
        mut hear: impl FnMut(Said) -> H,
    ) -> Result<Exit> {
        let reading = async {
            loop {
                let frame = self.reader.next().await.map_err(lost)?;
                match frame.kind {
                    FrameKind::Stdout => hear(Said::Stdout(frame.payload)).await,
                    FrameKind::Stderr => hear(Said::Stderr(frame.payload)).await,
                    FrameKind::Exit => return frame.decode(FrameKind::Exit).map_err(lost),
                    FrameKind::Error => {
                        let error = frame.decode(FrameKind::Error).map_err(lost)?;
                        return Err(super::refused(error));
                    }
                    got @ (FrameKind::Hello
                    | FrameKind::Welcome
                    | FrameKind::Call
                    | FrameKind::Reply
                    | FrameKind::Announcement
                    | FrameKind::Stdin
                    | FrameKind::StdinEnd
                    | FrameKind::Signal) => {
                        return Err(lost(Lost::OutOfPlace { got, wanted: "output or an exit" }));
                    }
                }
            }
        };
        tokio::select! {
            exit = reading => exit,
            error = feed(&mut self.writer, stdin, signals) => Err(error),
        }
    }
}

/// Carries input and signals into the guest; returns only when the caller's
/// input fails. That the guest takes no more is the reader's to notice.
async fn feed<W: AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    mut stdin: Option<Stdin>,
    signals: &mut mpsc::Receiver<u8>,
) -> Error {
    let mut buffer = vec![0; if stdin.is_some() { STREAM_CHUNK } else { 0 }];
    loop {
        let sent = tokio::select! {
            Some(number) = signals.recv() => writer.send(FrameKind::Signal, &Signal { number }).await,
            read = read_from(&mut stdin, &mut buffer) => match read {
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

/// Reads once; never returns when there is nothing to read from.
async fn read_from(stdin: &mut Option<Stdin>, buffer: &mut [u8]) -> std::io::Result<usize> {
    match stdin {
        Some(stdin) => stdin.read(buffer).await,
        None => std::future::pending().await,
    }
}
