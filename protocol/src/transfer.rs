//! `Data` frames between a connection and a thread that may block: files are
//! read and written there.
//!
//! ```text
//! thread ── Outgoing ══ FRAMES_AHEAD ══▶ Outlet ── frames ──▶ connection
//! connection ── frames ──▶ Inlet ══ FRAMES_AHEAD ══▶ Incoming ── thread
//! ```

use crate::carry::Carry;
use crate::channel::STREAM_UNIT;
use crate::frame::{Frame, FrameKind, HEADER_LEN};
use crate::io::{FRAME_ROOM, FrameReader, FrameWriter, Lost};
use crate::piece::{BadPiece, Piece, PieceReader, PieceSink, SPARE_MIN};
use serde::de::DeserializeOwned;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;

/// Frames between the two ends of a transfer, so that neither waits for the
/// other's every breath.
const FRAMES_AHEAD: usize = 3;

/// The other side of the transfer has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the transfer was cut off")]
pub struct CutOff;

/// The most payload of a frame that leaves here: with its header it travels at
/// once.
const PAYLOAD: usize = STREAM_UNIT - HEADER_LEN;

const _: () = assert!(PAYLOAD <= FrameKind::Data.limit() && PAYLOAD >= 2 * SPARE_MIN);

/// The thread's end of a transfer out of here.
#[derive(Debug)]
pub struct Outgoing {
    /// A frame in the making: [`FRAME_ROOM`], then room for [`PAYLOAD`] bytes.
    frame: Vec<u8>,
    /// Where the room begins.
    end: usize,
    frames: mpsc::Sender<Vec<u8>>,
}

/// The connection's end of a transfer out of here.
#[derive(Debug)]
pub struct Outlet {
    frames: mpsc::Receiver<Vec<u8>>,
}

/// A transfer out of here.
#[must_use]
pub fn outgoing() -> (Outgoing, Outlet) {
    let (sender, frames) = mpsc::channel(FRAMES_AHEAD);
    let outgoing = Outgoing { frame: empty_frame(), end: FRAME_ROOM, frames: sender };
    (outgoing, Outlet { frames })
}

fn empty_frame() -> Vec<u8> {
    vec![0; FRAME_ROOM + PAYLOAD]
}

impl Outgoing {
    /// Sends what there is, however little.
    ///
    /// # Errors
    /// When nobody takes it any more.
    pub fn flush(&mut self) -> Result<(), CutOff> {
        if self.end == FRAME_ROOM {
            return Ok(());
        }
        let mut frame = std::mem::replace(&mut self.frame, empty_frame());
        frame.truncate(std::mem::replace(&mut self.end, FRAME_ROOM));
        self.frames.blocking_send(frame).map_err(|_| CutOff)
    }
}

impl PieceSink for Outgoing {
    type Error = CutOff;

    fn spare(&mut self) -> Result<&mut [u8], CutOff> {
        if self.frame.len() - self.end < SPARE_MIN {
            self.flush()?;
        }
        Ok(&mut self.frame[self.end..])
    }

    fn advance(&mut self, length: usize) {
        self.end += length;
    }
}

impl Outlet {
    /// Sends frames until the thread has ended or dropped its end.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn forward<W: Carry>(&mut self, writer: &mut FrameWriter<W>) -> Result<(), Lost> {
        while let Some(frame) = self.next().await {
            writer.send_buffer(FrameKind::Data, frame).await?;
        }
        Ok(())
    }

    /// The next frame, for [`FrameWriter::send_buffer`]; `None` once the thread
    /// has ended or dropped its end.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        self.frames.recv().await
    }
}

/// The thread's end of a transfer to here.
#[derive(Debug)]
pub struct Incoming {
    frames: mpsc::Receiver<Arrival>,
    ended: bool,
}

/// The connection's end of a transfer to here.
#[derive(Debug)]
pub struct Inlet {
    frames: mpsc::Sender<Arrival>,
}

