//! Hunks: which lines they hold, where they belong, what becomes of the file.

use super::parse::{Malformed, is_plain_start};
use std::io::{self, Write};
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
    text: &'a [u8],
    /// Whether it has one.
    ends: bool,
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
fn first_line(text: &[u8]) -> &[u8] {
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

/// How much of files may be compared with the hunks of one patch, in bytes: many
/// times what is compared when each hunk is near where it says it is.
const SEARCHED_MAX: u64 = 512 * 1024 * 1024;

/// What comparing a line costs beside its bytes.
const LINE_COST: u64 = 16;

/// Why hunks were not done to a file.
#[derive(Debug)]
pub(crate) enum Failure {
    Mismatch(Mismatch),
    /// The result could not be written.
    Write(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// What a patch may still search for where its hunks go.
#[derive(Debug)]
pub(crate) struct Searching {
    left: u64,
}

impl Default for Searching {
    fn default() -> Self {
        Self { left: SEARCHED_MAX }
    }
}

/// The search has taken too long.
struct TooMuch;

impl Searching {
    fn compared(&mut self, line: &[u8]) -> Result<(), TooMuch> {
        self.left = self.left.checked_sub(LINE_COST + line.len() as u64).ok_or(TooMuch)?;
        Ok(())
    }
}

/// A file whose lines are looked for.
struct Text<'a> {
    bytes: &'a [u8],
    lines: usize,
}

/// Where a line of a file begins, or its end.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    at: usize,
    /// Counted from 0.
    line: usize,
}

impl<'a> Text<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let ended = memchr::memchr_iter(b'\n', bytes).count();
        let is_open = bytes.last().is_some_and(|last| *last != b'\n');
        Self { bytes, lines: ended + usize::from(is_open) }
    }

    /// The line that begins there; nothing at the end.
    fn line(&self, place: Place) -> &'a [u8] {
        first_line(&self.bytes[place.at..])
    }

    fn after(&self, place: Place) -> Place {
        Place { at: place.at + self.line(place).len(), line: place.line + 1 }
    }

    fn before(&self, place: Place) -> Place {
        let above = &self.bytes[..place.at.saturating_sub(1)];
        let at = memchr::memrchr(b'\n', above).map_or(0, |newline| newline + 1);
        Place { at, line: place.line.saturating_sub(1) }
    }

    /// Where a line begins that is not before `from`, or the end.
    fn forward(&self, from: Place, line: usize) -> Place {
        let mut place = from;
        while place.line < line && place.at < self.bytes.len() {
            place = self.after(place);
        }
        place
    }
}

/// One side of a hunk.
#[derive(Clone)]
struct Side<'a> {
    hunk: HunkLines<'a>,
    /// What is of the other side only.
    other: Mark,
    count: usize,
}

impl<'a> Side<'a> {
    fn new(hunk: HunkLines<'a>, other: Mark) -> Self {
        let count = hunk.clone().filter(|line| line.mark != other).count();
        Self { hunk, other, count }
    }

    fn lines(&self) -> impl Iterator<Item = HunkLine<'a>> {
        let other = self.other;
        self.hunk.clone().filter(move |line| line.mark != other)
    }

    fn fits(&self, text: &Text<'_>, at: Place, searching: &mut Searching) -> Result<bool, TooMuch> {
        let mut place = at;
        for line in self.lines() {
            let present = text.line(place);
            searching.compared(present)?;
            if !same(present, line) {
                return Ok(false);
            }
            place.at += present.len();
        }
        Ok(true)
    }
}

/// Does all hunks to a file. Each goes where it says, moved as the ones before
/// it were, or else to the nearest place that has all its lines; never before
/// the one before it.
pub(crate) fn apply(
    patch: &[u8],
    hunks: &[Hunk],
    file: &[u8],
    reverse: bool,
    searching: &mut Searching,
    to: &mut impl Write,
) -> Result<(), Failure> {
    let text = Text::new(file);
    let mut result = Output { to, is_open: false };
    let (mut done, mut drift) = (Place::default(), 0);
    let (gone, come) = if reverse { (Mark::New, Mark::Old) } else { (Mark::Old, Mark::New) };
    for (index, hunk) in hunks.iter().enumerate() {
        let old = Side::new(hunk.lines(patch), come);
        let start = i64::from(if reverse { hunk.starts.1 } else { hunk.starts.0 });
        // Without lines it says after which line it goes.
        let said = if old.count == 0 { start } else { start.saturating_sub(1).max(0) };
        let wanted = usize::try_from(said.saturating_add(drift)).unwrap_or(0);
        let wrong = |why| Failure::Mismatch(Mismatch { hunk: index + 1, line: hunk.line, why });
        let too_much = |TooMuch| wrong("there is too much to search for where it goes".to_owned());
        let Some(at) = place(&text, &old, wanted, done, searching).map_err(too_much)? else {
            let new = Side::new(hunk.lines(patch), gone);
            let is_done = new.count > 0
                && place(&text, &new, wanted, done, searching).map_err(too_much)?.is_some();
            return Err(wrong(mismatch(&text, &old, wanted, done, is_done)));
        };
        drift = i64::try_from(at.line).unwrap_or(i64::MAX).saturating_sub(said);
        result.copy(&file[done.at..at.at])?;
        done = at;
        for line in hunk.lines(patch) {
            match line.mark {
                Mark::Both => {
                    // The file's own: its end may lack a newline.
                    result.copy(text.line(done))?;
                    done = text.after(done);
                }
                mark if mark == gone => done = text.after(done),
                Mark::Old | Mark::New => result.add(line)?,
            }
        }
    }
    Ok(result.copy(&file[done.at..])?)
}

