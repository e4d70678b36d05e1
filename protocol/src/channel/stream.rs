//! One stream of a channel, whole or in its two directions.

use super::header::{HEADER_LEN, StreamId};
use super::table::Table;
use super::{STREAM_UNIT, Shared};
use crate::carry::{Carry, Fetch};
use bytes::Bytes;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What keeps a stream: once it is dropped, what was not finished is given up.
#[derive(Debug)]
pub(super) struct Hold {
    shared: Arc<Shared>,
    id: StreamId,
}

/// One stream of a channel; behaves like a connected vsock socket. Dropping it
/// resets it, but for what was shut down in good order.
#[derive(Debug)]
pub struct Stream {
    receiver: Receiver,
    sender: Sender,
}

/// The direction of a stream that comes in.
#[derive(Debug)]
pub struct Receiver(Arc<Hold>);

/// The direction of a stream that goes out.
#[derive(Debug)]
pub struct Sender(Arc<Hold>);

impl Hold {
    pub(super) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self { shared, id }
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table()
    }

    pub(super) fn id(&self) -> StreamId {
        self.id
    }

    pub(super) fn into_stream(self) -> Stream {
        let hold = Arc::new(self);
        Stream { receiver: Receiver(hold.clone()), sender: Sender(hold) }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.table().release(self.id);
    }
}

impl Stream {
    /// Both directions, each to be used by itself. Dropping one alone does
    /// nothing.
    #[must_use]
    pub fn into_split(self) -> (Receiver, Sender) {
        (self.receiver, self.sender)
    }
}

impl Fetch for Receiver {
    fn poll_fetch(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<io::Result<Bytes>> {
        self.0.table().poll_take(self.0.id, cx, limit)
    }
}

impl AsyncRead for Receiver {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0 {
            let piece = ready!(self.poll_fetch(cx, buffer.remaining()))?;
            buffer.put_slice(&piece);
        }
        Poll::Ready(Ok(()))
    }
}

impl Carry for Sender {
    fn poll_carry(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        _sent: &mut usize,
    ) -> Poll<io::Result<()>> {
        assert!(buffer.len() - HEADER_LEN <= STREAM_UNIT, "{} bytes to carry", buffer.len());
        let mut table = self.0.table();
        ready!(table.poll_room(self.0.id, cx))?;
        let buffer = std::mem::take(buffer);
        if buffer.len() > HEADER_LEN {
            table.queue(self.0.id, buffer);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sender {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut table = self.0.table();
        ready!(table.poll_room(self.0.id, cx))?;
        let taken = bytes.get(..STREAM_UNIT).unwrap_or(bytes);
        if !taken.is_empty() {
            let mut buffer = Vec::with_capacity(HEADER_LEN + taken.len());
            buffer.extend_from_slice(&[0; HEADER_LEN]);
            buffer.extend_from_slice(taken);
            table.queue(self.0.id, buffer);
        }
        Poll::Ready(Ok(taken.len()))
    }

    /// What is queued goes by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.table().finish(self.0.id);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.receiver).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.sender).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.sender).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.sender).poll_shutdown(cx)
    }
}
