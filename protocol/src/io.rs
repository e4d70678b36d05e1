//! Frames over anything that reads and writes.

use crate::codec::{self, CodecError};
use crate::frame::{BadHeader, Frame, FrameKind, HEADER_LEN, header, parse_header};
use crate::transfer::Chunk;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// It ended between two frames.
    #[error("the connection was closed")]
    Closed,
    /// It ended inside a frame.
    #[error("the connection was cut off inside a frame")]
    CutOff,
    /// The transport failed.
    #[error("the connection failed")]
    Io(#[source] std::io::Error),
    /// What came is no frame.
    #[error("the peer broke the protocol")]
    Header(#[from] BadHeader),
    /// What came is a frame whose payload is not what it should be.
    #[error("the peer broke the protocol")]
    Payload(#[from] CodecError),
    /// What came is a frame that has no place here.
    #[error("the peer broke the protocol: {got:?} where {wanted} was due")]
    OutOfPlace {
        /// The frame that came.
        got: FrameKind,
        /// What was expected.
        wanted: &'static str,
    },
}

/// Payloads grow by steps of this as their bytes arrive, so that a header alone
/// makes nobody allocate megabytes.
const GROWTH: usize = 64 * 1024;

/// Reads frames.
#[derive(Debug)]
pub struct FrameReader<R> {
    inner: R,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames from here on.
    pub fn new(inner: R) -> Self {
        Self { inner }
    }

    /// Reads the next frame. Not cancel-safe: use it from one task and drop the
    /// connection when it is dropped midway.
    pub async fn next(&mut self) -> Result<Frame, Lost> {
        let (kind, length) = self.next_header().await?;
        let mut payload = Vec::new();
        while payload.len() < length {
            let start = payload.len();
            payload.resize(length.min(start + GROWTH), 0);
            self.inner.read_exact(&mut payload[start..]).await.map_err(cut_off)?;
        }
        Ok(Frame { kind, payload })
    }

    /// Reads the next frame, which must be of this kind, and decodes it.
    pub async fn expect<T: DeserializeOwned>(&mut self, kind: FrameKind) -> Result<T, Lost> {
        self.next().await?.decode(kind)
    }

    /// Reads and forgets until the peer's end.
    pub async fn discard(&mut self) -> Result<(), Lost> {
        let mut bytes = [0; 4096];
        while self.inner.read(&mut bytes).await.map_err(Lost::Io)? != 0 {}
        Ok(())
    }

    /// The transport beneath.
    pub fn into_inner(self) -> R {
        self.inner
    }

    async fn next_header(&mut self) -> Result<(FrameKind, usize), Lost> {
        let mut bytes = [0; HEADER_LEN];
        let first = self.inner.read(&mut bytes).await.map_err(Lost::Io)?;
        if first == 0 {
            return Err(Lost::Closed);
        }
        self.inner.read_exact(&mut bytes[first..]).await.map_err(cut_off)?;
        Ok(parse_header(bytes)?)
    }
}

fn cut_off(error: std::io::Error) -> Lost {
    if error.kind() == std::io::ErrorKind::UnexpectedEof { Lost::CutOff } else { Lost::Io(error) }
}

impl Frame {
    /// Decodes the payload of a frame that must be of this kind.
    pub fn decode<T: DeserializeOwned>(&self, kind: FrameKind) -> Result<T, Lost> {
        if self.kind != kind {
            return Err(Lost::OutOfPlace { got: self.kind, wanted: kind.name() });
        }
        Ok(codec::decode(&self.payload)?)
    }
}

/// Writes frames, each with one write where the transport allows.
#[derive(Debug)]
pub struct FrameWriter<W> {
    inner: W,
    buffer: Vec<u8>,
    progress: Progress,
}

/// Where in the stream a writer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    BetweenFrames,
    /// For good, if the future that wrote it was dropped or failed.
    InsideFrame,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes frames from here on.
    pub fn new(inner: W) -> Self {
        Self { inner, buffer: Vec::new(), progress: Progress::BetweenFrames }
    }

    /// Encodes and sends a value.
    pub async fn send<T: Serialize>(&mut self, kind: FrameKind, value: &T) -> Result<(), Lost> {
        let payload = codec::encode(value)?;
        if payload.len() > kind.limit() {
            return Err(BadHeader::TooLong { kind, length: payload.len() }.into());
        }
        self.send_raw(kind, &payload).await
    }

    /// Sends bytes as they are; at most [`FrameKind::limit`] of them. After a
    /// send that was dropped midway there is no other: nobody could tell its
    /// frame from the rest of the last one.
    pub async fn send_raw(&mut self, kind: FrameKind, payload: &[u8]) -> Result<(), Lost> {
        if std::mem::replace(&mut self.progress, Progress::InsideFrame) == Progress::InsideFrame {
            return Err(Lost::CutOff);
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(&header(kind, payload.len()));
        self.buffer.extend_from_slice(payload);
        self.inner.write_all(&self.buffer).await.map_err(Lost::Io)?;
        self.inner.flush().await.map_err(Lost::Io)?;
        self.progress = Progress::BetweenFrames;
        Ok(())
    }

    /// Sends a chunk as one frame, without copying it. As [`Self::send_raw`],
    /// there is no other send after one that was dropped midway.
    pub(crate) async fn send_chunk(
        &mut self,
        kind: FrameKind,
        chunk: &mut Chunk,
    ) -> Result<(), Lost> {
        if std::mem::replace(&mut self.progress, Progress::InsideFrame) == Progress::InsideFrame {
            return Err(Lost::CutOff);
        }
        let frame = chunk.frame_mut();
        let header = header(kind, frame.len() - HEADER_LEN);
        frame[..HEADER_LEN].copy_from_slice(&header);
        self.inner.write_all(frame).await.map_err(Lost::Io)?;
        self.inner.flush().await.map_err(Lost::Io)?;
        self.progress = Progress::BetweenFrames;
        Ok(())
    }

    /// The transport beneath.
    pub fn into_inner(self) -> W {
        self.inner
    }

    /// Says that nothing more will come, and keeps the other direction open.
    pub async fn shutdown(&mut self) -> Result<(), Lost> {
        self.inner.shutdown().await.map_err(Lost::Io)
    }
}
