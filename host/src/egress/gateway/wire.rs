//! What carries packets between a gateway and its guest.

mod cable;

pub use cable::Cable;
pub(super) use cable::decode;

use bytes::Bytes;
use pyro_protocol::{FrameKind, FrameReader, FrameWriter, Lost};
use tokio::io::{AsyncRead, AsyncWrite};

/// Where packets of the guest's come from.
pub trait Incoming {
    /// Packets, whole, one after another.
    ///
    /// # Errors
    /// When there will be no more.
    fn next(&mut self) -> impl Future<Output = Result<Bytes, Lost>>;
}

/// Where packets for the guest go.
pub trait Outgoing {
    /// Sends packets that lie one after another, whole.
    ///
    /// # Errors
    /// When no more can be sent.
    fn send(&mut self, packets: &[u8]) -> impl Future<Output = Result<(), Lost>>;
}

/// An agent's connection: it has an interface whose packets travel on it.
impl<R: AsyncRead + Unpin> Incoming for FrameReader<R> {
    async fn next(&mut self) -> Result<Bytes, Lost> {
        let frame = FrameReader::next(self).await?;
        if frame.kind != FrameKind::Data {
            return Err(Lost::OutOfPlace { got: frame.kind, wanted: "Data" });
        }
        Ok(frame.payload.into())
    }
}

impl<W: AsyncWrite + Unpin> Outgoing for FrameWriter<W> {
    async fn send(&mut self, packets: &[u8]) -> Result<(), Lost> {
        self.send_raw(FrameKind::Data, packets).await
    }
}