/// Where lines are added; one without a newline gets it when another follows.
struct Output<'a, W> {
    to: &'a mut W,
    /// The last line has no newline yet.
    is_open: bool,
}

impl<W: Write> Output<'_, W> {
    /// Adds lines of a file.
    fn copy(&mut self, lines: &[u8]) -> io::Result<()> {
        let Some(last) = lines.last() else { return Ok(()) };
        self.close()?;
        self.is_open = *last != b'\n';
        self.to.write_all(lines)
    }

    /// Adds a line of a hunk.
    fn add(&mut self, line: HunkLine<'_>) -> io::Result<()> {
        self.close()?;
        self.to.write_all(line.text)?;
        self.is_open = !line.text.is_empty();
        if line.ends { self.end() } else { Ok(()) }
    }

    fn close(&mut self) -> io::Result<()> {
        if self.is_open { self.end() } else { Ok(()) }
    }

    fn end(&mut self) -> io::Result<()> {
        self.is_open = false;
        self.to.write_all(b"\n")
    }
}

/// The place nearest to the wanted one, not before `least`, that has the lines.
fn place(
    text: &Text<'_>,
    old: &Side<'_>,
    wanted: usize,
    least: Place,
    searching: &mut Searching,
) -> Result<Option<Place>, TooMuch> {
    let most = text.lines.checked_sub(old.count).filter(|most| *most >= least.line);
    let Some(most) = most else { return Ok(None) };
    if old.count == 0 {
        let is_there = (least.line..=most).contains(&wanted);
        return Ok(is_there.then(|| text.forward(least, wanted)));
    }
    let wanted = text.forward(least, wanted.clamp(least.line, most));
    let (mut after, mut before) = (Some(wanted), Some(wanted));
    while after.is_some() || before.is_some() {
        if let Some(at) = after {
            if old.fits(text, at, searching)? {
                return Ok(after);
            }
            after = (at.line < most).then(|| text.after(at));
        }
        before = before.filter(|at| at.line > least.line).map(|at| text.before(at));
        if let Some(at) = before
            && old.fits(text, at, searching)?
        {
            return Ok(before);
        }
    }
    Ok(None)
}

/// Whether a file's line is the hunk's. At a file's end a newline that is not
/// there is forgiven, as the marker for it is easily lost.
fn same(line: &[u8], of_hunk: HunkLine<'_>) -> bool {
    match line.strip_suffix(b"\n") {
        Some(bare) => of_hunk.ends && bare == of_hunk.text,
        None => line == of_hunk.text,
    }
}

fn mismatch(text: &Text<'_>, old: &Side<'_>, wanted: usize, least: Place, is_done: bool) -> String {
    if is_done {
        return "what it would make is there already".to_owned();
    }
    let shown = |line: &[u8]| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let text = String::from_utf8_lossy(line.get(..SHOWN_MAX * 4).unwrap_or(line));
        let cut = text.floor_char_boundary(SHOWN_MAX);
        format!("{:?}", &text[..cut])
    };
    let mut place = text.forward(least, wanted.max(least.line));
    for expected in old.lines() {
        let line = text.line(place);
        if line.is_empty() {
            let expected = shown(expected.text);
            return format!("the file has {} lines, and nowhere {expected}", text.lines);
        }
        if !same(line, expected) {
            return format!(
                "line {} is {}, where the patch has {}; nor does it fit elsewhere",
                place.line + 1,
                shown(line),
                shown(expected.text)
            );
        }
        place = text.after(place);
    }
    format!("the file has {} lines, and the hunk goes after line {wanted}", text.lines)
}
