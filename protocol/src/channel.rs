//! Many streams over the one byte stream that QEMU's virtio-serial gives.
//!
//! Firecracker has a vsock device; QEMU without the host's vhost-vsock has
//! none that is sound. There, one virtio-serial port carries a multiplexer, and
//! each of its streams asks for a vsock port, so that both sides of the channel
//! offer what vsock would: connect to a port, accept on ports.
//!
//! ```text
//! host ── SYNC nonce ──▶ guest        once per host connection
//! host ◀─ SYNC nonce ─── guest        then both send frames: header, data
//! opener ── Open port ──▶ other       once per stream
//! opener ◀── Accept ───── other       or Reset
//!        ◀── Data, End, Credit, Reset ──▶
//! ```
//!
//! A side whose multiplexer fails starts over on the same byte stream: the host
//! as one that reconnects, the guest by hunting. An agent that died and was
//! started again provokes that by [`interrupt`].
//!
//! The port is a byte stream without connection events: after a restore the
//! guest may stand in the middle of what an older host sent. So the guest hunts
//! for SYNC whenever the multiplexer has failed, and a host that reconnects
//! first sends [`FLUSH`] bytes of 0xff: they complete whatever frame was
//! underway, and as a header they are invalid, so that the guest's multiplexer
//! fails before SYNC comes.

mod driver;
mod entry;
mod header;
mod stream;
mod table;
#[cfg(test)]
mod tests;

use crate::VsockPort;
use driver::Driver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use stream::Hold;
use table::Table;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};

pub use header::HEADER_LEN;
pub use stream::{Receiver, Sender, Stream};
pub use table::Breach;

/// How much a host that reconnects sends before SYNC. The guest may be in the
/// middle of a header, and `FLUSH_BYTE`s at the end of it make none; or in the
/// middle of data, of which less is missing.
pub const FLUSH: usize = PORT_WRITE + 2 * HEADER_LEN;

/// No header begins with it.
const FLUSH_BYTE: u8 = 0xff;

/// What a guest's kernel takes at one write to the port. Every write costs a
/// trap into the VMM, so frames are made to fit and leave whole.
const PORT_WRITE: usize = 32 * 1024;

/// The most bytes of a stream that travel together; moving bytes in multiples
/// of it is cheapest.
pub const STREAM_UNIT: usize = PORT_WRITE - HEADER_LEN;

/// How much of a stream may be underway and unread. What a program says while
/// the other side is busy with something else has room in it.
pub const WINDOW: usize = 256 * 1024;

/// What was read is given back as credit in steps of it.
const WINDOW_STEP: usize = WINDOW / 2;

// With less credit than a unit, a step of it is on its way or about to be.
const _: () = assert!(WINDOW_STEP + STREAM_UNIT <= WINDOW);

/// A stream takes no more to be sent while so much is queued. It is then kept
/// waiting, however much credit it has.
const QUEUE_MAX: usize = 128 * 1024;

/// Streams at the same time. A hostile peer can make us hold [`WINDOW_MAX`]
/// bytes.
pub const STREAMS_MAX: usize = OPENED_BY_HOST_MAX + OPENED_BY_GUEST_MAX;

/// Streams that the host has opened. It has to wait before it opens more.
const OPENED_BY_HOST_MAX: usize = 240;

/// Streams that the guest has opened: it has little to say unasked.
const OPENED_BY_GUEST_MAX: usize = 16;

/// Streams of the host's that a guest may not have let go of. For the host one is
/// gone when both its ends are; the guest's program may not have come to it yet,
/// when many come and go at once.
const LINGERING_MAX: usize = 4 * OPENED_BY_HOST_MAX;

/// Refusals that a peer may leave unread.
const REFUSALS_MAX: usize = 1024;

/// The most bytes received and not yet read, over all streams.
pub const WINDOW_MAX: usize = STREAMS_MAX * WINDOW;

const SYNC_MAGIC: [u8; 8] = *b"\xffpyrosyn";

