//! Hunks: which lines they hold, where they belong, what becomes of the file.

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
    pub(crate) starts: (usize, usize),
    /// Its lines.
    body: Range<usize>,
}

/// A line of a hunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HunkLine<'a> {
    pub(crate) mark: Mark,
    /// With its newline, if it has one.
    pub(crate) text: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Both,
    Old,
    New,
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
    pub(crate) fn lines<'a>(&self, patch: &'a [u8]) -> Vec<HunkLine<'a>> {
        let body = patch.get(self.body.clone()).unwrap_or_default();
        let mut lines: Vec<HunkLine<'a>> = Vec::new();
        for line in body.split_inclusive(|byte| *byte == b'\n') {
            let (mark, text) = match line.split_first() {
                Some((b' ', text)) => (Mark::Both, text),
                Some((b'-', text)) => (Mark::Old, text),
                Some((b'+', text)) => (Mark::New, text),
                Some((b'\\', _)) => {
                    if let Some(last) = lines.last_mut() {
                        last.text = last.text.strip_suffix(b"\n").unwrap_or(last.text);
                    }
                    continue;
                }
                // A blank line whose leading blank was lost.
                Some(_) => (Mark::Both, line),
                None => continue,
            };
            lines.push(HunkLine { mark, text });
        }
        lines
    }
}

/// `@@ -1,2 +3,4 @@ ...`: the starts, and the counts.
fn head(line: &[u8]) -> Option<((usize, usize), (usize, usize))> {
    let text = std::str::from_utf8(line.get(..line.len().min(100))?).unwrap_or_else(|error| {
        // What stands behind the second `@@` can be anything.
        std::str::from_utf8(&line[..error.valid_up_to()]).unwrap_or_default()
    });
    let mut words = text.strip_prefix("@@ -")?.split(' ');
    let old = range(words.next()?)?;
    let new = range(words.next()?.strip_prefix('+')?)?;
    words.next()?.starts_with("@@").then_some(((old.0, new.0), (old.1, new.1)))
}

fn range(text: &str) -> Option<(usize, usize)> {
    let (start, count) = text.split_once(',').unwrap_or((text, "1"));
    Some((start.parse().ok()?, count.parse().ok()?))
}

/// Takes so many lines of either side; whether they are there.
fn by_count(lines: &mut Lines<'_>, (mut old, mut new): (usize, usize)) -> bool {
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

/// Why a hunk does not belong anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Which one, counted from 1.
    pub(crate) hunk: usize,
    /// Where it stands in the patch.
    pub(crate) line: usize,
    pub(crate) why: String,
}

/// What of a line an error shows.
const SHOWN_MAX: usize = 80;

/// Does all hunks to a file. Each goes where it says, moved as the ones before
/// it were, or else to the nearest place that has all its lines; never before
/// the one before it.
pub(crate) fn apply(
    patch: &[u8],
    hunks: &[Hunk],
    file: &[u8],
    reverse: bool,
) -> Result<Vec<u8>, Mismatch> {
    let lines: Vec<&[u8]> = file.split_inclusive(|byte| *byte == b'\n').collect();
    let (mut done, mut drift) = (0, 0);
    let mut result = Vec::with_capacity(file.len());
    for (index, hunk) in hunks.iter().enumerate() {
        let hunk_lines = hunk.lines(patch);
        let (gone, come) = if reverse { (Mark::New, Mark::Old) } else { (Mark::Old, Mark::New) };
        let side = |other: Mark| -> Vec<&[u8]> {
            let of = hunk_lines.iter().filter(|line| line.mark != other);
            of.map(|line| line.text).collect()
        };
        let (old, new) = (side(come), side(gone));
        let start = if reverse { hunk.starts.1 } else { hunk.starts.0 };
        // Without lines it says after which line it goes.
        let said = if old.is_empty() { start } else { start.saturating_sub(1) };
        let wanted = said.saturating_add_signed(drift);
        let Some(at) = place(&lines, &old, wanted, done) else {
            let is_done = !new.is_empty() && place(&lines, &new, wanted, done).is_some();
            let why = mismatch(&lines, &old, wanted, done, is_done);
            return Err(Mismatch { hunk: index + 1, line: hunk.line, why });
        };
        drift = at as isize - said as isize;
        emit(&lines[done..at], &mut result);
        let mut from = at;
        for line in &hunk_lines {
            match line.mark {
                Mark::Both => {
                    // The file's own: its end may lack a newline.
                    emit(&lines[from..from + 1], &mut result);
                    from += 1;
                }
                mark if mark == gone => from += 1,
                Mark::Old | Mark::New => emit(&[line.text], &mut result),
            }
        }
        done = from;
    }
    emit(&lines[done..], &mut result);
    Ok(result)
}

/// Adds lines; one without a newline gets it when another follows.
fn emit(lines: &[&[u8]], to: &mut Vec<u8>) {
    for line in lines {
        if to.last().is_some_and(|last| *last != b'\n') {
            to.push(b'\n');
        }
        to.extend_from_slice(line);
    }
}

/// The place nearest to the wanted one, not before `least`, that has the lines.
fn place(lines: &[&[u8]], old: &[&[u8]], wanted: usize, least: usize) -> Option<usize> {
    let most = lines.len().checked_sub(old.len()).filter(|most| *most >= least)?;
    if old.is_empty() {
        return (least..=most).contains(&wanted).then_some(wanted);
    }
    let wanted = wanted.clamp(least, most);
    let fits =
        |at: usize| lines[at..at + old.len()].iter().zip(old).all(|(line, old)| same(line, old));
    // A file's lines are compared with the hunk's first at each place, and with
    // the rest only where that is the same.
    (0..=(wanted - least).max(most - wanted)).find_map(|far| {
        let after = wanted.checked_add(far).filter(|at| *at <= most && fits(*at));
        after.or_else(|| wanted.checked_sub(far).filter(|at| *at >= least && fits(*at)))
    })
}

/// Whether a file's line is the hunk's. At a file's end a newline that is not
/// there is forgiven, as the marker for it is easily lost.
fn same(line: &[u8], old: &[u8]) -> bool {
    line == old || (!line.ends_with(b"\n") && old.strip_suffix(b"\n") == Some(line))
}

fn mismatch(lines: &[&[u8]], old: &[&[u8]], wanted: usize, least: usize, is_done: bool) -> String {
    if is_done {
        return "what it would make is there already".to_owned();
    }
    let shown = |line: &[u8]| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let text = String::from_utf8_lossy(line);
        let cut = text.floor_char_boundary(SHOWN_MAX);
        format!("{:?}", &text[..cut])
    };
    let at = wanted.max(least);
    for (offset, expected) in old.iter().enumerate() {
        match lines.get(at + offset) {
            Some(line) if same(line, expected) => {}
            Some(line) => {
                let number = at + offset + 1;
                return format!(
                    "line {number} is {}, where the patch has {}; nor does it fit elsewhere",
                    shown(line),
                    shown(expected)
                );
            }
            None => {
                return format!(
                    "the file has {} lines, and nowhere {}",
                    lines.len(),
                    shown(expected)
                );
            }
        }
    }
    format!("the file has {} lines, and the hunk goes after line {wanted}", lines.len())
}
