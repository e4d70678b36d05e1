//! The content of files: blocks one after the other, and none for zeros.

use super::format::BLOCK;
use super::output::{BATCH, Output};
use crate::error::{Error, ErrorKind, Result};
use crate::seed::entry::Content;
use crate::seed::tree::{Blocks, HOLE, Stored};
use crate::seed::walk::FILE_BYTES_MAX;

/// The smallest chunk that is left out when it is all zeros, as a power of two
/// of blocks. Smaller ones would find more, and take a guest longer to look up.
const CHUNK_BITS: u16 = 4;

/// How many chunks a file has at most, so that their addresses (4 bytes each)
/// stay small: larger files have larger chunks.
const CHUNKS_MAX: u64 = 1 << 18;

/// How many chunks all files with holes have at most. Their addresses are in
/// memory until the end: a small archive can hold many large holes.
const ALL_CHUNKS_MAX: usize = 1 << 24;

/// What is read at a time: the smallest chunk.
const PIECE: usize = BLOCK << CHUNK_BITS;

const _: () = assert!(PIECE <= BATCH);
// The format counts chunks of up to 2 to the power of 31 blocks.
const _: () = assert!(FILE_BYTES_MAX / CHUNKS_MAX / (BLOCK as u64) < 1 << 31);

/// How many more chunks there may be.
#[derive(Debug)]
pub struct ChunksLeft(usize);

impl Default for ChunksLeft {
    fn default() -> Self {
        Self(ALL_CHUNKS_MAX)
    }
}

impl ChunksLeft {
    fn take(&mut self, count: usize) -> Result<()> {
        self.0 = self.0.checked_sub(count).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "the files with holes are too large together")
                .hint("leave out large sparse files, such as disk images")
        })?;
        Ok(())
    }
}

/// Stores a file's content.
///
/// # Errors
/// When it cannot be read, the image cannot be written, or is full.
pub fn store(
    size: u64,
    content: &mut dyn Content,
    chunks_left: &mut ChunksLeft,
    output: &mut Output,
) -> Result<Stored> {
    let mut bits = CHUNK_BITS;
    while size.div_ceil((BLOCK as u64) << bits) > CHUNKS_MAX {
        bits += 1;
    }
    let chunk_bytes = (BLOCK as u64) << bits;
    let first = output.position()?;
    // Only a file with a hole has them.
    let mut chunks: Option<Vec<u32>> = None;
    for index in 0..size.div_ceil(chunk_bytes) {
        let bytes = chunk_bytes.min(size - index * chunk_bytes);
        let at = output.position()?;
        let stored = store_chunk(bytes, content, output)?;
        if !stored && chunks.is_none() {
            let blocks_each = 1_usize << bits;
            // Until here there was no hole, and blocks are counted in 32 bits.
            let before: Vec<u32> = (first..at).step_by(blocks_each).collect();
            chunks_left.take(before.len())?;
            chunks = Some(before);
        }
        if let Some(chunks) = &mut chunks {
            chunks_left.take(1)?;
            chunks.push(if stored { at } else { HOLE });
        }
    }
    let blocks = chunks.map_or(Blocks::Flat(first), |chunks| Blocks::Chunks {
        bits,
        chunks: chunks.into_boxed_slice(),
    });
    Ok(Stored { size, blocks })
}

/// Stores a chunk, unless it is all zeros, and tells which.
fn store_chunk(bytes: u64, content: &mut dyn Content, output: &mut Output) -> Result<bool> {
    let mut left = bytes;
    // Zeros that were seen and not stored.
    let mut zeros = 0;
    let mut stored = false;
    while left > 0 {
        let known = content.zeros().map_err(unreadable)?.min(left);
        if known == left || known >= PIECE as u64 {
            let known = if known == left { known } else { known - known % PIECE as u64 };
            content.skip_zeros(known);
            (zeros, left) = (zeros + known, left - known);
            continue;
        }
        let piece = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        let whole = piece.next_multiple_of(BLOCK);
        let room = output.room(whole)?;
        content.read_exact(&mut room[..piece]).map_err(unreadable)?;
        left -= piece as u64;
        if is_zero(&room[..piece]) {
            output.give_back(whole);
            zeros += piece as u64;
        } else if zeros > 0 {
            let kept = room.to_vec();
            output.give_back(whole);
            append_zeros(std::mem::take(&mut zeros), output)?;
            output.append(&kept)?;
            stored = true;
        } else {
            stored = true;
        }
    }
    if stored {
        append_zeros(zeros, output)?;
    }
    Ok(stored)
}

fn append_zeros(mut count: u64, output: &mut Output) -> Result<()> {
    while count > 0 {
        let now = usize::try_from(count).map_or(PIECE, |count| count.min(PIECE));
        output.append(&[0; PIECE][..now])?;
        count -= now as u64;
        // Says so when the device is full.
        output.position()?;
    }
    Ok(())
}

fn unreadable(error: std::io::Error) -> Error {
    Error::io("cannot read the content of a file", error)
}

fn is_zero(bytes: &[u8]) -> bool {
    let mut chunks = bytes.chunks_exact(64);
    // Without an early end, so that a chunk is a few instructions.
    chunks.by_ref().all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
        && chunks.remainder().iter().all(|byte| *byte == 0)
}
