//! What an archive is compressed with, by its first bytes and not by its name.

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead, Read};

/// How a file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
    /// Something that is not taken: its name.
    Other(&'static str),
}

/// What is known by its first bytes and not taken.
const OTHERS: &[(&[u8], &str)] = &[
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"LZIP", "lzip"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x1f\x9d", "compress"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
];

/// How many bytes it takes to tell.
pub const MAGIC_BYTES: usize = 6;

impl Compression {
    /// Decides by the first bytes; what is nothing known is not compressed.
    #[must_use]
    pub fn of(first: &[u8]) -> Self {
        if first.starts_with(b"\x1f\x8b") {
            return Self::Gzip;
        }
        // A frame that is to be skipped may come first.
        let skippable = matches!(first, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
        if first.starts_with(b"\x28\xb5\x2f\xfd") || skippable {
            return Self::Zstd;
        }
        let known = OTHERS.iter().find(|(magic, _)| first.starts_with(magic));
        known.map_or(Self::None, |(_, name)| Self::Other(name))
    }
}

/// What gzip compressed, all members of it.
pub fn gzip<'a>(input: impl BufRead + 'a) -> Box<dyn Read + 'a> {
    Box::new(MultiGzDecoder::new(input))
}

/// What zstd compressed, all frames of it.
pub fn zstd<'a>(input: impl BufRead + 'a) -> Box<dyn Read + 'a> {
    Box::new(Frames::new(input))
}

/// Zstandard frames, one after the other; those to be skipped are. The decoder
/// refuses windows of more than 128 MiB, so its memory is bounded.
struct Frames<R> {
    input: R,
    decoder: FrameDecoder,
    state: Frame,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    Between,
    Within,
}

impl<R: BufRead> Frames<R> {
    fn new(input: R) -> Self {
        Self { input, decoder: FrameDecoder::new(), state: Frame::Between }
    }

    /// Begins the next frame; false at the end.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.input.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.input) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.input).take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(damaged(&error)),
            }
        }
        Ok(false)
    }

    fn end(&self) -> io::Result<()> {
        let said = self.decoder.get_checksum_from_data();
        if said.is_some() && said != self.decoder.get_calculated_checksum() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a checksum is wrong"));
        }
        Ok(())
    }
}

/// What the decoder says, unless it is only that there is no more.
fn damaged(error: &FrameDecoderError) -> io::Error {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::UnexpectedEof) {
            return io::ErrorKind::UnexpectedEof.into();
        }
        source = error.source();
    }
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.state == Frame::Between {
                if !self.begin()? {
                    return Ok(0);
                }
                self.state = Frame::Within;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| damaged(&error))?;
            }
            let count = self.decoder.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            self.end()?;
            self.state = Frame::Between;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_decide() {
        for (first, compression) in [
            (&b""[..], Compression::None),
            (b"some/name\0\0", Compression::None),
            (b"\x1f\x8b\x08", Compression::Gzip),
            (b"\x28\xb5\x2f\xfd\0", Compression::Zstd),
            (b"\x5a\x2a\x4d\x18\0", Compression::Zstd),
            (b"\xfd7zXZ\0\0", Compression::Other("xz")),
            (b"BZh9", Compression::Other("bzip2")),
        ] {
            assert_eq!(Compression::of(first), compression);
        }
    }

    /// Frames with one uncompressed block each, by hand.
    fn frame(content: &[u8]) -> Vec<u8> {
        let size = u8::try_from(content.len()).expect("short");
        // One segment, its size in one byte, no checksum.
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x20, size];
        frame.extend_from_slice(&[size << 3 | 1, size >> 5, 0]);
        frame.extend_from_slice(content);
        frame
    }

    #[test]
    fn frames_follow_one_another_and_some_are_skipped() {
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let input = [frame(b"one, "), skipped.to_vec(), frame(b"two"), frame(b"")].concat();
        let decode = |input: &[u8]| {
            let mut output = Vec::new();
            zstd(input).read_to_end(&mut output).map(|_| output)
        };
        assert_eq!(decode(&input).expect("whole"), b"one, two");
        for cut in [3, 8, 10, 16, 20, 24] {
            assert!(decode(&input[..cut]).is_err(), "{cut}");
        }
    }
}
