//! Many streams over the one byte stream that QEMU's virtio-serial gives.
//!
//! Firecracker has a vsock device; QEMU without the host's vhost-vsock has
//! none that is sound. There, one virtio-serial port carries yamux, and each
//! yamux stream opens with the vsock port it wants, so that both sides of the
//! channel offer what vsock would: connect to a port, accept on ports.
//!
//! ```text
//! host ── SYNC nonce ──▶ guest        once per host connection
//! host ◀─ SYNC nonce ─── guest        then both speak yamux
//! opener ── port u32 LE ──▶ other     once per stream
//! opener ◀── ACCEPTED ───── other     or the stream is reset
//! ```
//!
//! A side whose multiplexer fails starts over on the same byte stream: the host
//! as one that reconnects, the guest by hunting. An agent that died and was
//! started again provokes that by [`interrupt`].
//!
//! The port is a byte stream without connection events: after a restore the
//! guest may stand in the middle of what an older host sent. So the guest hunts
//! for SYNC whenever yamux has failed, and a host that reconnects first sends
//! [`FLUSH`] bytes of 0xff: they complete whatever frame was underway, and as a
//! header they are invalid, so that the guest's yamux fails before SYNC comes.

use crate::VsockPort;
use futures::future::poll_fn;
use std::collections::VecDeque;
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

/// One stream of a channel; behaves like a connected vsock socket.
pub type Stream = Compat<yamux::Stream>;

/// How much a host that reconnects sends before SYNC. The guest may be in the
/// middle of a header, and [`FLUSH_BYTE`]s in the lower half of its length make
/// it a frame of just under 64 KiB (the upper half is always zero or, cut off
/// earlier, makes a length that yamux refuses).
pub const FLUSH: usize = 64 * 1024 + 2 * YAMUX_HEADER;

/// No yamux header begins with it, and neither does any frame of ours.
const FLUSH_BYTE: u8 = 0xff;

const YAMUX_HEADER: usize = 12;

/// What a guest's kernel takes at one write to the port. Every write costs a
/// trap into the VMM, so frames are made to fit and leave whole.
const PORT_WRITE: usize = 32 * 1024;

/// The most bytes of a stream that travel together; moving bytes in multiples
/// of it is cheapest.
pub const STREAM_UNIT: usize = PORT_WRITE - YAMUX_HEADER;

const _: () = assert!(STREAM_UNIT < 64 * 1024, "see FLUSH");

/// Streams at the same time; the next one is refused. With yamux's 256 KiB
/// window each, a hostile guest can make the host hold [`WINDOW_MAX`] bytes.
pub const STREAMS_MAX: usize = 256;

/// The most bytes received and not yet read, over all streams.
pub const WINDOW_MAX: usize = STREAMS_MAX * yamux::DEFAULT_CREDIT as usize;

/// Requests for streams that wait; whoever makes the next one waits to make it.
const BACKLOG: usize = 64;

const SYNC_MAGIC: [u8; 8] = *b"\xffpyrosyn";
const ACCEPTED: u8 = 0x06;

/// Why a channel, or a stream of it, could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The byte stream beneath ended or failed.
    #[error("the channel failed")]
    Io(#[from] std::io::Error),
    /// The other side spoke no yamux.
    #[error("the peer broke the channel's protocol")]
    Mux(#[from] yamux::ConnectionError),
    /// The other side does not listen on that port.
    #[error("nobody listens on {0}")]
    Refused(VsockPort),
    /// The channel has ended.
    #[error("the channel is closed")]
    Closed,
}

/// Which end of the channel this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Starts with SYNC and this nonce, after [`FLUSH`] bytes if the guest may
    /// have been spoken to before.
    Host {
        /// Fresh for every connection.
        nonce: u64,
        /// Whether an earlier host connection may have been cut off.
        reconnect: bool,
    },
    /// Hunts for SYNC and echoes it.
    Guest,
}

/// Opens streams to the other side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Opener {
    requests: mpsc::Sender<oneshot::Sender<Result<yamux::Stream, yamux::ConnectionError>>>,
}

/// Takes the streams that the other side opens.
#[derive(Debug)]
pub struct Acceptor {
    inbound: mpsc::Receiver<yamux::Stream>,
}

/// A stream whose port is not yet known.
#[derive(Debug)]
pub struct Inbound {
    stream: Stream,
}

