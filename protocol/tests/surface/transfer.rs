//! Trees as streams of pieces, and what carries them.

use crate::any;
use crate::pieces::block_on;
use proptest::collection::vec;
use proptest::prelude::*;
use pyro_protocol::export::ExportEntry;
use pyro_protocol::io::FRAME_ROOM;
use pyro_protocol::piece::{BadPiece, ENTRY_MAX, Piece, PieceReader, PieceSink};
use pyro_protocol::process::Signal;
use pyro_protocol::transfer::{CutOff, NoPiece, incoming, outgoing};
use pyro_protocol::{ByteString, FrameKind, FrameReader, FrameWriter};
use std::convert::Infallible;

type Any = Piece<ExportEntry, Vec<u8>>;

/// A stream in memory, with little room at a time.
#[derive(Default)]
struct Memory {
    bytes: Vec<u8>,
    spare: Vec<u8>,
}

impl PieceSink for Memory {
    type Error = Infallible;

    fn spare(&mut self) -> Result<&mut [u8], Infallible> {
        self.spare = vec![0; 600];
        Ok(&mut self.spare)
    }

    fn advance(&mut self, length: usize) {
        self.bytes.extend_from_slice(&self.spare[..length]);
    }
}

fn put<S: PieceSink>(sink: &mut S, piece: &Any) -> Result<(), S::Error> {
    match piece {
        Piece::Entry(entry) => sink.entry(entry),
        Piece::Hole(length) => sink.hole(*length),
        Piece::End => sink.end(),
        Piece::Torn => sink.torn(),
        Piece::Keep => sink.keep(),
        Piece::Bytes(bytes) => {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let read =
                    sink.bytes_from(u64::MAX, |room| std::io::Read::read(&mut rest, room))?;
                read.expect("memory can be read");
            }
            Ok(())
        }
    }
}

fn piece() -> impl Strategy<Value = Any> {
    prop_oneof![
        any::export_entry().prop_map(Piece::Entry),
        vec(any::<u8>(), 1..2000).prop_map(Piece::Bytes),
        any::<u64>().prop_map(Piece::Hole),
        Just(Piece::End),
        Just(Piece::Torn),
        Just(Piece::Keep),
    ]
}

/// Neighbouring bytes as one: how they were cut does not matter.
fn joined(pieces: impl IntoIterator<Item = Any>) -> Vec<Any> {
    let mut joined: Vec<Any> = Vec::new();
    for piece in pieces {
        match (joined.last_mut(), piece) {
            (Some(Piece::Bytes(last)), Piece::Bytes(bytes)) => last.extend(bytes),
            (_, piece) => joined.push(piece),
        }
    }
    joined
}

