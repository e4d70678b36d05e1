//! Which lines changed, as hunks of a unified diff.

use imara_diff::{Algorithm, Hunk, InternedInput};
use std::io::{self, Write};

/// Lines shown around a change.
const CONTEXT: u32 = 3;

/// A comparison of more lines than this, both sides together, would take more
/// memory than the agent may: such files are told as binary ones.
const LINES_MAX: usize = 300_000;

/// Two texts, compared line by line.
pub(super) struct Lines<'a> {
    input: InternedInput<&'a [u8]>,
    hunks: Vec<Hunk>,
}

impl<'a> Lines<'a> {
    /// Compares; `None` when there are too many lines.
    pub(super) fn compare(old: &'a [u8], new: &'a [u8]) -> Option<Self> {
        let count = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
        if count(old) + count(new) > LINES_MAX {
            return None;
        }
        let input = InternedInput::new(old, new);
        let mut diff = imara_diff::Diff::compute(Algorithm::Histogram, &input);
        diff.postprocess_lines(&input);
        let hunks = diff.hunks().collect();
        Some(Self { input, hunks })
    }

    /// Lines that are new, and lines that are gone.
    pub(super) fn counts(&self) -> (u32, u32) {
        let total = |lines: fn(&Hunk) -> u32| self.hunks.iter().map(lines).sum();
        (total(|hunk| hunk.after.len() as u32), total(|hunk| hunk.before.len() as u32))
    }

    /// Writes all hunks.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut rest = self.hunks.as_slice();
        while let Some(first) = rest.first() {
            // Changes whose context would touch go together.
            let near = |pair: &[Hunk]| pair[1].before.start - pair[0].before.end <= 2 * CONTEXT;
            let together = 1 + rest.windows(2).take_while(|pair| near(pair)).count();
            let (group, others) = rest.split_at(together);
            let last = group.last().unwrap_or(first);
            self.write_group(group, first, last, to)?;
            rest = others;
        }
        Ok(())
    }

    fn write_group(
        &self,
        group: &[Hunk],
        first: &Hunk,
        last: &Hunk,
        to: &mut impl Write,
    ) -> io::Result<()> {
        let lead = first.before.start.min(CONTEXT);
        let (old_lines, new_lines) =
            (self.input.before.len() as u32, self.input.after.len() as u32);
        let trail = (old_lines - last.before.end).min(CONTEXT);
        let old = first.before.start - lead..last.before.end + trail;
        let new = first.after.start - lead..(last.after.end + trail).min(new_lines);
        writeln!(to, "@@ -{} +{} @@", Range(&old), Range(&new))?;
        let mut at = old.start;
        for hunk in group {
            self.write_lines(b' ', &self.input.before, at..hunk.before.start, to)?;
            self.write_lines(b'-', &self.input.before, hunk.before.clone(), to)?;
            self.write_lines(b'+', &self.input.after, hunk.after.clone(), to)?;
            at = hunk.before.end;
        }
        self.write_lines(b' ', &self.input.before, at..old.end, to)
    }

    fn write_lines(
        &self,
        mark: u8,
        side: &[imara_diff::Token],
        range: std::ops::Range<u32>,
        to: &mut impl Write,
    ) -> io::Result<()> {
        for token in &side[range.start as usize..range.end as usize] {
            let line = self.input.interner[*token];
            to.write_all(&[mark])?;
            to.write_all(line)?;
            if line.last() != Some(&b'\n') {
                to.write_all(b"\n\\ No newline at end of file\n")?;
            }
        }
        Ok(())
    }
}

/// A range of lines as a hunk's head has it.
struct Range<'a>(&'a std::ops::Range<u32>);

impl std::fmt::Display for Range<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.len() {
            // Nothing stands after the line before it.
            0 => write!(f, "{},0", self.0.start),
            1 => write!(f, "{}", self.0.start + 1),
            length => write!(f, "{},{length}", self.0.start + 1),
        }
    }
}
