//! Lines of a file that contain something.

use crate::file::fault::invalid;
use crate::work::{Cancel, Stop};
use pyro_protocol::file::{LINE_MAX, MatchedLine, Pattern, SearchCursor};
use pyro_protocol::{AgentError, ByteString};
use regex::bytes::{Regex, RegexBuilder};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

/// What is read at a time.
const BUFFER: usize = 64 * 1024;

/// The longest line that is searched whole; of a longer one, its beginning is.
const SEARCHED_MAX: u64 = 1024 * 1024;

/// What a regular expression may compile to.
const COMPILED_MAX: usize = 1024 * 1024;

/// A file with a NUL in so many first bytes is no text.
const PROBE: usize = 8 * 1024;

/// What lines are searched for.
pub(super) struct Needle(Regex);

/// How the search of a file ended.
pub(super) enum Searched {
    /// All of it was searched.
    All,
    /// It is no text.
    Binary,
    /// The disk failed.
    Unreadable,
    /// No more matches are taken.
    Full(SearchCursor),
}

impl Needle {
    pub(super) fn new(pattern: &Pattern) -> Result<Self, AgentError> {
        let text = match pattern.literal {
            true => regex::escape(&pattern.text),
            false => pattern.text.clone(),
        };
        if text.is_empty() {
            return Err(invalid("there is nothing to search for"));
        }
        let regex = RegexBuilder::new(&text)
            .case_insensitive(pattern.ignore_case)
            .size_limit(COMPILED_MAX)
            .dfa_size_limit(COMPILED_MAX)
            .build();
        regex.map(Self).map_err(|error| invalid(error.to_string()))
    }

    /// Searches the lines after this one, the first being 1.
    pub(super) fn search(
        &self,
        file: File,
        from: u64,
        cancel: &Cancel,
        mut found: impl FnMut(MatchedLine) -> Result<(), SearchCursor>,
    ) -> Result<Searched, Stop> {
        let mut reader = BufReader::with_capacity(BUFFER, file);
        match reader.fill_buf() {
            Ok(first) if first[..first.len().min(PROBE)].contains(&0) => {
                return Ok(Searched::Binary);
            }
            Ok(_) => {}
            Err(_) => return Ok(Searched::Unreadable),
        }
        let mut line = Vec::new();
        for number in 1.. {
            if number % 1024 == 0 {
                cancel.check()?;
            }
            line.clear();
            match read_line(&mut reader, &mut line) {
                Ok(0) => break,
                Ok(_) if number <= from => continue,
                Ok(_) => {}
                Err(_) => return Ok(Searched::Unreadable),
            }
            if let Some(matched) = self.0.find(&line)
                && let Err(full) = found(shown(number, &line, matched.range()))
            {
                return Ok(Searched::Full(full));
            }
        }
        Ok(Searched::All)
    }
}

/// Reads a line without its newline, or the beginning of a long one; how many
/// bytes were taken.
fn read_line(reader: &mut BufReader<File>, line: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut taken = reader.by_ref().take(SEARCHED_MAX).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    } else if taken as u64 == SEARCHED_MAX {
        taken += reader.skip_until(b'\n')?;
    }
    Ok(taken)
}

/// A line as a match shows it: a long one around what matched.
fn shown(number: u64, line: &[u8], found: std::ops::Range<usize>) -> MatchedLine {
    let start = found.start as u64;
    if line.len() <= LINE_MAX {
        return MatchedLine { number, start, text: ByteString(line.to_vec()), cut: false };
    }
    let middle = found.start + found.len().min(LINE_MAX) / 2;
    let from = middle.saturating_sub(LINE_MAX / 2).min(line.len() - LINE_MAX);
    let text = ByteString(line[from..from + LINE_MAX].to_vec());
    MatchedLine { number, start, text, cut: true }
}
