//! Parts of what a guest's programs write, as far as they may be told.

use super::live::Live;
use crate::secret::redact::Told;
use pyro_protocol::kept::Slice;

/// Consecutive bytes of a stream, without secrets. Where they begin and end is
/// told in bytes as the program wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenSlice {
    /// The cursor of the first byte.
    pub start: u64,
    /// What there is to tell.
    pub told: Told,
    /// How many bytes the stream has had so far.
    pub end: u64,
}

impl SeenSlice {
    /// At most so many bytes of a slice, after those that come before it. What
    /// may be the beginning of a secret is left for later while `more` may come.
    pub(super) fn of(
        live: &Live,
        slice: Slice,
        before: Vec<u8>,
        wanted: usize,
        is_running: bool,
    ) -> Self {
        let more = is_running || slice.next_cursor() < slice.end;
        let (start, end, from) = (slice.start, slice.end, before.len());
        let bytes = [before, slice.data.0].concat();
        let told = live.redactor().window(&bytes, from..from.saturating_add(wanted), more);
        Self { start, told, end }
    }
}

/// How many bytes around a slice say something about it.
pub(super) fn reach(live: &Live) -> u32 {
    u32::try_from(live.redactor().reach()).unwrap_or(u32::MAX)
}

/// Whether what comes before a slice says something about it.
pub(super) fn is_preceded(slice: &Slice) -> bool {
    slice.start > 0 && !slice.data.0.is_empty()
}

/// What comes right before a slice, of what was fetched from an earlier cursor
/// on; what is gone by now says nothing any more.
pub(super) fn before(earlier: Slice, slice: &Slice) -> Vec<u8> {
    let length = slice.start.saturating_sub(earlier.start);
    let mut bytes = earlier.data.0;
    bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    if earlier.start.saturating_add(bytes.len() as u64) == slice.start { bytes } else { Vec::new() }
}
