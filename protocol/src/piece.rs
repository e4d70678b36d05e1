//! A tree as a stream of bytes, in `Data` frames: entries, and the contents of
//! files between them.
//!
//! ```text
//! tag u8   then
//! 0 Entry  length u32 LE, the encoded entry
//! 1 Bytes  length u32 LE, so many bytes of the entry's content
//! 2 Hole   length u64 LE: so many zero bytes that take no room
//! 3 End    of the content, which was steady
//! 4 Torn   end of the content, which changed while it was read
//! 5 Keep   in place of a content: the receiver has it already
//! ```
//!
//! Pieces and frames are cut apart independently: many small files share a
//! frame, a long one is spread over many. Which piece may follow which is the
//! call's to say.

use crate::codec::{self, CodecError};
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;

/// The longest encoded entry: two paths and some numbers.
pub const ENTRY_MAX: usize = 16 * 1024;

const _: () = assert!(ENTRY_MAX >= 3 * crate::guest_path::PATH_MAX);

const ENTRY: u8 = 0;
const BYTES: u8 = 1;
const HOLE: u8 = 2;
const END: u8 = 3;
const TORN: u8 = 4;
const KEEP: u8 = 5;

/// The tag and the length of [`Piece::Bytes`].
const BYTES_HEADER: usize = 5;

/// A part of the stream; an entry as its decoded `E`, bytes as a `B`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<E, B> {
    /// The next entry.
    Entry(E),
    /// The next bytes of its content, as many as there were at hand.
    Bytes(B),
    /// The next bytes of its content, all zero.
    Hole(u64),
    /// The content is complete.
    End,
    /// The content is complete, but what was read changed meanwhile.
    Torn,
    /// There is no content to send.
    Keep,
}

impl<E, B> Piece<E, B> {
    /// The same piece, its bytes as something else.
    pub fn map_bytes<C>(self, map: impl FnOnce(B) -> C) -> Piece<E, C> {
        match self {
            Piece::Entry(entry) => Piece::Entry(entry),
            Piece::Bytes(bytes) => Piece::Bytes(map(bytes)),
            Piece::Hole(length) => Piece::Hole(length),
            Piece::End => Piece::End,
            Piece::Torn => Piece::Torn,
            Piece::Keep => Piece::Keep,
        }
    }
}

/// Why a stream is none of pieces.
#[derive(Debug, thiserror::Error)]
pub enum BadPiece {
    /// No piece has this tag.
    #[error("unknown piece {0}")]
    UnknownTag(u8),
    /// An entry would be longer than [`ENTRY_MAX`].
    #[error("an entry of {0} bytes; at most {ENTRY_MAX} are allowed")]
    TooLong(usize),
    /// An entry is not what it should be.
    #[error("a malformed entry")]
    Entry(#[from] CodecError),
}

/// Takes a stream apart, however it was cut. Holds one entry at most.
#[derive(Debug)]
pub struct PieceReader<E> {
    state: State,
    /// What has arrived of a header or an entry.
    held: Vec<u8>,
    entry: PhantomData<fn() -> E>,
}

/// Where in the stream a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    BetweenPieces,
    Header { tag: u8 },
    Entry { length: usize },
    Bytes { left: usize },
}

impl<E> Default for PieceReader<E> {
    fn default() -> Self {
        Self { state: State::BetweenPieces, held: Vec::new(), entry: PhantomData }
    }
}

