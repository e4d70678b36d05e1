//! What the host sends to a running program.

use super::leash::Leash;
use futures::FutureExt;
use pyro_protocol::process::{STDIN_WINDOW, Signal};
use pyro_protocol::{Frame, FrameKind, FrameReader, Lost};
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadHalf, SimplexStream, WriteHalf};
use tokio::net::unix::pipe;
use tokio::sync::Notify;

/// The largest signal that Linux knows.
const SIGNAL_MAX: u8 = 64;

/// The host is told once this much was taken: a byte at a time does not cost a
/// frame each.
const TAKEN_STEP: usize = STDIN_WINDOW / 4;

/// Reads the host's frames; never waits for the program.
pub(super) struct Intake {
    buffer: Option<WriteHalf<SimplexStream>>,
    window: Arc<Window>,
}

/// Hands the program its input, as fast as it reads.
pub(super) struct Feed {
    buffer: ReadHalf<SimplexStream>,
    stdin: Option<pipe::Sender>,
    window: Arc<Window>,
}

/// How much the program has taken and the host not been told.
pub(super) struct Taken(Arc<Window>);

#[derive(Default)]
struct Window {
    /// Sent by the host and not acknowledged to it.
    outstanding: AtomicUsize,
    /// Taken, and not yet acknowledged.
    taken: AtomicUsize,
    step: Notify,
}

/// The two ends of the input's buffer. Without a pipe, input is not expected.
pub(super) fn channel(stdin: Option<pipe::Sender>) -> (Intake, Feed) {
    let (reader, writer) = tokio::io::simplex(STDIN_WINDOW);
    let window = Arc::new(Window::default());
    let buffer = stdin.is_some().then_some(writer);
    (Intake { buffer, window: window.clone() }, Feed { buffer: reader, stdin, window })
}

impl Intake {
    /// Reads frames until the connection ends or the host breaks the protocol.
    pub(super) async fn forward<R>(
        &mut self,
        reader: &mut FrameReader<R>,
        leash: &Leash<'_>,
    ) -> Lost
    where
        R: AsyncRead + Unpin,
    {
        loop {
            let taken = match reader.next().await {
                Ok(frame) => self.take(&frame, leash).await,
                Err(lost) => return lost,
            };
            if let Err(lost) = taken {
                return lost;
            }
        }
    }

    async fn take(&mut self, frame: &Frame, leash: &Leash<'_>) -> Result<(), Lost> {
        let out_of_place = |wanted| Lost::OutOfPlace { got: frame.kind, wanted };
        match (frame.kind, &mut self.buffer) {
            (FrameKind::Stdin, Some(buffer)) => {
                let length = frame.payload.len();
                let before = self.window.outstanding.fetch_add(length, Ordering::Relaxed);
                if before + length > STDIN_WINDOW {
                    return Err(out_of_place("nothing beyond the window"));
                }
                // Within the window it fits, and does not wait.
                buffer.write_all(&frame.payload).await.map_err(Lost::Io)
            }
            (FrameKind::StdinEnd, Some(buffer)) => {
                // The end of file, after what is still in the buffer.
                let ended = buffer.shutdown().await;
                self.buffer = None;
                ended.map_err(Lost::Io)
            }
            (FrameKind::Signal, _) => match frame.decode(FrameKind::Signal)? {
                Signal { number: number @ 1..=SIGNAL_MAX } => {
                    leash.signal(number);
                    Ok(())
                }
                Signal { .. } => Err(out_of_place("a signal from 1 to 64")),
            },
            (FrameKind::Stdin | FrameKind::StdinEnd, None) => Err(out_of_place("no more input")),
            (
                FrameKind::Hello
                | FrameKind::Welcome
                | FrameKind::Call
                | FrameKind::Reply
                | FrameKind::Error
                | FrameKind::Announcement
                | FrameKind::Stdout
                | FrameKind::Stderr
                | FrameKind::Exit
                | FrameKind::StdinTaken
                | FrameKind::Data
                | FrameKind::DataEnd
                | FrameKind::Skipped,
                _,
            ) => Err(out_of_place("Stdin, StdinEnd or Signal")),
        }
    }
}

impl Feed {
    /// What to tell the host.
    pub(super) fn taken(&self) -> Taken {
        Taken(self.window.clone())
    }

    /// Writes until the input ends; then, or once the program reads no more,
    /// the pipe is closed and the rest counts as taken.
    pub(super) async fn run(mut self) -> Infallible {
        let mut chunk = vec![0; if self.stdin.is_some() { STDIN_WINDOW } else { 0 }];
        while let Ok(first @ 1..) = self.buffer.read(&mut chunk).await {
            // What else has arrived goes along: each write makes the program
            // run, and on one processor that is dear (see `GULP` in output.rs).
            tokio::task::yield_now().await;
            let rest = chunk.get_mut(first..).unwrap_or_default();
            let more = self.buffer.read(rest).now_or_never();
            let length = first + more.and_then(Result::ok).unwrap_or_default();
            let bytes = chunk.get(..length).unwrap_or_default();
            if let Some(stdin) = &mut self.stdin
                && stdin.write_all(bytes).await.is_err()
            {
                // It closed its end, early or not.
                self.stdin = None;
            }
            self.window.take(length);
        }
        drop(self.stdin);
        pending().await
    }
}

impl Window {
    fn take(&self, length: usize) {
        if self.taken.fetch_add(length, Ordering::Relaxed) + length >= TAKEN_STEP {
            self.step.notify_one();
        }
    }
}

impl Taken {
    /// The next number of bytes to acknowledge.
    pub(super) async fn step(&self) -> u32 {
        loop {
            self.0.step.notified().await;
            let taken = self.0.taken.swap(0, Ordering::Relaxed);
            self.0.outstanding.fetch_sub(taken, Ordering::Relaxed);
            if taken > 0 {
                return u32::try_from(taken).unwrap_or(u32::MAX);
            }
        }
    }
}