/// Brings a channel up over `io`. The future that comes third drives it: the
/// channel lives while it is polled and ends when it ends.
pub async fn connect<T>(
    mut io: T,
    side: Side,
) -> Result<(Opener, Acceptor, impl Future<Output = Result<(), ChannelError>>), ChannelError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mode = match side {
        Side::Host { nonce, reconnect } => {
            if reconnect {
                interrupt(&mut io).await?;
            }
            io.write_all(&sync(nonce)).await?;
            io.flush().await?;
            while hunt(&mut io).await? != nonce {}
            yamux::Mode::Client
        }
        Side::Guest => {
            let nonce = hunt(&mut io).await?;
            io.write_all(&sync(nonce)).await?;
            io.flush().await?;
            yamux::Mode::Server
        }
    };
    let mut config = yamux::Config::default();
    config.set_max_num_streams(STREAMS_MAX).set_max_connection_receive_window(Some(WINDOW_MAX));
    // Joins headers with what they head: yamux writes each by itself, and
    // flushes after every frame.
    let io = BufWriter::with_capacity(PORT_WRITE, io);
    let connection = yamux::Connection::new(io.compat(), config, mode);
    let (requests, requests_end) = mpsc::channel(BACKLOG);
    // As many as there can be: none is turned away because many come at once.
    let (inbound_end, inbound) = mpsc::channel(STREAMS_MAX);
    let driver = drive(connection, requests_end, inbound_end);
    Ok((Opener { requests }, Acceptor { inbound }, driver))
}

/// Makes the other side's multiplexer fail, whatever it is in the middle of:
/// so an agent that starts anew tells the host that the old one's streams are
/// gone. A side that hunts for SYNC skips it.
pub async fn interrupt<T: AsyncWrite + Unpin>(io: &mut T) -> std::io::Result<()> {
    io.write_all(&vec![FLUSH_BYTE; FLUSH]).await?;
    io.flush().await
}

fn sync(nonce: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&SYNC_MAGIC);
    bytes[8..].copy_from_slice(&nonce.to_le_bytes());
    bytes
}

/// Skips to the end of the next SYNC and returns its nonce. Reads byte by byte:
/// what follows belongs to yamux. Put a buffered reader beneath where a read
/// is a system call.
async fn hunt<T: AsyncRead + Unpin>(io: &mut T) -> std::io::Result<u64> {
    let mut matched = 0;
    while matched < SYNC_MAGIC.len() {
        // The first byte occurs nowhere else in the magic, so a mismatch can
        // only be the start of a new match.
        matched = match io.read_u8().await? {
            byte if byte == SYNC_MAGIC[matched] => matched + 1,
            byte => usize::from(byte == SYNC_MAGIC[0]),
        };
    }
    io.read_u64_le().await
}

type Request = oneshot::Sender<Result<yamux::Stream, yamux::ConnectionError>>;

async fn drive<T>(
    mut connection: yamux::Connection<Compat<T>>,
    mut requests: mpsc::Receiver<Request>,
    inbound: mpsc::Sender<yamux::Stream>,
) -> Result<(), ChannelError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut waiting: VecDeque<Request> = VecDeque::new();
    let mut openers_gone = false;
    poll_fn(|cx| {
        loop {
            while !openers_gone && waiting.len() < BACKLOG {
                match requests.poll_recv(cx) {
                    Poll::Ready(Some(request)) => waiting.push_back(request),
                    Poll::Ready(None) => openers_gone = true,
                    Poll::Pending => break,
                }
            }
            while !waiting.is_empty() {
                match connection.poll_new_outbound(cx) {
                    Poll::Ready(opened) => {
                        let request = waiting.pop_front().expect("checked above");
                        // Whoever asked may have given up; the stream is then
                        // dropped, which resets it.
                        drop(request.send(opened));
                    }
                    Poll::Pending => break,
                }
            }
            match connection.poll_next_inbound(cx) {
                // Nobody takes it, or too many wait: dropped, which resets it.
                Poll::Ready(Some(Ok(stream))) => drop(inbound.try_send(stream)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

impl Opener {
    /// Connects to a port of the other side.
    pub async fn open(&self, port: VsockPort) -> Result<Stream, ChannelError> {
        let (request, answer) = oneshot::channel();
        self.requests.send(request).await.map_err(|_| ChannelError::Closed)?;
        let mut stream = answer.await.map_err(|_| ChannelError::Closed)??.compat();
        stream.write_u32_le(port.0).await?;
        stream.flush().await?;
        match stream.read_u8().await {
            Ok(ACCEPTED) => Ok(stream),
            Ok(_) | Err(_) => Err(ChannelError::Refused(port)),
        }
    }
}

impl Acceptor {
    /// The next stream the other side opens; `None` when the channel has ended.
    pub async fn accept(&mut self) -> Option<Inbound> {
        let stream = self.inbound.recv().await?.compat();
        Some(Inbound { stream })
    }
}

impl Inbound {
    /// Waits for the port the other side wants. Give it a deadline: a hostile
    /// peer may never say.
    pub async fn port(&mut self) -> std::io::Result<VsockPort> {
        self.stream.read_u32_le().await.map(VsockPort)
    }

    /// Takes the stream. Dropping it instead refuses it.
    pub async fn accept(mut self) -> std::io::Result<Stream> {
        self.stream.write_u8(ACCEPTED).await?;
        self.stream.flush().await?;
        Ok(self.stream)
    }
}
