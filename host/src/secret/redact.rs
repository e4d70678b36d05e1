//! Leaving secrets out of what is told and written down.
//!
//! Whatever a secret's value covers becomes [`MARK`]: as it is, in base64,
//! percent-encoded, escaped as JSON, Rust and shells do, and each longer line of
//! it. Whether a byte is covered depends only on the bytes around it, at most
//! [`Redactor::reach`] to either side. So text in pieces comes out as the whole
//! would, and a part of it as that part of the whole, if what is around it is
//! looked at.
//!
//! - [`Redactor::text`] and [`Redactor::bytes`]: of what is there as a whole.
//! - [`Redactor::stream`]: of what comes bit by bit. It holds back what may be
//!   the beginning of a secret, and nothing else.
//! - [`Redactor::window`]: of a part, with what surrounds it, and back from
//!   lengths of what is told to those of the original.

mod automaton;
mod forms;
mod scan;
mod stream;
#[cfg(test)]
mod tests;

pub use forms::SHORTEST;
pub(crate) use forms::{is_looked_for, trimmed};
pub use stream::Redacting;

use crate::error::Error;
use automaton::Automaton;
use pyro_protocol::GuestPath;
use pyro_protocol::guest_path::PATH_MAX;
use scan::{STRETCH, Scan};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use stream::{Secret, add};

/// What stands for a secret.
pub const MARK: &str = "[REDACTED]";

/// Knows a workspace's secrets by all their spellings. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Redactor(Option<Arc<Automaton>>);

impl Redactor {
    /// Leaves these out; nothing, if there are none.
    pub fn of<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let pieces: Vec<_> = values.into_iter().flat_map(forms::pieces).collect();
        let automaton = || Arc::new(Automaton::of(pieces.iter().map(Vec::as_slice)));
        Self((!pieces.is_empty()).then(automaton))
    }

    /// Whether there is nothing to leave out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether both are the same, and not only alike.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// How many bytes before and after a part say all about it.
    #[must_use]
    pub fn reach(&self) -> usize {
        self.0.as_ref().map_or(0, |automaton| automaton.longest() * STRETCH)
    }

    /// The bytes, without secrets.
    #[must_use]
    pub fn bytes(&self, bytes: Vec<u8>) -> Vec<u8> {
        if self.is_empty() {
            return bytes;
        }
        let length = bytes.len();
        self.window(&bytes, 0..length, false).bytes
    }

    /// The text, without secrets.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.is_empty() {
            return Cow::Borrowed(text);
        }
        let told = self.window(text.as_bytes(), 0..text.len(), false);
        match told.marks.is_empty() {
            true => Cow::Borrowed(text),
            // A secret that is no text may have been a part of a character.
            false => Cow::Owned(String::from_utf8_lossy(&told.bytes).into_owned()),
        }
    }

    /// The same of a text that is ours.
    #[must_use]
    pub fn string(&self, text: String) -> String {
        match self.text(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(told) => told,
        }
    }

    /// The path, without secrets in its names.
    #[must_use]
    pub fn path(&self, path: &GuestPath) -> GuestPath {
        let mut told = self.bytes(path.as_bytes().to_vec());
        // Marks may be longer than what they stand for.
        told.truncate(PATH_MAX);
        // What is left of a path is no empty one and has no NUL more.
        GuestPath::new(told).unwrap_or_else(|_| path.clone())
    }

    /// The error, without secrets in what it says.
    #[must_use]
    pub fn error(&self, error: Error) -> Error {
        let chain = error.chain();
        let told = self.text(&chain);
        let hint = error.next_step().map(|hint| self.text(hint));
        if matches!(told, Cow::Borrowed(_)) && !matches!(hint, Some(Cow::Owned(_))) {
            return error;
        }
        let bare = Error::new(error.kind(), told);
        match hint {
            Some(hint) => bare.hint(hint),
            None => bare,
        }
    }

    /// For bytes that come bit by bit.
    #[must_use]
    pub fn stream(&self) -> Redacting {
        Redacting::new(self.clone(), 0)
    }

    /// The same for a stream whose first bytes were told before: they are looked
    /// at and left out.
    #[must_use]
    pub fn stream_after(&self, told: u64) -> Redacting {
        Redacting::new(self.clone(), told)
    }

    /// What of a part is to be told, given all that is known around it. A secret
    /// that goes on after the part is taken as a whole; with `more`, what may be
    /// the beginning of one at the end of all is left for later.
    #[must_use]
    pub fn window(&self, bytes: &[u8], part: Range<usize>, more: bool) -> Told {
        let mut told = Told::default();
        let mut at = part.start.min(bytes.len());
        let mut end = part.end.clamp(at, bytes.len());
        let Some(automaton) = &self.0 else {
            told.take(&bytes[at..end]);
            return told;
        };
        let (mut scan, mut spans) = (Scan::default(), VecDeque::new());
        scan.see(automaton, bytes, |span| add(&mut spans, Secret::at(span)));
        if more {
            end = end.min(position(scan.undecided(), bytes)).max(at);
        }
        for Secret { span, .. } in spans {
            let (from, to) = (position(span.from, bytes), position(span.to, bytes));
            if to <= at || from >= end {
                continue;
            }
            told.take(&bytes[at..from.max(at)]);
            told.hide(to - from.max(at));
            at = to;
        }
        told.take(&bytes[at..end.max(at)]);
        told
    }
}

fn position(at: u64, bytes: &[u8]) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len())
}

/// What of a part is told.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Told {
    /// The bytes to tell.
    pub bytes: Vec<u8>,
    /// How many bytes of the original that are, from the part's first on.
    pub taken: usize,
    /// Where marks are.
    pub marks: Marks,
}

impl Told {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.taken += bytes.len();
    }

    fn hide(&mut self, length: usize) {
        self.marks.0.push((self.bytes.len(), length));
        self.bytes.extend_from_slice(MARK.as_bytes());
        self.taken += length;
    }
}

/// Where marks are in what is told, and how many bytes each stands for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Marks(Vec<(usize, usize)>);

impl Marks {
    /// Whether nothing was left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes of the original the first so many told ones are; a mark
    /// that is cut counts as not told.
    #[must_use]
    pub fn original(&self, told: usize) -> usize {
        let whole = self.0.iter().take_while(|(at, _)| at + MARK.len() <= told);
        let (marks, hidden) =
            whole.fold((0, 0), |(marks, hidden), (_, length)| (marks + 1, hidden + length));
        let told = match self.0.get(marks) {
            Some((at, _)) => told.min(*at),
            None => told,
        };
        told - marks * MARK.len() + hidden
    }
}
