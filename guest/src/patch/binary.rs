//! Binary hunks: a content whole, or what to change of the old one.

use super::hunk::Lines;
use super::parse::Malformed;
use crate::git::base85;
use flate2::write::ZlibDecoder;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// The largest content that a binary patch makes.
pub(crate) const CONTENT_MAX: u64 = 64 * 1024 * 1024;

/// Deltas are unpacked in memory; a larger one is refused.
const DELTA_MAX: u64 = 8 * 1024 * 1024;

/// Of the old content so many bytes are copied at a time.
const COPIED: usize = 16 * 1024;

/// One direction of a binary patch; its lines stay in the patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BinaryHunk {
    is_delta: bool,
    size: u64,
    lines: Range<usize>,
}

impl BinaryHunk {
    /// Reads one, to the blank line after it; `None` when there is none.
    pub(super) fn parse(lines: &mut Lines<'_>) -> Result<Option<Self>, Malformed> {
        let number = lines.number();
        let head = |line: &[u8]| {
            let line = std::str::from_utf8(line.trim_ascii_end()).ok()?;
            let (kind, size) = line.split_once(' ')?;
            let is_delta = match kind {
                "literal" => false,
                "delta" => true,
                _ => return None,
            };
            Some((is_delta, size.parse().ok()?))
        };
        let Some((is_delta, size)) = lines.peek().and_then(head) else { return Ok(None) };
        if size > if is_delta { DELTA_MAX } else { CONTENT_MAX } {
            return Err(Malformed::new(number, format!("a binary content of {size} bytes")));
        }
        lines.next();
        let start = lines.at();
        let mut line = Vec::new();
        while let Some(text) =
            lines.peek().map(<[u8]>::trim_ascii_end).filter(|text| !text.is_empty())
        {
            line.clear();
            if base85::read_line(text, &mut line).is_none() {
                return Err(Malformed::new(lines.number(), "no base 85"));
            }
            lines.next();
        }
        let end = lines.at();
        lines.next();
        Ok(Some(Self { is_delta, size, lines: start..end }))
    }

    /// Writes the new content, given the old one.
    pub(crate) fn apply(&self, patch: &[u8], old: Option<&File>, new: &mut File) -> io::Result<()> {
        if !self.is_delta {
            return self.unpack(patch, new);
        }
        let mut delta = Vec::new();
        self.unpack(patch, &mut delta)?;
        let old = old.ok_or_else(|| broken("a delta of nothing"))?;
        apply_delta(&delta, old, new)
    }

    fn unpack(&self, patch: &[u8], to: &mut impl Write) -> io::Result<()> {
        let bounded = Bounded { to, left: self.size };
        let mut decoder = ZlibDecoder::new(bounded);
        let mut line = Vec::with_capacity(base85::LINE_BYTES);
        let text = patch.get(self.lines.clone()).unwrap_or_default();
        for packed in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end) {
            if packed.is_empty() {
                continue;
            }
            line.clear();
            base85::read_line(packed, &mut line).ok_or_else(|| broken("no base 85"))?;
            decoder.write_all(&line).map_err(|_| broken("it cannot be unpacked"))?;
        }
        let bounded = decoder.finish().map_err(|_| broken("it cannot be unpacked"))?;
        if bounded.left == 0 { Ok(()) } else { Err(broken("it is shorter than it says")) }
    }
}

/// Takes as much as was announced.
struct Bounded<'a, W> {
    to: &'a mut W,
    left: u64,
}

impl<W: Write> Write for Bounded<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| broken("it is longer than it says"))?;
        self.to.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Does what git's packs do: copy from the old content, or insert.
fn apply_delta(delta: &[u8], old: &File, new: &mut File) -> io::Result<()> {
    let mut rest = delta;
    let mut byte = || {
        let (first, after) = rest.split_first()?;
        rest = after;
        Some(*first)
    };
    let truncated = || broken("its delta is cut off");
    let old_size = number(&mut byte).ok_or_else(truncated)?;
    let new_size = number(&mut byte).ok_or_else(truncated)?;
    if old_size != old.metadata()?.len() {
        return Err(broken("it is for another content"));
    }
    if new_size > CONTENT_MAX {
        return Err(broken("its content would be too large"));
    }
    let mut left = new_size;
    let mut take = |count: u64| {
        left = left.checked_sub(count).ok_or_else(|| broken("its delta makes too much"))?;
        Ok::<_, io::Error>(left)
    };
    while let Some(command) = byte() {
        if command & 0x80 == 0 {
            if command == 0 {
                return Err(broken("its delta has an unknown command"));
            }
            take(command.into())?;
            let inserted: Option<Vec<u8>> = (0..command).map(|_| byte()).collect();
            new.write_all(&inserted.ok_or_else(truncated)?)?;
            continue;
        }
        let mut field = |bits: std::ops::Range<u8>| {
            let first = bits.start;
            bits.filter(|bit| command & 1 << bit != 0).try_fold(0_u64, |value, bit| {
                Some(value | u64::from(byte()?) << (8 * (bit - first)))
            })
        };
        let offset = field(0..4).ok_or_else(truncated)?;
        let size = match field(4..7).ok_or_else(truncated)? {
            0 => 0x1_0000,
            size => size,
        };
        take(size)?;
        let mut copied = [0; COPIED];
        let end = offset + size;
        for at in (offset..end).step_by(COPIED) {
            let length = usize::try_from(end - at).unwrap_or(COPIED).min(COPIED);
            old.read_exact_at(&mut copied[..length], at)
                .map_err(|_| broken("it copies what is not there"))?;
            new.write_all(&copied[..length])?;
        }
    }
    if take(0)? == 0 { Ok(()) } else { Err(broken("its delta makes too little")) }
}

/// A number in groups of seven bits, the lowest first.
fn number(byte: &mut impl FnMut() -> Option<u8>) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let next = byte()?;
        value |= u64::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}