impl<E: DeserializeOwned> PieceReader<E> {
    /// Takes the next piece off the front of the input, which is then shorter;
    /// `None` when all of it was taken and more is needed. Bytes are as many as
    /// were taken last.
    ///
    /// # Errors
    /// When what comes is no piece; then nothing after it is, either.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Piece<E, usize>>, BadPiece> {
        loop {
            match self.state {
                State::BetweenPieces => {
                    let Some((tag, rest)) = input.split_first() else { return Ok(None) };
                    *input = rest;
                    match *tag {
                        END => return Ok(Some(Piece::End)),
                        TORN => return Ok(Some(Piece::Torn)),
                        KEEP => return Ok(Some(Piece::Keep)),
                        tag @ (ENTRY | BYTES | HOLE) => self.state = State::Header { tag },
                        unknown => return Err(BadPiece::UnknownTag(unknown)),
                    }
                }
                State::Header { tag: HOLE } => {
                    let Some(length) = self.hold(input, 8) else { return Ok(None) };
                    self.state = State::BetweenPieces;
                    return Ok(Some(Piece::Hole(little_endian(&length))));
                }
                State::Header { tag } => {
                    let Some(length) = self.hold(input, 4) else { return Ok(None) };
                    let length = little_endian(&length) as usize;
                    self.state = match tag {
                        ENTRY if length > ENTRY_MAX => return Err(BadPiece::TooLong(length)),
                        ENTRY => State::Entry { length },
                        _ => State::Bytes { left: length },
                    };
                }
                State::Entry { length } => {
                    let Some(entry) = self.hold(input, length) else { return Ok(None) };
                    self.state = State::BetweenPieces;
                    return Ok(Some(Piece::Entry(codec::decode(&entry)?)));
                }
                State::Bytes { left: 0 } => self.state = State::BetweenPieces,
                State::Bytes { left } => {
                    let taken = input.len().min(left);
                    if taken == 0 {
                        return Ok(None);
                    }
                    *input = &input[taken..];
                    self.state = State::Bytes { left: left - taken };
                    return Ok(Some(Piece::Bytes(taken)));
                }
            }
        }
    }

    /// Whether the stream may end here: not inside a piece.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::BetweenPieces | State::Bytes { left: 0 })
    }

    /// So many bytes, once they are all there.
    fn hold(&mut self, input: &mut &[u8], length: usize) -> Option<Vec<u8>> {
        let taken = input.len().min(length - self.held.len());
        let (bytes, rest) = input.split_at(taken);
        self.held.extend_from_slice(bytes);
        *input = rest;
        (self.held.len() == length).then(|| std::mem::take(&mut self.held))
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Puts a stream together, piece by piece.
pub trait PieceSink {
    /// Why it takes no more.
    type Error;

    /// Room for more of the stream, at least [`SPARE_MIN`] bytes of it.
    ///
    /// # Errors
    /// When nobody takes the stream any more.
    fn spare(&mut self) -> Result<&mut [u8], Self::Error>;

    /// So many bytes of the room were used.
    fn advance(&mut self, length: usize);

    /// Adds bytes of the stream, whatever they mean.
    ///
    /// # Errors
    /// When nobody takes the stream any more.
    fn push(&mut self, mut bytes: &[u8]) -> Result<(), Self::Error> {
        while !bytes.is_empty() {
            let spare = self.spare()?;
            let length = bytes.len().min(spare.len());
            spare[..length].copy_from_slice(&bytes[..length]);
            self.advance(length);
            bytes = &bytes[length..];
        }
        Ok(())
    }

    /// Adds [`Piece::Entry`].
    ///
    /// # Errors
    /// When nobody takes the stream any more.
    ///
    /// # Panics
    /// When the entry is longer than [`ENTRY_MAX`]: our own never are.
    fn entry<E: Serialize>(&mut self, entry: &E) -> Result<(), Self::Error> {
        let encoded = codec::encode(entry).expect("entries can be encoded");
        assert!(encoded.len() <= ENTRY_MAX, "an entry of {} bytes", encoded.len());
        self.push(&[ENTRY])?;
        self.push(&(encoded.len() as u32).to_le_bytes())?;
        self.push(&encoded)
    }

    /// Adds [`Piece::Bytes`], up to `at_most` of what `read` puts into the room
    /// that it is given; how many those were.
    ///
    /// # Errors
    /// When nobody takes the stream any more, or when `read` fails.
    fn bytes_from<R>(
        &mut self,
        at_most: u64,
        read: impl FnOnce(&mut [u8]) -> Result<usize, R>,
    ) -> Result<Result<usize, R>, Self::Error> {
        let spare = self.spare()?;
        let (header, room) = spare.split_at_mut(BYTES_HEADER);
        let room_length = usize::try_from(at_most).unwrap_or(usize::MAX).min(room.len());
        let length = match read(&mut room[..room_length]) {
            Ok(length) => length.min(room_length),
            Err(error) => return Ok(Err(error)),
        };
        if length > 0 {
            header.copy_from_slice(&bytes_header(length));
            self.advance(BYTES_HEADER + length);
        }
        Ok(Ok(length))
    }

    /// Adds [`Piece::Hole`].
    ///
    /// # Errors
    /// When nobody takes the stream any more.
    fn hole(&mut self, length: u64) -> Result<(), Self::Error> {
        self.push(&[HOLE])?;
        self.push(&length.to_le_bytes())
    }

    /// Adds [`Piece::End`].
    ///
    /// # Errors
    /// When nobody takes the stream any more.
    fn end(&mut self) -> Result<(), Self::Error> {
        self.push(&[END])
    }

    /// Adds [`Piece::Torn`].
    ///
    /// # Errors
    /// When nobody takes the stream any more.
    fn torn(&mut self) -> Result<(), Self::Error> {
        self.push(&[TORN])
    }

    /// Adds [`Piece::Keep`].
    ///
    /// # Errors
    /// When nobody takes the stream any more.
    fn keep(&mut self) -> Result<(), Self::Error> {
        self.push(&[KEEP])
    }
}

/// What stands before so many bytes of a content.
pub(crate) fn bytes_header(length: usize) -> [u8; BYTES_HEADER] {
    let [first, second, third, fourth] = (length as u32).to_le_bytes();
    [BYTES, first, second, third, fourth]
}

/// The least room that a [`PieceSink`] gives: a piece's header, and some bytes.
pub const SPARE_MIN: usize = 512;

const _: () = assert!(SPARE_MIN > BYTES_HEADER);
