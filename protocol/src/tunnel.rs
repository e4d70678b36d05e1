//! A TCP connection in the guest, carried to the host.
//!
//! After [`PortConnected`] both sides send what their socket reads in `Data`
//! frames, and an empty `DataEnd` when it has read the end: the other direction
//! goes on. A connection that ends before both ends were told was reset.
//!
//! ```text
//! client ── socket ── supervisor ══ Data, DataEnd ══ agent ── socket ── server
//! ```

use crate::carry::{Carry, Fetch};
use crate::channel::STREAM_UNIT;
use crate::frame::{FrameKind, HEADER_LEN};
use crate::io::{FRAME_ROOM, FrameReader, FrameWriter, Lost};
use serde::{Deserialize, Serialize};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::oneshot;

/// Connects to a TCP port of the guest: on its loopback, first of IPv4, then of
/// IPv6. The connection is then a tunnel to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConnectPort {
    /// The TCP port.
    pub port: u16,
}

/// Somebody listens there, and is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PortConnected;

/// The most payload of a frame that leaves here: with its header it travels at
/// once.
const PAYLOAD: usize = STREAM_UNIT - HEADER_LEN;

const _: () = assert!(PAYLOAD <= FrameKind::Data.limit());

/// Carries all that passes, until both directions have ended.
///
/// # Errors
/// When one was cut off; the socket's peer is then to see a reset.
pub async fn join<R: Fetch, W: Carry>(
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
    mut socket: TcpStream,
) -> Result<(), Lost> {
    let joined = {
        let (read, write) = socket.split();
        let (ended, end) = oneshot::channel();
        let inward = async {
            deliver(reader, write).await?;
            // The receiver is a part of the future that this one is polled with.
            let _ = ended.send(());
            // A peer that goes away now leaves nobody to send to.
            let lost = match reader.begin().await {
                Ok(begun) => Lost::OutOfPlace { got: begun.kind, wanted: "nothing" },
                Err(lost) => lost,
            };
            // Its last words and its leaving may come together: then the other
            // direction is complete, which is seen when it is polled next.
            tokio::task::yield_now().await;
            Err(lost)
        };
        let outward = async {
            collect(read, writer).await?;
            end.await.map_err(|_| Lost::CutOff)
        };
        tokio::select! {
            // A peer that closes once it has all cuts nothing off.
            biased;
            joined = outward => joined,
            Err::<(), Lost>(lost) = inward => Err(lost),
        }
    };
    if joined.is_err() {
        // Whoever reads from it is not to take this for the end.
        drop(socket.set_zero_linger());
    }
    joined
}

/// From the tunnel to the socket.
async fn deliver<R: Fetch>(
    reader: &mut FrameReader<R>,
    mut socket: WriteHalf<'_>,
) -> Result<(), Lost> {
    loop {
        let begun = reader.begin().await?;
        if begun.kind == FrameKind::DataEnd && begun.length == 0 {
            return match socket.shutdown().await {
                // It has gone by itself, after its last word.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                shut => shut.map_err(Lost::Io),
            };
        }
        if begun.kind != FrameKind::Data {
            return Err(Lost::OutOfPlace { got: begun.kind, wanted: "Data or an empty DataEnd" });
        }
        let mut left = begun.length;
        while left > 0 {
            let piece = reader.piece(left).await?;
            left -= piece.len();
            socket.write_all(&piece).await.map_err(Lost::Io)?;
        }
    }
}

/// From the socket into the tunnel.
async fn collect<W: Carry>(
    mut socket: ReadHalf<'_>,
    writer: &mut FrameWriter<W>,
) -> Result<(), Lost> {
    loop {
        // What is idle holds no buffer.
        socket.readable().await.map_err(Lost::Io)?;
        let mut frame = Vec::with_capacity(FRAME_ROOM + PAYLOAD);
        frame.resize(FRAME_ROOM, 0);
        let read = (&mut socket).take(PAYLOAD as u64).read_buf(&mut frame).await;
        match read.map_err(Lost::Io)? {
            0 => return writer.send_raw(FrameKind::DataEnd, &[]).await,
            _ => writer.send_buffer(FrameKind::Data, frame).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;
    use tokio::net::TcpListener;

    /// As a server does that has said all and has heard all before.
    #[tokio::test]
    async fn r11_a_peer_that_leaves_with_its_last_word_cuts_nothing_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut client, (socket, _)) = (client.expect("it listens"), accepted.expect("a client"));
        let ((reader, said), (heard, writer)) = (duplex(4096), duplex(4096));
        let joined = tokio::spawn(async move {
            join(&mut FrameReader::new(reader), &mut FrameWriter::new(writer), socket).await
        });
        client.shutdown().await.expect("connected");
        let end = FrameReader::new(heard).next().await.expect("the client's end");
        assert_eq!(end.kind, FrameKind::DataEnd);
        // All of it is there before any of it is looked at.
        let mut said = FrameWriter::new(said);
        said.send_raw(FrameKind::Data, b"last").await.expect("there is room");
        said.send_raw(FrameKind::DataEnd, b"").await.expect("there is room");
        drop(said);
        joined.await.expect("it does not panic").expect("both directions have ended");
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.expect("an end");
        assert_eq!(heard, b"last");
    }
}
