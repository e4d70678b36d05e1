//! P5: content goes over the wire as it is, and is read in large pieces.

use crate::pieces::block_on;
use pyro_protocol::frame::HEADER_LEN;
use pyro_protocol::kept::{ProcessId, ProcessPolled, ProcessState, SLICE_MAX, Slice, WriteProcess};
use pyro_protocol::{ByteString, Call, FrameKind, FrameReader, FrameWriter};
use serde::Serialize;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// What a call or reply may weigh beyond its content.
const FRAME_MAX: usize = 128;

/// Counts how often it is read.
struct Counted {
    bytes: io::Cursor<Vec<u8>>,
    reads: usize,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reads += 1;
        let wanted = buffer.remaining();
        let read = io::Read::read(&mut self.bytes, buffer.initialize_unfilled_to(wanted))?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

/// Every byte there is: none of them is dearer than another.
fn content(length: usize) -> Vec<u8> {
    (0..=u8::MAX).cycle().take(length).collect()
}

#[test]
fn p5_streams_are_raw_and_read_by_whole_frames() {
    for kind in [FrameKind::Stdin, FrameKind::Stdout, FrameKind::Stderr, FrameKind::Data] {
        let content = content(1 << 20);
        let mut writer = FrameWriter::new(Vec::new());
        let chunks = content.chunks(kind.limit());
        let frames = chunks.len();
        for chunk in chunks {
            block_on(writer.send_raw(kind, chunk)).expect("memory takes it");
        }
        let wire = writer.into_inner();
        assert_eq!(wire.len(), content.len() + frames * HEADER_LEN, "{kind:?}");
        let counted = Counted { bytes: io::Cursor::new(wire), reads: 0 };
        let mut reader = FrameReader::new(counted);
        let mut read = Vec::new();
        while read.len() < content.len() {
            read.extend(block_on(reader.next()).expect("a frame").payload);
        }
        assert!(read == content, "{kind:?}");
        let reads = reader.into_inner().reads;
        assert!(reads <= 2 * frames, "{kind:?}: {reads} reads of {frames} frames");
    }
}

fn weight(kind: FrameKind, value: &impl Serialize) -> usize {
    let mut writer = FrameWriter::new(Vec::new());
    block_on(writer.send(kind, value)).expect("it fits");
    writer.into_inner().len()
}

#[test]
fn p5_bytes_within_calls_and_replies_are_raw_too() {
    let data = content(SLICE_MAX as usize);
    let id = ProcessId([7; 6]);
    let write = WriteProcess { id, data: ByteString(data.clone()), end: true, wait_ms: u32::MAX };
    let weighed = weight(FrameKind::Call, &Call::from(write));
    assert!(weighed <= data.len() + FRAME_MAX, "{weighed}");
    let at = u64::MAX;
    let slice = |data| Slice { oldest: at, start: at, data: ByteString(data), end: at };
    let polled = ProcessPolled {
        state: ProcessState::Lost,
        stdout: slice(data.clone()),
        stderr: slice(Vec::new()),
    };
    let weighed = weight(FrameKind::Reply, &polled);
    assert!(weighed <= data.len() + FRAME_MAX, "{weighed}");
}
