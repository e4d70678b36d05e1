//! Where hunks belong, and what becomes of the file.

use super::hunk::{Hunk, HunkLine, HunkLines, Mark, first_line};
use std::io::{self, Write};

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
