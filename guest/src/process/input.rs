//! What the host sends to a running program.

use super::leash::{Leash, SIGNAL_MAX};
use bytes::Bytes;
use pyro_protocol::carry::{Fetch, Pieces};
use pyro_protocol::process::{STDIN_WINDOW, Signal};
use pyro_protocol::{FrameKind, FrameReader, Lost};
use std::convert::Infallible;
use std::future::pending;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::unix::pipe;
use tokio::sync::Notify;

/// The host is told once this much was taken: a byte at a time does not cost a
/// frame each.
const TAKEN_STEP: usize = STDIN_WINDOW / 4;

/// Pieces that one write takes; as many as a window usually has, by far fewer
/// than the kernel allows.
const BATCH: usize = 64;

/// Reads the host's frames; never waits for the program.
pub(super) struct Intake {
    input: Expected,
    window: Arc<Window>,
}

/// Whether the host may send input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Input,
    Nothing,
}

/// Hands the program its input, as fast as it reads.
pub(super) struct Feed {
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
    /// Come and not yet taken: never more than [`STDIN_WINDOW`].
    pieces: Mutex<Pieces>,
    ended: AtomicBool,
    /// There are pieces, or the end.
    come: Notify,
}

/// The two ends of the input's buffer. Without a pipe, input is not expected.
pub(super) fn channel(stdin: Option<pipe::Sender>) -> (Intake, Feed) {
    let window = Arc::new(Window::default());
    let input = if stdin.is_some() { Expected::Input } else { Expected::Nothing };
    (Intake { input, window: window.clone() }, Feed { stdin, window })
}

impl Intake {
    /// Reads frames until the connection ends or the host breaks the protocol.
    pub(super) async fn forward<R>(
        &mut self,
        reader: &mut FrameReader<R>,
        leash: &Leash<'_>,
    ) -> Lost
    where
        R: Fetch,
    {
        loop {
            if let Err(lost) = self.take(reader, leash).await {
                return lost;
            }
        }
    }

    async fn take<R: Fetch>(
        &mut self,
        reader: &mut FrameReader<R>,
        leash: &Leash<'_>,
    ) -> Result<(), Lost> {
        let begun = reader.begin().await?;
        let out_of_place = |wanted| Lost::OutOfPlace { got: begun.kind, wanted };
        match (begun.kind, self.input) {
            (FrameKind::Stdin, Expected::Input) => {
                let before = self.window.outstanding.fetch_add(begun.length, Ordering::Relaxed);
                if before + begun.length > STDIN_WINDOW {
                    return Err(out_of_place("nothing beyond the window"));
                }
                let mut left = begun.length;
                while left > 0 {
                    let piece = reader.piece(left).await?;
                    left -= piece.len();
                    self.window.push(piece);
                }
                Ok(())
            }
            (FrameKind::StdinEnd, Expected::Input) => {
                self.input = Expected::Nothing;
                self.window.end();
                Ok(())
            }
            (FrameKind::Signal, _) => {
                match reader.finish(begun).await?.decode(FrameKind::Signal)? {
                    Signal { number: number @ 1..=SIGNAL_MAX } => {
                        leash.signal(number);
                        Ok(())
                    }
                    Signal { .. } => Err(out_of_place("a signal from 1 to 64")),
                }
            }
            (FrameKind::Stdin | FrameKind::StdinEnd, Expected::Nothing) => {
                Err(out_of_place("no more input"))
            }
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
                | FrameKind::Skipped
                | FrameKind::Resize,
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
        while self.window.some().await {
            // What else has arrived goes along: each write makes the program
            // run, and on one processor that is dear (see `GULP` in output.rs).
            tokio::task::yield_now().await;
            let batch = self.window.batch();
            let unwritten = match &self.stdin {
                Some(stdin) => self.write(stdin, &batch).await,
                None => batch.iter().map(Bytes::len).sum(),
            };
            if unwritten > 0 {
                // It closed its end, early or not.
                self.stdin = None;
                self.window.take(unwritten);
            }
        }
        drop(self.stdin);
        pending().await
    }

    /// Writes all of it, and says at once how much the program has taken. How
    /// much is left is how much it never will.
    async fn write(&self, stdin: &pipe::Sender, batch: &[Bytes]) -> usize {
        let mut left: usize = batch.iter().map(Bytes::len).sum();
        let mut slices: Vec<_> = batch.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut rest = slices.as_mut_slice();
        while left > 0 {
            match stdin.try_write_vectored(rest) {
                Ok(length) => {
                    IoSlice::advance_slices(&mut rest, length);
                    left -= length;
                    self.window.take(length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if stdin.writable().await.is_err() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        left
    }
}

impl Window {
    /// Nobody panics with it.
    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, piece: Bytes) {
        self.pieces().push(piece);
        self.come.notify_one();
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.come.notify_one();
    }

    /// Waits until there are pieces; false at the end of them.
    async fn some(&self) -> bool {
        loop {
            if !self.pieces().is_empty() {
                return true;
            }
            if self.ended.load(Ordering::Relaxed) {
                return false;
            }
            self.come.notified().await;
        }
    }

    /// Takes what has come, as much as one write takes.
    fn batch(&self) -> Vec<Bytes> {
        let mut pieces = self.pieces();
        std::iter::from_fn(|| pieces.take(usize::MAX)).take(BATCH).collect()
    }

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
