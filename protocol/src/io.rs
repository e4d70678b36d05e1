//! Frames over anything that reads and writes.

use crate::carry::{Carry, Fetch, HEADROOM, carry, fetch};
use crate::codec::{self, CodecError};
use crate::frame::{BadHeader, Frame, FrameKind, HEADER_LEN, header, parse_header};
use bytes::Bytes;
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

/// What stands before the payload of a frame that [`FrameWriter::send_buffer`]
/// sends.
pub const FRAME_ROOM: usize = HEADROOM + HEADER_LEN;

/// A frame of which only the header has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// What the payload is.
    pub kind: FrameKind,
    /// At most [`FrameKind::limit`].
    pub length: usize,
}

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
        let begun = self.begin().await?;
        self.finish(begun).await
    }

    /// Reads the rest of a frame.
    pub async fn finish(&mut self, begun: Begun) -> Result<Frame, Lost> {
        let Begun { kind, length } = begun;
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

    /// Reads the header of the next frame. Its payload has to be read before
    /// the frame after it.
    pub async fn begin(&mut self) -> Result<Begun, Lost> {
        let mut bytes = [0; HEADER_LEN];
        let first = self.inner.read(&mut bytes).await.map_err(Lost::Io)?;
        if first == 0 {
            return Err(Lost::Closed);
        }
        self.inner.read_exact(&mut bytes[first..]).await.map_err(cut_off)?;
        let (kind, length) = parse_header(bytes)?;
        Ok(Begun { kind, length })
    }
}

impl<R: Fetch> FrameReader<R> {
    /// Reads some of a payload of which at least so much is to come, without
    /// copying it where the transport allows.
    pub async fn piece(&mut self, left: usize) -> Result<Bytes, Lost> {
        match fetch(&mut self.inner, left).await {
            Ok(piece) if piece.is_empty() && left > 0 => Err(Lost::CutOff),
            Ok(piece) => Ok(piece),
            Err(error) => Err(cut_off(error)),
        }
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

fn encode_within<T: Serialize>(kind: FrameKind, value: &T) -> Result<Vec<u8>, Lost> {
    let payload = codec::encode(value)?;
    match payload.len() > kind.limit() {
        true => Err(BadHeader::TooLong { kind, length: payload.len() }.into()),
        false => Ok(payload),
    }
}

/// Writes frames, each with one write where the transport allows.
#[derive(Debug)]
pub struct FrameWriter<W> {
    inner: W,
    /// Frames that have not left.
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
        self.send_raw(kind, &encode_within(kind, value)?).await
    }

    /// Encodes a value that leaves together with what is sent next: in one
    /// write where the transport allows.
    pub fn queue<T: Serialize>(&mut self, kind: FrameKind, value: &T) -> Result<(), Lost> {
        self.push(kind, &encode_within(kind, value)?);
        Ok(())
    }

    /// Sends bytes as they are; at most [`FrameKind::limit`] of them. After a
    /// send that was dropped midway there is no other: nobody could tell its
    /// frame from the rest of the last one.
    pub async fn send_raw(&mut self, kind: FrameKind, payload: &[u8]) -> Result<(), Lost> {
        if std::mem::replace(&mut self.progress, Progress::InsideFrame) == Progress::InsideFrame {
            return Err(Lost::CutOff);
        }
        self.push(kind, payload);
        self.inner.write_all(&self.buffer).await.map_err(Lost::Io)?;
        self.inner.flush().await.map_err(Lost::Io)?;
        self.buffer.clear();
        self.progress = Progress::BetweenFrames;
        Ok(())
    }

    /// The same for a payload that has [`FRAME_ROOM`] bytes before it and is at
    /// most [`STREAM_UNIT`](crate::channel::STREAM_UNIT) long with its header;
    /// not copied where the transport allows.
    pub async fn send_buffer(&mut self, kind: FrameKind, mut buffer: Vec<u8>) -> Result<(), Lost>
    where
        W: Carry,
    {
        if std::mem::replace(&mut self.progress, Progress::InsideFrame) == Progress::InsideFrame {
            return Err(Lost::CutOff);
        }
        if !self.buffer.is_empty() {
            self.inner.write_all(&self.buffer).await.map_err(Lost::Io)?;
            self.buffer.clear();
        }
        let header = header(kind, buffer.len() - FRAME_ROOM);
        buffer[HEADROOM..FRAME_ROOM].copy_from_slice(&header);
        carry(&mut self.inner, buffer).await.map_err(Lost::Io)?;
        self.inner.flush().await.map_err(Lost::Io)?;
        self.progress = Progress::BetweenFrames;
        Ok(())
    }

    fn push(&mut self, kind: FrameKind, payload: &[u8]) {
        self.buffer.extend_from_slice(&header(kind, payload.len()));
        self.buffer.extend_from_slice(payload);
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
