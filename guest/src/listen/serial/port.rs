//! A virtio-serial port as a byte stream.
//!
//! The driver's poll says "readable" and "hung up" for as long as no host is
//! connected, and the runtime takes a hang-up for final: waiting for the port
//! directly would spin. So an epoll instance of our own watches it, edge by
//! edge, and the runtime watches that.

use crate::readiness::watch;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// One task reads and writes it: there is one waker for both directions.
pub(super) struct Port {
    port: OwnedFd,
    edges: AsyncFd<OwnedFd>,
    host: Host,
}

/// Whether a read of nothing is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    Present,
    /// Its going has been reported as an end of file.
    Gone,
}

impl Port {
    pub(super) fn open(node: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let port = rustix::fs::open(node, flags, Mode::empty())?;
        let edges = epoll::create(CreateFlags::CLOEXEC)?;
        let events = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        epoll::add(&edges, &port, EventData::new_u64(0), events)?;
        let edges = watch(edges, Interest::READABLE)?;
        Ok(Self { port, edges, host: Host::Present })
    }

    /// Waits for something to have happened to the port since the last time.
    fn poll_edge(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut guard = ready!(self.edges.poll_read_ready(cx))?;
        // Taken before the next attempt, so that an edge after it is not lost.
        let mut events = [MaybeUninit::uninit()];
        match epoll::wait(self.edges.get_ref(), &mut events, Some(&Default::default())) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Poll::Ready(Err(error.into())),
        }
        guard.clear_ready();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Port {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            // SAFETY: the kernel writes to it and nobody unwrites it.
            let room = unsafe { buffer.unfilled_mut() };
            let host = match rustix::io::read(&this.port, room) {
                Ok(([], _)) => Host::Gone,
                Ok((read, _)) => {
                    let length = read.len();
                    this.host = Host::Present;
                    // SAFETY: so many bytes were written, from the beginning.
                    unsafe { buffer.assume_init(length) };
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN) => Host::Present,
                Err(Errno::INTR) => continue,
                Err(error) => return Poll::Ready(Err(error.into())),
            };
            let before = std::mem::replace(&mut this.host, host);
            if (before, host) == (Host::Present, Host::Gone) {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_edge(cx))?;
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match rustix::io::write(&self.port, bytes) {
                Ok(length) => return Poll::Ready(Ok(length)),
                Err(Errno::AGAIN) => ready!(self.poll_edge(cx))?,
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A port has no end of its own to announce.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
