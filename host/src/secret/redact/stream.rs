//! Secrets left out of bytes on their way.

use super::scan::{Scan, Span};
use super::{MARK, Redactor};
use std::collections::VecDeque;

/// A stretch of secrets.
#[derive(Debug)]
pub(super) struct Secret {
    pub(super) span: Span,
    /// Whether its mark is out.
    marked: bool,
}

impl Secret {
    pub(super) const fn at(span: Span) -> Self {
        Self { span, marked: false }
    }
}

/// Adds a stretch after those before; what overlaps becomes one.
pub(super) fn add(secrets: &mut VecDeque<Secret>, mut new: Secret) {
    while let Some(last) = secrets.pop_back_if(|last| last.span.to > new.span.from) {
        new.span.from = new.span.from.min(last.span.from);
        new.span.to = new.span.to.max(last.span.to);
        new.marked |= last.marked;
    }
    secrets.push_back(new);
}

/// A stream on its way. What it holds back never is more than
/// [`Redactor::reach`].
#[derive(Debug)]
pub struct Redacting {
    redactor: Redactor,
    scan: Scan,
    secrets: VecDeque<Secret>,
    /// What is not out yet, and where it begins.
    held: Vec<u8>,
    from: u64,
    /// What comes before was told elsewhere.
    begin: u64,
}

impl Redacting {
    pub(super) fn new(redactor: Redactor, begin: u64) -> Self {
        let (scan, secrets, held) = (Scan::default(), VecDeque::new(), Vec::new());
        Self { redactor, scan, secrets, held, from: 0, begin }
    }

    /// Takes the next bytes, and gives what can be told now.
    #[must_use]
    pub fn push(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let Some(automaton) = &self.redactor.0 else {
            let skipped = self.begin.saturating_sub(self.from);
            self.from += bytes.len() as u64;
            return match usize::try_from(skipped).unwrap_or(usize::MAX) {
                0 => bytes,
                skipped => bytes.get(skipped..).unwrap_or_default().to_vec(),
            };
        };
        self.scan.see(automaton, &bytes, |span| add(&mut self.secrets, Secret::at(span)));
        self.held.extend(bytes);
        self.release(self.scan.undecided())
    }

    /// Gives what was held back: nothing more comes.
    #[must_use]
    pub fn finish(&mut self) -> Vec<u8> {
        self.release(u64::MAX)
    }

    /// How many bytes are held back.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.len() as u64
    }

    /// Notes that so many bytes are missing here: nothing goes on across them.
    /// Gives what was held back, and how many of the missing ones were not told
    /// elsewhere.
    #[must_use]
    pub fn skip(&mut self, bytes: u64) -> (Vec<u8>, u64) {
        let before = self.from + self.held();
        let after = before.saturating_add(bytes);
        let rest = self.finish();
        let missing = after.saturating_sub(before.max(self.begin));
        *self = Self::new(self.redactor.clone(), self.begin.saturating_sub(after));
        (rest, missing)
    }

    fn release(&mut self, until: u64) -> Vec<u8> {
        let (mut told, mut rest) = (Vec::new(), self.held.as_slice());
        let end = self.from + rest.len() as u64;
        let until = until.min(end);
        let mut take = |from: &mut u64, to: u64| {
            let length = usize::try_from(to.saturating_sub(*from)).unwrap_or(usize::MAX);
            let (taken, after) = rest.split_at(length.min(rest.len()));
            (rest, *from) = (after, to.max(*from));
            taken
        };
        while self.from < until {
            let secret = self.secrets.front_mut();
            match secret {
                Some(secret) if secret.span.to <= self.from => drop(self.secrets.pop_front()),
                _ if self.from < self.begin => {
                    take(&mut self.from, self.begin.min(until));
                }
                Some(secret) if secret.span.from <= self.from => {
                    if !std::mem::replace(&mut secret.marked, true) {
                        told.extend_from_slice(MARK.as_bytes());
                    }
                    let to = secret.span.to.min(until);
                    take(&mut self.from, to);
                }
                secret => {
                    let to = secret.map_or(until, |secret| secret.span.from.min(until));
                    told.extend_from_slice(take(&mut self.from, to));
                }
            }
        }
        let left = rest.len();
        self.held.drain(..self.held.len() - left);
        told
    }
}
