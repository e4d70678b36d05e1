//! Hunks: which lines they hold, and where they say that they belong.

use super::parse::{Malformed, is_plain_start};
use std::ops::Range;

/// The lines of a text, without their newlines, and where each is.
#[derive(Debug, Clone)]
pub(crate) struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    number: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, number: 1 }
    }

    /// The next line.
    pub(super) fn peek(&self) -> Option<&'a [u8]> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        rest.split(|byte| *byte == b'\n').next()
    }

    pub(super) fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.peek()?;
        self.at = (self.at + line.len() + 1).min(self.text.len());
        self.number += 1;
        Some(line)
    }

    /// Counted from 1.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }
}

/// A hunk of a text patch; its lines stay in the patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hunk {
    /// Where it stands in the patch.
    pub(crate) line: usize,
    /// Where it says that it belongs: the first line, counted from 1, of the
    /// old file and of the new one.
    pub(crate) starts: (u32, u32),
    /// Its lines.
    body: Range<usize>,
}

/// A line of a hunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HunkLine<'a> {
    pub(crate) mark: Mark,
    /// Without its newline.
    pub(super) text: &'a [u8],
    /// Whether it has one.
    pub(super) ends: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Both,
    Old,
    New,
}

/// The lines of a hunk, read from the patch as they are needed: there may be as
/// many as the patch has bytes.
#[derive(Debug, Clone)]
pub(crate) struct HunkLines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for HunkLines<'a> {
    type Item = HunkLine<'a>;

    fn next(&mut self) -> Option<HunkLine<'a>> {
        loop {
            let line = first_line(self.rest);
            self.rest = &self.rest[line.len()..];
            let bare = line.strip_suffix(b"\n").unwrap_or(line);
            let (mark, text) = match line.split_first()? {
                (b' ', _) => (Mark::Both, &bare[1..]),
                (b'-', _) => (Mark::Old, &bare[1..]),
                (b'+', _) => (Mark::New, &bare[1..]),
                (b'\\', _) => continue,
                // A blank line whose leading blank was lost.
                (_, _) => (Mark::Both, bare),
            };
            // It has a newline also when it is the patch's last and the patch's
            // own was lost: only the marker says that there is none.
            let ends = !self.rest.starts_with(b"\\");
            return Some(HunkLine { mark, text, ends });
        }
    }
}

/// The first line of a text with its newline, if it has one; nothing of nothing.
pub(super) fn first_line(text: &[u8]) -> &[u8] {
    memchr::memchr(b'\n', text).map_or(text, |newline| &text[..=newline])
}

impl Hunk {
    /// Reads one whose head is the next line. If the counts in it are not what
    /// follows, what follows counts: up to where something else begins.
    pub(super) fn parse(lines: &mut Lines<'_>) -> Result<Self, Malformed> {
        let line = lines.number();
        let (starts, counts) = lines.next().and_then(head).ok_or_else(|| {
            Malformed::new(line, "a hunk's head is `@@ -LINE,COUNT +LINE,COUNT @@`")
        })?;
        let start = lines.at();
        let mut counted = lines.clone();
        if by_count(&mut counted, counts) && is_end(&counted) {
            *lines = counted;
        } else {
            let mut marked = lines.clone();
            if !by_marks(&mut marked) {
                return Err(Malformed::new(line, "the hunk has no lines"));
            }
            *lines = marked;
        }
        Ok(Self { line, starts, body: start..lines.at() })
    }

    /// Its lines.
    pub(crate) fn lines<'a>(&self, patch: &'a [u8]) -> HunkLines<'a> {
        HunkLines { rest: patch.get(self.body.clone()).unwrap_or_default() }
    }
}

/// `@@ -1,2 +3,4 @@ ...`: the starts, and the counts.
fn head(line: &[u8]) -> Option<((u32, u32), (u32, u32))> {
    let text = std::str::from_utf8(line.get(..line.len().min(100))?).unwrap_or_else(|error| {
        // What stands behind the second `@@` can be anything.
        std::str::from_utf8(&line[..error.valid_up_to()]).unwrap_or_default()
    });
    let mut words = text.strip_prefix("@@ -")?.split(' ');
    let old = range(words.next()?)?;
    let new = range(words.next()?.strip_prefix('+')?)?;
    words.next()?.starts_with("@@").then_some(((old.0, new.0), (old.1, new.1)))
}

fn range(text: &str) -> Option<(u32, u32)> {
    let (start, count) = text.split_once(',').unwrap_or((text, "1"));
    Some((start.parse().ok()?, count.parse().ok()?))
}

/// Takes so many lines of either side; whether they are there.
fn by_count(lines: &mut Lines<'_>, (mut old, mut new): (u32, u32)) -> bool {
    while old > 0 || new > 0 {
        let Some(line) = lines.next() else { return false };
        let (of_old, of_new) = match line.first() {
            Some(b' ' | b'\r') | None => (1, 1),
            Some(b'-') => (1, 0),
            Some(b'+') => (0, 1),
            Some(b'\\') => (0, 0),
            Some(_) => return false,
        };
        match (old.checked_sub(of_old), new.checked_sub(of_new)) {
            (Some(less_old), Some(less_new)) => (old, new) = (less_old, less_new),
            _ => return false,
        }
    }
    if lines.peek().is_some_and(|line| line.starts_with(b"\\ ")) {
        lines.next();
    }
    true
}

/// Whether what comes is not more of the hunk.
fn is_end(lines: &Lines<'_>) -> bool {
    match lines.peek() {
        Some(line) if is_signature(line) => true,
        Some(line) => {
            !matches!(line.first(), Some(b' ' | b'+' | b'-' | b'\\')) || is_plain_start(lines)
        }
        None => true,
    }
}

/// Takes what looks like a hunk's lines; whether there are any. Blank lines at
/// the end are taken for what separates it from what follows.
fn by_marks(lines: &mut Lines<'_>) -> bool {
    let mut end = None;
    loop {
        match lines.peek() {
            Some(line) if is_signature(line) => break,
            Some(b"" | b"\r") => {
                lines.next();
            }
            Some([b' ' | b'+' | b'-' | b'\\', ..]) if !is_plain_start(lines) => {
                lines.next();
                end = Some(lines.clone());
            }
            Some(_) | None => break,
        }
    }
    match end {
        Some(end) => *lines = end,
        None => return false,
    }
    true
}

/// What stands before the version at the end of a mailed patch.
fn is_signature(line: &[u8]) -> bool {
    matches!(line, b"-- " | b"-- \r")
}
