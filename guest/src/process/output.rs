//! What a program writes, on its way to the host.

use super::input::Taken;
use crate::room::{self, Share};
use pyro_protocol::carry::Carry;
use pyro_protocol::channel::STREAM_UNIT;
use pyro_protocol::frame::{HEADER_LEN, STREAM_CHUNK};
use pyro_protocol::io::FRAME_ROOM;
use pyro_protocol::process::StdinTaken;
use pyro_protocol::{FrameKind, FrameWriter, Lost};
use std::future::pending;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// How long after the program's end its descendants, if they hold its pipes
/// open, may still write to them: what comes through `tee` comes a little late.
pub(super) const DRAIN_GRACE: Duration = Duration::from_millis(100);

/// How much goes into one frame: with its header, what travels together.
const CHUNK: usize = STREAM_UNIT - HEADER_LEN;

/// How many frames' worth is read at once. A full pipe's writer runs again
/// after each read, and on one processor that is two changes of the running
/// process, which are dear where the processor is translated: so each should
/// carry much.
const GULP: usize = 16;

const _: () = assert!(CHUNK <= STREAM_CHUNK);

/// Our ends of both streams.
pub(super) struct Output {
    stdout: Stream,
    stderr: Stream,
}

struct Stream {
    kind: FrameKind,
    /// `None` after its end.
    pipe: Option<Receiver>,
}

/// What is read from a pipe at once.
struct Gulp {
    /// Each with [`FRAME_ROOM`] bytes and then a frame's payload.
    buffers: Vec<Vec<u8>>,
    /// Of more than one frame's worth.
    _room: Option<Share>,
}

/// What the forwarding waits for.
enum Event {
    Output(FrameKind, Gulp),
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
        }
    }

    /// Sends what is written, no faster than the host takes it, until the
    /// program has `ended` and both streams too; descendants that hold them
    /// open are given [`DRAIN_GRACE`], and then what lies in the pipes at that
    /// moment is the last of it. So all that the program itself wrote arrives.
    pub(super) async fn forward<W: Carry>(
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
                Event::Output(kind, gulp) => send(writer, kind, gulp).await?,
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
                Ok(Ok(Event::Output(kind, gulp))) => send(writer, kind, gulp).await?,
                Ok(Ok(Event::Ended | Event::Taken(_) | Event::Over)) => {}
                Ok(Err(error)) => return Err(Lost::Io(error)),
                Err(_) => break,
            }
        }
        for stream in [&self.stdout, &self.stderr] {
            stream.send_rest(writer).await?;
        }
        Ok(())
    }

    /// Waits for output and reads it. Cancelled, it has read nothing.
    async fn next(&mut self) -> io::Result<Event> {
        let Self { stdout, stderr } = self;
        loop {
            let stream = tokio::select! {
                ready = stdout.readable() => { ready?; &mut *stdout }
                ready = stderr.readable() => { ready?; &mut *stderr }
            };
            let Some(pipe) = &stream.pipe else { continue };
            match pipe.try_io(|| gulp(pipe.as_fd(), usize::MAX)) {
                Ok(gulp) if gulp.buffers.is_empty() => {
                    stream.pipe = None;
                    return Ok(Event::Ended);
                }
                Ok(gulp) => return Ok(Event::Output(stream.kind, gulp)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

async fn send<W: Carry>(
    writer: &mut FrameWriter<W>,
    kind: FrameKind,
    gulp: Gulp,
) -> Result<(), Lost> {
    for buffer in gulp.buffers {
        writer.send_buffer(kind, buffer).await?;
    }
    Ok(())
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
    async fn send_rest<W: Carry>(&self, writer: &mut FrameWriter<W>) -> Result<(), Lost> {
        let Some(pipe) = &self.pipe else {
            return Ok(());
        };
        let mut left = present(pipe.as_fd()).map_err(Lost::Io)?;
        while left > 0 {
            let gulp = match gulp(pipe.as_fd(), left) {
                Ok(gulp) if gulp.buffers.is_empty() => return Ok(()),
                Ok(gulp) => gulp,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Lost::Io(error)),
            };
            let length = gulp.buffers.iter().map(|buffer| buffer.len() - FRAME_ROOM).sum();
            left = left.saturating_sub(length);
            send(writer, self.kind, gulp).await?;
        }
        Ok(())
    }
}

fn present(pipe: BorrowedFd<'_>) -> io::Result<usize> {
    Ok(usize::try_from(rustix::io::ioctl_fionread(pipe)?).unwrap_or(usize::MAX))
}

/// Reads what lies in a pipe, at most `limit`, with room for the headers; none
/// at its end. As much memory as there are bytes, if there is room for it: a
/// program that says little costs little.
fn gulp(pipe: BorrowedFd<'_>, limit: usize) -> io::Result<Gulp> {
    // At the end there is nothing, and the read says so.
    let present = present(pipe)?.clamp(1, limit.min(GULP * CHUNK));
    let room = if present > CHUNK { room::OUTPUT.try_take(present) } else { None };
    let mut left = if room.is_some() { present } else { present.min(CHUNK) };
    let mut gulp = Vec::with_capacity(left.div_ceil(CHUNK));
    while left > 0 {
        let length = left.min(CHUNK);
        let mut buffer = Vec::with_capacity(FRAME_ROOM + length);
        buffer.resize(FRAME_ROOM, 0);
        gulp.push(buffer);
        left -= length;
    }
    let slices: Vec<libc::iovec> = gulp.iter_mut().map(spare).collect();
    let count = libc::c_int::try_from(slices.len()).unwrap_or(libc::c_int::MAX);
    let mut read = loop {
        // SAFETY: each slice is the spare room of a buffer that lives on.
        let read = unsafe { libc::readv(pipe.as_raw_fd(), slices.as_ptr(), count) };
        match usize::try_from(read) {
            Ok(read) => break read,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    };
    for (buffer, slice) in gulp.iter_mut().zip(&slices) {
        let length = read.min(slice.iov_len);
        // SAFETY: the kernel filled the slices in order, `read` bytes in all.
        unsafe { buffer.set_len(FRAME_ROOM + length) };
        read -= length;
    }
    gulp.retain(|buffer| buffer.len() > FRAME_ROOM);
    Ok(Gulp { buffers: gulp, _room: room })
}

fn spare(buffer: &mut Vec<u8>) -> libc::iovec {
    let spare = buffer.spare_capacity_mut();
    libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len().min(CHUNK) }
}
