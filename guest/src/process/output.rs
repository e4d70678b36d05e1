//! What a program writes, on its way to the host.

use super::input::Taken;
use pyro_protocol::channel::STREAM_UNIT;
use pyro_protocol::frame::{HEADER_LEN, STREAM_CHUNK};
use pyro_protocol::process::StdinTaken;
use pyro_protocol::{FrameKind, FrameWriter, Lost};
use std::future::pending;
use std::io;
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// How long after the program's end its descendants, if they hold its pipes
/// open, may still write to them: what comes through `tee` comes a little late.
pub(super) const DRAIN_GRACE: Duration = Duration::from_millis(100);

/// How much goes into one frame: with its header, what travels together.
const CHUNK: usize = STREAM_UNIT - HEADER_LEN;

/// How much is read at once. A full pipe's writer runs again after each read,
/// and on one processor that is two changes of the running process, which are
/// dear where the processor is translated: so each should carry much.
const GULP: usize = 16 * CHUNK;

const _: () = assert!(CHUNK <= STREAM_CHUNK);

/// Our ends of both streams.
pub(super) struct Output {
    stdout: Stream,
    stderr: Stream,
    chunk: Vec<u8>,
}

struct Stream {
    kind: FrameKind,
    /// `None` after its end.
    pipe: Option<Receiver>,
}

/// What the forwarding waits for.
enum Event {
    Output(FrameKind, usize),
    /// One of the streams has.
    Ended,
    Taken(u32),
    Over,
}

impl Output {
    pub(super) fn new(stdout: Receiver, stderr: Receiver) -> Self {
        Self {
            stdout: Stream { kind: FrameKind::Stdout, pipe: Some(stdout) },
            stderr: Stream { kind: FrameKind::Stderr, pipe: Some(stderr) },
            chunk: vec![0; GULP],
        }
    }

    /// Sends what is written, no faster than the host takes it, until the
    /// program has `ended` and both streams too; descendants that hold them
    /// open are given [`DRAIN_GRACE`], and then what lies in the pipes at that
    /// moment is the last of it. So all that the program itself wrote arrives.
    pub(super) async fn forward<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut FrameWriter<W>,
        taken: &Taken,
        mut ended: oneshot::Receiver<()>,
    ) -> Result<(), Lost> {
        loop {
            let event = tokio::select! {
                event = self.next() => event.map_err(Lost::Io)?,
                bytes = taken.step() => Event::Taken(bytes),
                // An error would be the sender's drop: the end as well.
                _ = &mut ended => Event::Over,
            };
            match event {
                Event::Output(kind, length) => self.send(writer, kind, length).await?,
                Event::Ended => {}
                Event::Taken(bytes) => {
                    writer.send(FrameKind::StdinTaken, &StdinTaken { bytes }).await?;
                }
                Event::Over => break,
            }
        }
        let until = Instant::now() + DRAIN_GRACE;
        while self.stdout.pipe.is_some() || self.stderr.pipe.is_some() {
            match timeout_at(until, self.next()).await {
                Ok(Ok(Event::Output(kind, length))) => self.send(writer, kind, length).await?,
                Ok(Ok(Event::Ended | Event::Taken(_) | Event::Over)) => {}
                Ok(Err(error)) => return Err(Lost::Io(error)),
                Err(_) => break,
            }
        }
        for stream in [&self.stdout, &self.stderr] {
            stream.send_rest(writer, &mut self.chunk).await?;
        }
        Ok(())
    }

    /// Waits for output and reads it. Cancelled, it has read nothing.
    async fn next(&mut self) -> io::Result<Event> {
        let Self { stdout, stderr, chunk } = self;
        loop {
            let stream = tokio::select! {
                ready = stdout.readable() => { ready?; &mut *stdout }
                ready = stderr.readable() => { ready?; &mut *stderr }
            };
            match stream.pipe.as_ref().map(|pipe| pipe.try_read(chunk)) {
                Some(Ok(0)) => {
                    stream.pipe = None;
                    return Ok(Event::Ended);
                }
                Some(Ok(length)) => return Ok(Event::Output(stream.kind, length)),
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Some(Err(error)) => return Err(error),
                None => {}
            }
        }
    }

    async fn send<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut FrameWriter<W>,
        kind: FrameKind,
        length: usize,
    ) -> Result<(), Lost> {
        for piece in self.chunk.get(..length).unwrap_or_default().chunks(CHUNK) {
            writer.send_raw(kind, piece).await?;
        }
        Ok(())
    }
}

impl Stream {
    /// Never, once the stream has ended.
    async fn readable(&self) -> io::Result<()> {
        match &self.pipe {
            Some(pipe) => pipe.readable().await,
            None => pending().await,
        }
    }

    /// Sends what lies in the pipe now, and no more: whoever still writes to it
    /// could go on for ever. Reads the descriptor itself, for the runtime may
    /// not have heard yet that it is readable.
    async fn send_rest<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut FrameWriter<W>,
        chunk: &mut [u8],
    ) -> Result<(), Lost> {
        let Some(pipe) = &self.pipe else {
            return Ok(());
        };
        let present = rustix::io::ioctl_fionread(pipe).map_err(|error| Lost::Io(error.into()))?;
        let mut left = usize::try_from(present).unwrap_or(usize::MAX);
        while left > 0 {
            let wanted = left.min(CHUNK);
            let length = match rustix::io::read(pipe, chunk.get_mut(..wanted).unwrap_or_default()) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Ok(length) => length,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(Lost::Io(error.into())),
            };
            left = left.saturating_sub(length);
            writer.send_raw(self.kind, chunk.get(..length).unwrap_or_default()).await?;
        }
        Ok(())
    }
}
