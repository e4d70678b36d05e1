//! Bytes handed on without copying them.
//!
//! Where the guest's processor is translated, a copy in user space costs more
//! than anything else on the way (docs/decisions/0013). So a stream of a
//! channel gives the pieces that arrived and takes buffers as they are; what
//! else there is to read from and write to does the same by copying.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The room that a buffer to be carried has at its beginning, for whoever
/// carries it.
pub const HEADROOM: usize = crate::channel::HEADER_LEN;

/// What is fetched at once where it has to be copied.
const FETCHED: usize = 32 * 1024;

/// Smaller pieces are joined up to this, so that none costs more than it
/// carries.
const JOINED: usize = 4096;

/// Bytes in the pieces that they came in, small ones joined. As long as the
/// sum of what was pushed; whoever pushes sees to its limit.
#[derive(Debug, Default)]
pub struct Pieces {
    whole: VecDeque<Bytes>,
    /// After all of them.
    joined: BytesMut,
}

impl Pieces {
    /// Adds a piece.
    pub fn push(&mut self, piece: Bytes) {
        if self.joined.len() + piece.len() > JOINED && !self.joined.is_empty() {
            self.whole.push_back(std::mem::take(&mut self.joined).freeze());
        }
        if piece.len() < JOINED {
            self.joined.extend_from_slice(&piece);
        } else {
            self.whole.push_back(piece);
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.joined.is_empty()
    }

    /// The next bytes, at most `limit`, if there are any.
    pub fn take(&mut self, limit: usize) -> Option<Bytes> {
        if self.whole.is_empty() && !self.joined.is_empty() {
            self.whole.push_back(std::mem::take(&mut self.joined).freeze());
        }
        let first = self.whole.front_mut()?;
        if limit < first.len() {
            return Some(first.split_to(limit));
        }
        self.whole.pop_front()
    }
}

/// Gives pieces of what arrives.
pub trait Fetch: AsyncRead + Unpin {
    /// The next bytes, at least one and at most `limit`; none at the end.
    fn poll_fetch(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<io::Result<Bytes>> {
        let most = limit.min(FETCHED);
        let mut piece = Vec::with_capacity(most);
        // There may be more room than was asked for.
        let mut buffer = ReadBuf::uninit(&mut piece.spare_capacity_mut()[..most]);
        ready!(self.poll_read(cx, &mut buffer))?;
        let length = buffer.filled().len();
        // SAFETY: so many bytes were filled, from the beginning.
        unsafe { piece.set_len(length) };
        Poll::Ready(Ok(piece.into()))
    }
}

/// Takes whole buffers.
pub trait Carry: AsyncWrite + Unpin {
    /// Sends what is behind the buffer's first [`HEADROOM`] bytes, at most
    /// [`STREAM_UNIT`](crate::channel::STREAM_UNIT), and takes the buffer.
    /// `sent` is 0 at first and for the implementation to remember by.
    fn poll_carry(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        sent: &mut usize,
    ) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = buffer.get(HEADROOM + *sent..) {
            match ready!(self.as_mut().poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => *sent += length,
            }
        }
        buffer.clear();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead> Fetch for tokio::io::ReadHalf<S> {}
impl<S: AsyncWrite> Carry for tokio::io::WriteHalf<S> {}
impl Fetch for tokio::io::DuplexStream {}
impl Carry for tokio::io::DuplexStream {}
impl Fetch for tokio::net::unix::OwnedReadHalf {}
impl Carry for tokio::net::unix::OwnedWriteHalf {}

/// Fetches, as [`Fetch::poll_fetch`] does.
pub async fn fetch<R: Fetch>(reader: &mut R, limit: usize) -> io::Result<Bytes> {
    std::future::poll_fn(|cx| Pin::new(&mut *reader).poll_fetch(cx, limit)).await
}

/// Carries, as [`Carry::poll_carry`] does. Not cancel-safe.
pub async fn carry<W: Carry>(writer: &mut W, mut buffer: Vec<u8>) -> io::Result<()> {
    let mut sent = 0;
    std::future::poll_fn(|cx| Pin::new(&mut *writer).poll_carry(cx, &mut buffer, &mut sent)).await
}
