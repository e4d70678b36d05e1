//! Where secrets are in bytes that come piece by piece.
//!
//! The bytes are read twice at once: as they are, and with what is
//! percent-encoded in them decoded. Both readings leave line ends out, for
//! `base64` wraps lines, terminals send two bytes for each end, and a secret may
//! have been read with or without its last.

use super::automaton::{Automaton, State};
use super::forms::{SHORTEST, is_line_end};
use std::collections::VecDeque;

/// How many line ends in a row are left out: an empty line with two bytes for
/// each end. After more of them nothing goes on.
const LINE_ENDS_MAX: u8 = 4;

/// How many bytes one byte of a secret may take, with the line ends before it,
/// all of it percent-encoded.
pub(super) const STRETCH: usize = 3 * (1 + LINE_ENDS_MAX as usize);

/// Bytes from one position to another, which is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// What is known of a stream so far.
#[derive(Debug, Default)]
pub(super) struct Scan {
    at: u64,
    plain: Reading,
    decoded: Reading,
    percent: Percent,
}

/// One reading of the bytes.
#[derive(Debug, Default)]
struct Reading {
    state: State,
    /// Where each byte begins that may belong to a secret whose end is to come.
    starts: VecDeque<u64>,
    line_ends: u8,
}

/// How much of a percent-encoded byte has been seen, and where it begins.
#[derive(Debug, Default, Clone, Copy)]
enum Percent {
    #[default]
    Nothing,
    Sign(u64),
    Digit(u64, u8),
}

impl Scan {
    /// Looks at the next bytes, and tells each span in which a secret is, in the
    /// order of their ends.
    pub(super) fn see(&mut self, automaton: &Automaton, bytes: &[u8], mut tell: impl FnMut(Span)) {
        let mut rest = bytes;
        loop {
            if self.is_idle() {
                let may_begin = |byte: &u8| *byte == b'%' || automaton.begins(*byte);
                let skipped = rest.iter().position(may_begin).unwrap_or(rest.len());
                self.at += skipped as u64;
                rest = &rest[skipped..];
            }
            let Some((byte, after)) = rest.split_first() else { return };
            rest = after;
            let span = Span { from: self.at, to: self.at + 1 };
            self.at += 1;
            self.plain.see(automaton, *byte, span, &mut tell);
            self.see_decoded(automaton, *byte, span, &mut tell);
        }
    }

    /// From where on bytes may belong to a secret whose end is to come.
    pub(super) fn undecided(&self) -> u64 {
        let percent = match self.percent {
            Percent::Nothing => self.at,
            Percent::Sign(from) | Percent::Digit(from, _) => from,
        };
        let pending = |reading: &Reading| reading.starts.front().copied().unwrap_or(self.at);
        percent.min(pending(&self.plain)).min(pending(&self.decoded))
    }

    fn is_idle(&self) -> bool {
        matches!(self.percent, Percent::Nothing)
            && self.plain.starts.is_empty()
            && self.decoded.starts.is_empty()
    }

    fn see_decoded(
        &mut self,
        automaton: &Automaton,
        byte: u8,
        span: Span,
        tell: &mut impl FnMut(Span),
    ) {
        let mut see = |byte, span| self.decoded.see(automaton, byte, span, tell);
        self.percent = match (self.percent, byte) {
            (Percent::Sign(from), byte) if byte.is_ascii_hexdigit() => Percent::Digit(from, byte),
            (Percent::Digit(from, high), low) if low.is_ascii_hexdigit() => {
                see(digit(high) << 4 | digit(low), Span { from, to: span.to });
                Percent::Nothing
            }
            (before, byte) => {
                // It was no encoded byte.
                match before {
                    Percent::Nothing => {}
                    Percent::Sign(from) => see(b'%', Span { from, to: from + 1 }),
                    Percent::Digit(from, high) => {
                        see(b'%', Span { from, to: from + 1 });
                        see(high, Span { from: from + 1, to: from + 2 });
                    }
                }
                if byte == b'%' {
                    Percent::Sign(span.from)
                } else {
                    see(byte, span);
                    Percent::Nothing
                }
            }
        };
    }
}

/// The value of a hexadecimal digit.
fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        letter => (letter | 0x20).wrapping_sub(b'a').wrapping_add(10) & 0xf,
    }
}

impl Reading {
    fn see(&mut self, automaton: &Automaton, byte: u8, span: Span, tell: &mut impl FnMut(Span)) {
        if is_line_end(byte) {
            return self.end_line(span.to);
        }
        self.line_ends = 0;
        self.state = automaton.step(self.state, byte);
        self.starts.push_back(span.from);
        let found = usize::from(automaton.found(self.state));
        if found > 0
            && let Some(from) = self.starts.get(self.starts.len().saturating_sub(found))
        {
            tell(Span { from: *from, to: span.to });
        }
        let pending = automaton.pending(self.state);
        self.starts.drain(..self.starts.len().saturating_sub(pending));
    }

    /// What little may have begun in the line goes with it, so that no line is
    /// held back for its last letter; the rest may still follow.
    fn end_line(&mut self, to: u64) {
        self.line_ends += 1;
        if self.line_ends > LINE_ENDS_MAX {
            *self = Self::default();
        } else if self.starts.len() < SHORTEST {
            self.starts.iter_mut().for_each(|start| *start = to);
        }
    }
}