/// Reads pieces out of input that comes in parts of these sizes, over and over.
fn take_apart(
    bytes: &[u8],
    cuts: &[usize],
) -> Result<(Vec<Any>, PieceReader<ExportEntry>), BadPiece> {
    let mut reader = PieceReader::default();
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for cut in cuts.iter().cycle() {
        let (mut input, later) = rest.split_at((*cut).min(rest.len()));
        loop {
            let before = input;
            let Some(piece) = reader.next(&mut input)? else { break };
            let taken = before.len() - input.len();
            pieces.push(piece.map_bytes(|length| before[taken - length..taken].to_vec()));
        }
        assert!(input.is_empty());
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    Ok((pieces, reader))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn pieces_arrive_however_they_are_cut(pieces in vec(piece(), 0..12), cuts in vec(1..900_usize, 1..8)) {
        let mut memory = Memory::default();
        for piece in &pieces {
            let Ok(()) = put(&mut memory, piece);
        }
        let (read, reader) = take_apart(&memory.bytes, &cuts)?;
        prop_assert!(reader.is_complete());
        prop_assert_eq!(joined(read), joined(pieces));
    }

    #[test]
    fn an_entry_cut_short_is_not_complete(entry in any::export_entry(), cuts in vec(1..40_usize, 1..4)) {
        let mut memory = Memory::default();
        let Ok(()) = memory.entry(&entry);
        memory.bytes.pop();
        let (read, reader) = take_apart(&memory.bytes, &cuts)?;
        prop_assert!(read.is_empty() && !reader.is_complete());
    }

    #[test]
    fn no_bytes_are_too_odd(bytes in vec(any::<u8>(), 1..300), cuts in vec(1..40_usize, 1..4)) {
        // Whatever comes of it.
        drop(take_apart(&bytes, &cuts));
    }

    #[test]
    fn a_transfer_carries_them(pieces in vec(piece(), 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let read = runtime.block_on(async {
            let (ours, theirs) = tokio::io::duplex(100_000);
            let (_ours, ours) = tokio::io::split(ours);
            let (mut sink, mut outlet) = outgoing(3);
            let (source, inlet) = incoming();
            let sent = pieces.clone();
            let putting = tokio::task::spawn_blocking(move || {
                for piece in &sent {
                    put(&mut sink, piece)?;
                }
                sink.flush()
            });
            let taking = tokio::task::spawn_blocking(move || {
                let mut pieces = source.pieces::<ExportEntry>();
                let mut read = Vec::new();
                while let Some(piece) = pieces.piece()? {
                    read.push(piece.map_bytes(<[u8]>::to_vec));
                }
                Ok::<_, NoPiece>(read)
            });
            let mut writer = FrameWriter::new(ours);
            let mut reader = FrameReader::new(theirs);
            let sending = async {
                outlet.forward(&mut writer).await?;
                writer.send_raw(FrameKind::DataEnd, b"end").await
            };
            let (sent, end) = tokio::join!(sending, inlet.forward(&mut reader));
            sent.expect("sent");
            assert_eq!(end.expect("received").expect("an end").payload, b"end");
            assert_eq!(putting.await.expect("no panic"), Ok(()));
            taking.await.expect("no panic").expect("pieces")
        });
        prop_assert_eq!(joined(read), joined(pieces));
    }
}

#[test]
fn an_entry_beyond_the_limit_is_refused_before_it_is_held() {
    let mut input: &[u8] = &[[0_u8].as_slice(), &(ENTRY_MAX as u32 + 1).to_le_bytes()].concat();
    let mut reader = PieceReader::<ExportEntry>::default();
    assert!(matches!(reader.next(&mut input), Err(BadPiece::TooLong(_))));
    let mut input: &[u8] = &[6];
    let mut reader = PieceReader::<ByteString>::default();
    assert!(matches!(reader.next(&mut input), Err(BadPiece::UnknownTag(6))));
}

#[test]
fn a_thread_hears_when_the_other_side_has_gone() {
    let (mut sink, outlet) = outgoing(3);
    drop(outlet);
    assert_eq!(sink.push(&vec![0; 1024 * 1024]), Err(CutOff));
    let (mut source, inlet) = incoming();
    drop(inlet);
    assert_eq!(source.bytes(), Err(CutOff));
}

#[test]
fn a_frame_that_has_no_place_ends_a_transfer() {
    block_on(async {
        let (ours, theirs) = tokio::io::duplex(1000);
        let mut writer = FrameWriter::new(ours);
        writer.send_raw(FrameKind::Stdout, b"x").await.expect("sent");
        let (_source, inlet) = incoming();
        let last = inlet.forward(&mut FrameReader::new(theirs)).await.expect("a frame");
        assert_eq!(last.expect("it was not data").kind, FrameKind::Stdout);
    });
}

#[test]
fn r17_what_was_queued_leaves_before_what_is_sent() {
    block_on(async {
        let (ours, theirs) = tokio::io::duplex(1024);
        let (mut writer, mut reader) = (FrameWriter::new(ours), FrameReader::new(theirs));
        writer.queue(FrameKind::Signal, &Signal { number: 15 }).unwrap();
        let buffer = [vec![0; FRAME_ROOM], b"input".to_vec()].concat();
        writer.send_buffer(FrameKind::Stdin, buffer).await.unwrap();
        assert_eq!(reader.next().await.unwrap().kind, FrameKind::Signal);
        assert_eq!(reader.next().await.unwrap().payload, b"input");
    });
}
