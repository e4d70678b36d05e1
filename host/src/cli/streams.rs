//! The three standard streams as raw bytes.

use futures::stream::poll_fn;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{FileType, fstat, major, minor};
use rustix::io::Errno;
use rustix::{process, stdio, termios};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::bytes::Bytes;
use tokio_util::io::StreamReader;

/// Writes all of it to standard output.
pub(super) fn write_stdout(bytes: &[u8]) -> io::Result<()> {
    write_all(stdio::stdout(), bytes)
}

/// Writes all of it to standard error.
pub(super) fn write_stderr(bytes: &[u8]) -> io::Result<()> {
    write_all(stdio::stderr(), bytes)
}

/// Unbuffered: a guest's first byte is to be seen at once. The descriptor may be
/// shared with a process that made it non-blocking.
fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(to, PollFlags::OUT)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn read(from: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(from, &mut *buffer) {
            Ok(count) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(from, PollFlags::IN)?,
            Err(error) => return Err(error.into()),
        }
    }
}

fn wait(descriptor: BorrowedFd<'_>, flags: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::from_borrowed_fd(descriptor, flags)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What is read from standard input at once.
const CHUNK: usize = 64 * 1024;

/// Chunks that wait for the guest; beyond them reading stops.
const CHUNKS_MAX: usize = 2;

/// Standard input, read by a thread of its own from the first time somebody
/// wants some of it. Nobody joins the thread: one that blocks in a read keeps
/// nobody from leaving.
pub(super) enum Stdin {
    Untouched,
    Open(Pin<Box<dyn AsyncRead + Send + Sync>>),
}

impl Stdin {
    /// Standard input for a guest's program. The null device counts as none: the
    /// guest has one of its own, and input that ends at once would take it
    /// milliseconds.
    pub(super) fn for_program() -> Option<Self> {
        if is_null(stdio::stdin()) { None } else { Self::open() }
    }

    /// Standard input, unless reading it would stop the process: a terminal
    /// feeds only its foreground.
    pub(super) fn open() -> Option<Self> {
        let stdin = stdio::stdin();
        let elsewhere = match termios::tcgetpgrp(stdin) {
            Ok(foreground) => foreground != process::getpgrp(),
            // Not a terminal, or not ours.
            Err(_) => false,
        };
        (!elsewhere).then_some(Self::Untouched)
    }
}

// <linux/major.h>, and the kernel's list of devices.
const NULL_DEVICE: (u32, u32) = (1, 3);

fn is_null(descriptor: BorrowedFd<'_>) -> bool {
    fstat(descriptor).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && (major(stat.st_rdev), minor(stat.st_rdev)) == NULL_DEVICE
    })
}

impl AsyncRead for Stdin {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this {
                Self::Untouched => *this = Self::Open(start_reading()?),
                Self::Open(reader) => return reader.as_mut().poll_read(context, buffer),
            }
        }
    }
}

fn start_reading() -> io::Result<Pin<Box<dyn AsyncRead + Send + Sync>>> {
    let (sender, mut receiver) = mpsc::channel(CHUNKS_MAX);
    std::thread::Builder::new().name("stdin".into()).spawn(move || read_all(&sender))?;
    Ok(Box::pin(StreamReader::new(poll_fn(move |context| receiver.poll_recv(context)))))
}

/// Until the end, an error, or nobody listens.
fn read_all(sender: &mpsc::Sender<io::Result<Bytes>>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let chunk = match read(stdio::stdin().as_fd(), &mut buffer) {
            Ok(0) => return,
            Ok(count) => Ok(Bytes::copy_from_slice(&buffer[..count])),
            Err(error) => Err(error),
        };
        let last = chunk.is_err();
        if sender.blocking_send(chunk).is_err() || last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn only_the_null_device_is_no_input() {
        let is_null = |path: &str| is_null(File::open(path).expect("every host has it").as_fd());
        assert!(is_null("/dev/null"));
        for other in ["/dev/zero", "/proc/self/stat", "/"] {
            assert!(!is_null(other), "{other}");
        }
    }
}