/// Why a channel, or a stream of it, could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The byte stream beneath ended or failed.
    #[error("the channel failed")]
    Io(#[from] std::io::Error),
    /// The other side sent what is no frame, or a frame that has no place.
    #[error("the peer broke the channel's protocol")]
    Broken(#[from] Breach),
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
        /// What the guest has heard before.
        before: Before,
    },
    /// Hunts for SYNC and echoes it.
    Guest,
}

/// What a guest may have heard from a host before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Nothing: it hunts.
    Nothing,
    /// Whole frames: it was saved between two of them.
    WholeFrames,
    /// Anything: an earlier host connection may have been cut off.
    Anything,
}

impl Before {
    /// How many [`FLUSH_BYTE`]s make the guest hunt.
    const fn flush(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::WholeFrames => HEADER_LEN,
            Self::Anything => FLUSH,
        }
    }
}

/// Opens streams to the other side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Opener {
    shared: Arc<Shared>,
}

/// Takes the streams that the other side opens.
#[derive(Debug)]
pub struct Acceptor {
    inbound: mpsc::Receiver<Inbound>,
}

/// A stream that the other side wants. Dropping it refuses it.
#[derive(Debug)]
pub struct Inbound {
    hold: Hold,
    port: VsockPort,
}

/// What the driver and every stream of a channel have in common.
struct Shared {
    table: Mutex<Table>,
    /// Places for streams that we open.
    places: Arc<Semaphore>,
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
    let (is_host, opened_max) = match side {
        Side::Host { nonce, before } => {
            let mut beginning = vec![FLUSH_BYTE; before.flush()];
            beginning.extend(sync(nonce));
            io.write_all(&beginning).await?;
            io.flush().await?;
            while hunt(&mut io).await? != nonce {}
            (true, OPENED_BY_HOST_MAX)
        }
        Side::Guest => {
            let nonce = hunt(&mut io).await?;
            io.write_all(&sync(nonce)).await?;
            io.flush().await?;
            (false, OPENED_BY_GUEST_MAX)
        }
    };
    let shared = Arc::new(Shared {
        table: Mutex::new(Table::new(is_host)),
        places: Arc::new(Semaphore::new(opened_max)),
    });
    // As many as there can be: none is turned away because many come at once.
    let (inbound_end, inbound) = mpsc::channel(LINGERING_MAX);
    let driver = Driver::new(io, shared.clone(), inbound_end).run();
    Ok((Opener { shared }, Acceptor { inbound }, driver))
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
/// what follows belongs to the multiplexer. Put a buffered reader beneath where a read
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

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Whoever panicked with it has ended its own task; the table is whole
        // after every call.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.places.close();
        self.table().end();
    }
}

impl Opener {
    /// Connects to a port of the other side. Waits for a place when there are
    /// too many streams.
    pub async fn open(&self, port: VsockPort) -> Result<Stream, ChannelError> {
        let place =
            self.shared.places.clone().acquire_owned().await.map_err(|_| ChannelError::Closed)?;
        let id = self.shared.table().open(port, place).ok_or(ChannelError::Closed)?;
        // Whoever gives up waiting drops it, which resets the stream.
        let hold = Hold::new(self.shared.clone(), id);
        std::future::poll_fn(|cx| hold.table().poll_opened(id, cx))
            .await
            .map_err(|_| ChannelError::Refused(port))?;
        Ok(hold.into_stream())
    }
}

impl Acceptor {
    /// The next stream the other side wants; `None` when the channel has ended.
    pub async fn accept(&mut self) -> Option<Inbound> {
        self.inbound.recv().await
    }
}

impl Inbound {
    /// The port that the other side wants.
    #[must_use]
    pub fn port(&self) -> VsockPort {
        self.port
    }

    /// Takes the stream.
    #[must_use]
    pub fn accept(self) -> Stream {
        self.hold.table().accept(self.hold.id());
        self.hold.into_stream()
    }
}
