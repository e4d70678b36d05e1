//! What an archive is compressed with, by its first bytes and not by its name.

use flate2::bufread::GzDecoder;
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

/// What gzip compressed, all members of it, up to what is none.
pub fn gzip<'a>(input: impl BufRead + 'a) -> Box<dyn Read + 'a> {
    Box::new(Members { next: Some(GzDecoder::new(input)) })
}

/// What zstd compressed, all frames of it, up to what is none.
pub fn zstd<'a>(input: impl BufRead + 'a) -> Box<dyn Read + 'a> {
    Box::new(Frames::new(input))
}

/// Members of gzip, one after the other; the checksum of each is compared at
/// its end.
struct Members<R> {
    next: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.next {
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let mut input = self.next.take().map(GzDecoder::into_inner);
            // Tapes and downloads put zeros and other things behind.
            let more = match &mut input {
                Some(input) => input.fill_buf()?.first() == Some(&0x1f),
                None => false,
            };
            self.next = input.filter(|_| more).map(GzDecoder::new);
        }
        Ok(0)
    }
}

/// Zstandard frames, one after the other; those to be skipped are. The decoder
/// refuses windows of more than 128 MiB, so its memory is bounded.
struct Frames<R> {
    input: R,
    decoder: FrameDecoder,
    state: Frame,
    /// Whether there was a frame already.
    begun: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    Between,
    Within,
}

impl<R: BufRead> Frames<R> {
    fn new(input: R) -> Self {
        Self { input, decoder: FrameDecoder::new(), state: Frame::Between, begun: false }
    }

    /// Begins the next frame; false at the end.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.input.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.input) {
                Ok(()) => {
                    self.begun = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(
                    ReadFrameHeaderError::BadMagicNumber(_)
                    | ReadFrameHeaderError::MagicNumberReadError(_),
                )) if self.begun => return Ok(false),
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
        for cut in [3, 8, 10, 20, 24] {
            assert!(decode(&input[..cut]).is_err(), "{cut}");
        }
        // What is no frame behind one is nobody's.
        for garbage in [&[0; 2][..], &[0; 1000]] {
            let decoded = decode(&[&input, garbage].concat());
            assert_eq!(decoded.expect("whole"), b"one, two");
            assert!(decode(garbage).is_err());
        }
    }
}
