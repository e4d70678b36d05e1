//! Moves what the table has to say over the byte stream, and what comes over it
//! into the table.

use super::header::{HEADER_LEN, Header, StreamId};
use super::stream::Hold;
use super::table::{Breach, Outgoing};
use super::{ChannelError, Inbound, PORT_WRITE, Shared};
use futures::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

/// Frames taken in a row before others have their turn: a peer that floods us
/// does not keep us from anything else.
const FRAMES_IN_A_ROW: usize = 64;

/// Frames up to this long leave together, in one write; longer ones are written
/// from where they are.
const SMALL: usize = 1024;

/// Drives a channel until it fails; at the end, however it comes, every stream
/// hears of it.
pub(super) struct Driver<T> {
    io: T,
    shared: Arc<Shared>,
    inbound: mpsc::Sender<Inbound>,
    incoming: Incoming,
    outgoing: Outbox,
}

/// As [`Table::receive`](super::table::Table::receive) takes it.
type Frame = (StreamId, Header, Vec<u8>);

enum Incoming {
    Header { bytes: [u8; HEADER_LEN], filled: usize },
    Data { id: StreamId, data: Vec<u8>, length: usize },
}

const NOTHING_YET: Incoming = Incoming::Header { bytes: [0; HEADER_LEN], filled: 0 };

/// What is on its way out: `current` from `sent` on, then `next`.
#[derive(Default)]
struct Outbox {
    current: Vec<u8>,
    sent: usize,
    next: Option<Vec<u8>>,
    unflushed: bool,
}

impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    pub(super) fn new(io: T, shared: Arc<Shared>, inbound: mpsc::Sender<Inbound>) -> Self {
        Self { io, shared, inbound, incoming: NOTHING_YET, outgoing: Outbox::default() }
    }

    pub(super) async fn run(mut self) -> Result<(), ChannelError> {
        poll_fn(|cx| {
            if let Poll::Ready(failed) = self.poll_send(cx) {
                return Poll::Ready(failed.map_err(Into::into));
            }
            if let Poll::Ready(ended) = self.poll_receive(cx) {
                return Poll::Ready(ended);
            }
            // What came may have called for an answer.
            self.poll_send(cx).map_err(Into::into)
        })
        .await
    }

    /// Sends while there is something to send; ready only with an error.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outgoing = &mut self.outgoing;
        loop {
            while let Some(rest @ [_, ..]) = outgoing.current.get(outgoing.sent..) {
                match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    length => outgoing.sent += length,
                }
                outgoing.unflushed = true;
            }
            if !outgoing.refill(&self.shared, cx) {
                if outgoing.unflushed {
                    ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                    outgoing.unflushed = false;
                }
                return Poll::Pending;
            }
        }
    }

    /// Receives while something comes; ready at the end of the byte stream.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        for _ in 0..FRAMES_IN_A_ROW {
            let Some((id, header, data)) = ready!(self.incoming.poll_frame(&mut self.io, cx))?
            else {
                return Poll::Ready(Ok(()));
            };
            let offer = self.shared.table().receive(id, header, data)?;
            if let Some(offer) = offer {
                let hold = Hold::new(self.shared.clone(), offer.id);
                // Nobody takes it, or too many wait: dropped, which resets it.
                drop(self.inbound.try_send(Inbound { hold, port: offer.port }));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Outbox {
    /// Takes what is to be sent next; waits in the table if that is nothing.
    fn refill(&mut self, shared: &Shared, cx: &Context<'_>) -> bool {
        self.sent = 0;
        if let Some(next) = self.next.take() {
            self.current = next;
            return true;
        }
        self.current.clear();
        let mut table = shared.table();
        table.register(cx.waker());
        while self.current.len() + SMALL <= PORT_WRITE {
            match table.next() {
                Some(Outgoing::Header(header)) => self.current.extend_from_slice(&header),
                Some(Outgoing::Data(data)) if data.len() <= SMALL => {
                    self.current.extend_from_slice(&data);
                }
                Some(Outgoing::Data(data)) if self.current.is_empty() => {
                    self.current = data;
                    return true;
                }
                Some(Outgoing::Data(data)) => {
                    self.next = Some(data);
                    return true;
                }
                None => break,
            }
        }
        !self.current.is_empty()
    }
}

impl Incoming {
    /// The next frame; `None` at the end of the byte stream.
    fn poll_frame<T: AsyncRead + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame>, ChannelError>> {
        loop {
            match self {
                Incoming::Header { bytes, filled } if *filled < HEADER_LEN => {
                    let mut buffer = ReadBuf::new(&mut bytes[*filled..]);
                    ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer))?;
                    match (buffer.filled().len(), *filled) {
                        (0, 0) => return Poll::Ready(Ok(None)),
                        (0, _) => return Poll::Ready(Err(cut_off())),
                        (length, _) => *filled += length,
                    }
                }
                Incoming::Header { bytes, .. } => {
                    let (id, header) = Header::parse(*bytes)
                        .ok_or(ChannelError::Broken(Breach("what came is no header")))?;
                    let Header::Data(length) = header else {
                        *self = NOTHING_YET;
                        return Poll::Ready(Ok(Some((id, header, Vec::new()))));
                    };
                    *self = Incoming::Data { id, data: Vec::with_capacity(length), length };
                }
                Incoming::Data { data, length, .. } if data.len() < *length => {
                    let missing = *length - data.len();
                    let spare = data.spare_capacity_mut();
                    let missing = missing.min(spare.len());
                    let mut buffer = ReadBuf::uninit(&mut spare[..missing]);
                    ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer))?;
                    let read = buffer.filled().len();
                    if read == 0 {
                        return Poll::Ready(Err(cut_off()));
                    }
                    // SAFETY: so many bytes more were filled.
                    unsafe { data.set_len(data.len() + read) };
                }
                Incoming::Data { id, data, length } => {
                    let frame = (*id, Header::Data(*length), std::mem::take(data));
                    *self = NOTHING_YET;
                    return Poll::Ready(Ok(Some(frame)));
                }
            }
        }
    }
}

fn cut_off() -> ChannelError {
    ChannelError::Io(io::ErrorKind::UnexpectedEof.into())
}