/// What became of a frame.
#[derive(Debug)]
pub enum Taken {
    /// It was data, and more is to come.
    More,
    /// It was none; the transfer is over.
    Last(Frame),
    /// It was data, and the thread wants no more.
    ByNobody,
}

#[derive(Debug)]
enum Arrival {
    Data(Vec<u8>),
    End,
}

/// A transfer to here.
#[must_use]
pub fn incoming() -> (Incoming, Inlet) {
    let (sender, frames) = mpsc::channel(FRAMES_AHEAD);
    (Incoming { frames, ended: false }, Inlet { frames: sender })
}

impl Incoming {
    /// The next bytes; `None` once all have come, and ever after.
    ///
    /// # Errors
    /// When the connection was lost before that.
    pub fn bytes(&mut self) -> Result<Option<Vec<u8>>, CutOff> {
        if self.ended {
            return Ok(None);
        }
        match self.frames.blocking_recv() {
            Some(Arrival::Data(bytes)) => Ok(Some(bytes)),
            Some(Arrival::End) => {
                self.ended = true;
                Ok(None)
            }
            None => Err(CutOff),
        }
    }

    /// The bytes as pieces.
    #[must_use]
    pub fn pieces<E: DeserializeOwned>(self) -> Pieces<E> {
        Pieces { incoming: self, reader: PieceReader::default(), frame: Vec::new(), taken: 0 }
    }
}

impl Inlet {
    /// Receives frames up to the first that is no `Data`, which this gives: the
    /// thread hears that the transfer is complete only if that is a `DataEnd`.
    /// Returns `None` when the thread has ended before.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn forward<R>(self, reader: &mut FrameReader<R>) -> Result<Option<Frame>, Lost>
    where
        R: AsyncRead + Unpin,
    {
        loop {
            let frame = reader.next().await?;
            match self.take(frame).await {
                Taken::More => {}
                Taken::Last(frame) => return Ok(Some(frame)),
                Taken::ByNobody => return Ok(None),
            }
        }
    }

    /// Gives the thread a frame that was received already.
    pub async fn take(&self, frame: Frame) -> Taken {
        if frame.kind == FrameKind::DataEnd {
            // A thread that has ended will not miss it.
            drop(self.frames.send(Arrival::End).await);
        }
        if frame.kind != FrameKind::Data {
            return Taken::Last(frame);
        }
        let arrival = Arrival::Data(frame.payload);
        match self.frames.send(arrival).await {
            Ok(()) => Taken::More,
            Err(_) => Taken::ByNobody,
        }
    }
}

/// A transfer to here, in pieces.
#[derive(Debug)]
pub struct Pieces<E> {
    incoming: Incoming,
    reader: PieceReader<E>,
    frame: Vec<u8>,
    /// How much of the frame is done with.
    taken: usize,
}

/// Why there is no next piece.
#[derive(Debug, thiserror::Error)]
pub enum NoPiece {
    /// The connection was lost, or the stream ended inside a piece.
    #[error(transparent)]
    CutOff(#[from] CutOff),
    /// The peer broke the protocol.
    #[error(transparent)]
    Bad(#[from] BadPiece),
}

impl<E: DeserializeOwned> Pieces<E> {
    /// The next piece; `None` once all have come.
    ///
    /// # Errors
    /// When there is no next piece and should be.
    pub fn piece(&mut self) -> Result<Option<Piece<E, &[u8]>>, NoPiece> {
        let piece = loop {
            let mut rest = &self.frame[self.taken..];
            let piece = self.reader.next(&mut rest)?;
            self.taken = self.frame.len() - rest.len();
            if let Some(piece) = piece {
                break piece;
            }
            match self.incoming.bytes()? {
                Some(frame) => (self.frame, self.taken) = (frame, 0),
                None if self.reader.is_complete() => return Ok(None),
                None => return Err(CutOff.into()),
            }
        };
        let taken = self.taken;
        Ok(Some(piece.map_bytes(|length| &self.frame[taken - length..taken])))
    }
}
