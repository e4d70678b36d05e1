//! The last of what came out of a terminal.

use pyro_protocol::ByteString;
use pyro_protocol::kept::Slice;
use pyro_protocol::shell::RETAINED;
use std::collections::VecDeque;

/// At most [`RETAINED`] bytes, the last ones; counted from the very first.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    kept: VecDeque<u8>,
    /// How many there have been.
    end: u64,
}

impl Transcript {
    /// Adds what came out.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.end = self.end.saturating_add(bytes.len() as u64);
        let last = bytes.get(bytes.len().saturating_sub(RETAINED)..).unwrap_or_default();
        let excess = (self.kept.len() + last.len()).saturating_sub(RETAINED);
        self.kept.drain(..excess);
        self.kept.extend(last);
    }

    /// The oldest byte that is still kept.
    pub(super) fn oldest(&self) -> u64 {
        self.end.saturating_sub(self.kept.len() as u64)
    }

    /// How many bytes there have been.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Up to so many bytes from this cursor on, or from the oldest if those
    /// before are gone.
    pub(super) fn read(&self, cursor: u64, most: usize) -> Slice {
        let (oldest, end) = (self.oldest(), self.end);
        let start = cursor.clamp(oldest, end);
        // Both are within what is kept.
        let from = usize::try_from(start - oldest).unwrap_or(usize::MAX).min(self.kept.len());
        let data: Vec<u8> = self.kept.range(from..).copied().take(most).collect();
        Slice { oldest, start, data: ByteString(data), end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Whatever comes, and however it is read: each byte stands where it
        /// was counted, and a reader knows what it missed.
        #[test]
        fn r17_cursors_mean_the_same_byte_for_ever(
            lengths in vec(prop_oneof![0..100_usize, 0..RETAINED * 2], 0..12),
            cursor: u64,
            most in 0..3000_usize,
        ) {
            let mut transcript = Transcript::default();
            let mut all = Vec::new();
            for length in lengths {
                let piece: Vec<u8> = (all.len()..all.len() + length).map(|at| (at % 251) as u8).collect();
                transcript.push(&piece);
                all.extend(piece);
            }
            let end = all.len() as u64;
            let cursor = cursor % (end + 1);
            let slice = transcript.read(cursor, most);
            prop_assert_eq!((slice.end, transcript.end()), (end, end));
            prop_assert_eq!(slice.oldest, end.saturating_sub(RETAINED as u64));
            prop_assert_eq!(slice.start, cursor.max(slice.oldest));
            let from = slice.start as usize;
            let to = all.len().min(from + most);
            prop_assert_eq!(&slice.data.0, &all[from..to]);
            prop_assert!(transcript.kept.len() <= RETAINED);
            prop_assert!(transcript.kept.capacity() <= 2 * RETAINED);
        }
    }
}
