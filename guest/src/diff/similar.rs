//! How much of one file is in another, as git estimates it: by the lines, or
//! pieces of long ones, that they share.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A line longer than this counts as several.
const PIECE_MAX: usize = 64;

/// A file with more different pieces is not compared: with the most files that
/// are, twice this many take 6 MiB.
const PIECES_MAX: usize = 4096;

/// How many bytes of a file each of its pieces makes up.
pub(super) struct Fingerprint {
    /// By hash, ascending.
    pieces: Vec<(u32, u32)>,
    size: u64,
}

impl Fingerprint {
    /// `None` when there are too many pieces.
    pub(super) fn of(content: &[u8]) -> Option<Self> {
        let mut bytes: HashMap<u32, u32> = HashMap::new();
        let pieces =
            content.split_inclusive(|byte| *byte == b'\n').flat_map(|line| line.chunks(PIECE_MAX));
        for piece in pieces {
            let mut hasher = DefaultHasher::new();
            piece.hash(&mut hasher);
            // Half of the hash is as good a hash.
            let hash = (hasher.finish() >> 32) as u32;
            *bytes.entry(hash).or_default() += piece.len() as u32;
            if bytes.len() > PIECES_MAX {
                return None;
            }
        }
        let mut pieces: Vec<_> = bytes.into_iter().collect();
        pieces.sort_unstable();
        Some(Self { pieces, size: content.len() as u64 })
    }

    /// The shared part of the larger one, in percent.
    pub(super) fn likeness(&self, other: &Self) -> u32 {
        let (small, large) = (self.size.min(other.size), self.size.max(other.size));
        // However alike, the small one is not half of the large one.
        if large == 0 || small * 2 < large {
            return 0;
        }
        let (mut shared, mut rest) = (0, other.pieces.as_slice());
        for (hash, bytes) in &self.pieces {
            while let Some((_, after)) = rest.split_first().filter(|(first, _)| first.0 < *hash) {
                rest = after;
            }
            if let Some((found, others)) = rest.first()
                && found == hash
            {
                shared += u64::from(*bytes.min(others));
            }
        }
        u32::try_from(shared * 100 / large).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likeness_is_the_shared_part() {
        let print = |text: &str| Fingerprint::of(text.as_bytes()).unwrap();
        let lines = |range: std::ops::Range<u32>| {
            range.map(|number| format!("{number:09}\n")).collect::<String>()
        };
        assert_eq!(print(&lines(0..100)).likeness(&print(&lines(0..100))), 100);
        assert_eq!(print(&lines(0..100)).likeness(&print(&lines(25..125))), 75);
        assert_eq!(print(&lines(0..100)).likeness(&print(&lines(0..40))), 0);
        assert_eq!(print(&lines(0..100)).likeness(&print(&lines(100..200))), 0);
        assert!(Fingerprint::of(lines(0..10_000).as_bytes()).is_none());
    }
}
