//! `Data` frames between a connection and a thread that may block: files are
//! read and written there.
//!
//! ```text
//! thread ── Outgoing ══ BATCHES_AHEAD ═▶ Outlet ── frames ──▶ connection
//! connection ── frames ──▶ Inlet ══ FRAMES_AHEAD ══▶ Incoming ── thread
//! ```

use crate::carry::Carry;
use crate::channel::STREAM_UNIT;
use crate::frame::{Frame, FrameKind, HEADER_LEN};
use crate::io::{FRAME_ROOM, FrameReader, FrameWriter, Lost};
use crate::piece::{self, BadPiece, Piece, PieceReader, PieceSink, SPARE_MIN};
use serde::de::DeserializeOwned;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;

/// Frames between the two ends of a transfer to here, so that neither waits for
/// the other's every breath.
const FRAMES_AHEAD: usize = 3;

/// Batches that wait to be sent.
const BATCHES_AHEAD: usize = 1;

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
    /// A frame in the making: [`FRAME_ROOM`], then at most [`PAYLOAD`] bytes, of
    /// which those behind `end` are only there to be written over.
    frame: Vec<u8>,
    /// Where the room begins.
    end: usize,
    /// Frames that are complete.
    batch: Vec<Vec<u8>>,
    batch_max: usize,
    batches: mpsc::Sender<Vec<Vec<u8>>>,
}

/// The connection's end of a transfer out of here.
#[derive(Debug)]
pub struct Outlet {
    batches: mpsc::Receiver<Vec<Vec<u8>>>,
    /// What is left of the last one.
    batch: std::vec::IntoIter<Vec<u8>>,
}

/// A transfer out of here. The thread hands so many frames over at once, of 32
/// KiB each, and up to three times as many are in memory: where the processor is
/// translated, waking the connection costs several times what filling a frame does.
#[must_use]
pub fn outgoing(frames: usize) -> (Outgoing, Outlet) {
    let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
    let outgoing = Outgoing {
        frame: empty_frame(),
        end: FRAME_ROOM,
        batch: Vec::new(),
        batch_max: frames,
        batches: sender,
    };
    (outgoing, Outlet { batches, batch: Vec::new().into_iter() })
}

/// The longest frame that leaves here.
const FULL: usize = FRAME_ROOM + PAYLOAD;

fn empty_frame() -> Vec<u8> {
    let mut frame = Vec::with_capacity(FULL);
    frame.resize(FRAME_ROOM, 0);
    frame
}

impl Outgoing {
    /// Sends what there is, however little.
    ///
    /// # Errors
    /// When nobody takes it any more.
    pub fn flush(&mut self) -> Result<(), CutOff> {
        self.complete();
        if self.batch.is_empty() {
            return Ok(());
        }
        self.batches.blocking_send(std::mem::take(&mut self.batch)).map_err(|_| CutOff)
    }

    /// The same as [`PieceSink::bytes_from`] for what appends to a buffer. No
    /// room has to be cleared for that, which costs as much as copying.
    ///
    /// # Errors
    /// When nobody takes it any more, or when `append` fails.
    pub fn bytes_appended<R>(
        &mut self,
        at_most: u64,
        append: impl FnOnce(&mut Vec<u8>) -> Result<(), R>,
    ) -> Result<Result<usize, R>, CutOff> {
        self.make_room()?;
        self.frame.truncate(self.end);
        self.frame.extend_from_slice(&piece::bytes_header(0));
        let begin = self.frame.len();
        let appended = append(&mut self.frame);
        let room = usize::try_from(at_most).unwrap_or(usize::MAX).min(FULL - begin);
        self.frame.truncate(begin + room);
        let length = self.frame.len() - begin;
        if let (Ok(()), 1..) = (&appended, length) {
            self.frame[self.end..begin].copy_from_slice(&piece::bytes_header(length));
            self.end = self.frame.len();
        }
        Ok(appended.map(|()| length))
    }

    /// Sees to it that there is room for [`SPARE_MIN`] bytes.
    fn make_room(&mut self) -> Result<(), CutOff> {
        if FULL - self.end < SPARE_MIN {
            self.complete();
            if self.batch.len() >= self.batch_max {
                return self.flush();
            }
        }
        Ok(())
    }

    /// The frame is as long as it will be.
    fn complete(&mut self) {
        if self.end > FRAME_ROOM {
            let mut frame = std::mem::replace(&mut self.frame, empty_frame());
            frame.truncate(std::mem::replace(&mut self.end, FRAME_ROOM));
            self.batch.push(frame);
        }
    }
}

impl PieceSink for Outgoing {
    type Error = CutOff;

    fn spare(&mut self) -> Result<&mut [u8], CutOff> {
        self.make_room()?;
        self.frame.resize(FULL, 0);
        Ok(&mut self.frame[self.end..])
    }

    fn advance(&mut self, length: usize) {
        self.end += length;
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), CutOff> {
        while !bytes.is_empty() {
            self.make_room()?;
            let (now, later) = bytes.split_at(bytes.len().min(FULL - self.end));
            // What lies behind the end is written over, then it is appended to.
            let (over, behind) = now.split_at(now.len().min(self.frame.len() - self.end));
            self.frame[self.end..self.end + over.len()].copy_from_slice(over);
            self.frame.extend_from_slice(behind);
            self.end += now.len();
            bytes = later;
        }
        Ok(())
    }
}

impl Outlet {
    /// The next frame, for [`FrameWriter::send_buffer`]; `None` when the thread
    /// has ended or dropped its end.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(frame) = self.batch.next() {
                return Some(frame);
            }
            self.batch = self.batches.recv().await?.into_iter();
        }
    }

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
