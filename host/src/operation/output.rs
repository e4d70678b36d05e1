//! What a program wrote and how it ended, as answers tell it: the first and the
//! last bytes of each stream, a count of the rest, and the exit code of a shell.

use super::Page;
use crate::event::{Event, Events, Stream};
use crate::workspace::history::Ends as RecordedEnds;
use anstyle::Style;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Room for what stands around streams.
pub(super) const HEADINGS: usize = 512;

/// How a string spells bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// They are the string's own UTF-8.
    #[serde(rename = "utf-8")]
    Utf8,
    /// In base64, because they are not UTF-8.
    Base64,
}

/// What a program wrote to both its streams, or the ends of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Output {
    /// What the program wrote to its standard output, or the first part of it.
    pub stdout: String,
    /// How `stdout` and `stdout_tail` spell bytes.
    pub stdout_encoding: Encoding,
    /// How many bytes are missing between `stdout` and `stdout_tail`.
    pub stdout_omitted_bytes: u64,
    /// The last part, when bytes are missing before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub stdout_tail: Option<String>,
    /// What the program wrote to its standard error, or the first part of it.
    pub stderr: String,
    /// How `stderr` and `stderr_tail` spell bytes.
    pub stderr_encoding: Encoding,
    /// How many bytes are missing between `stderr` and `stderr_tail`.
    pub stderr_omitted_bytes: u64,
    /// The last part, when bytes are missing before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub stderr_tail: Option<String>,
}

impl Output {
    /// Of two streams that were recorded.
    pub(super) fn of_recorded(stdout: RecordedEnds, stderr: RecordedEnds) -> Self {
        let capture = |ends: RecordedEnds| capture(ends.head, ends.tail, ends.total);
        Self::of(capture(stdout), capture(stderr))
    }

    fn of(stdout: Captured<String>, stderr: Captured<String>) -> Self {
        Self {
            stdout: stdout.text,
            stdout_encoding: stdout.encoding,
            stdout_omitted_bytes: stdout.omitted_bytes,
            stdout_tail: stdout.tail,
            stderr: stderr.text,
            stderr_encoding: stderr.encoding,
            stderr_omitted_bytes: stderr.omitted_bytes,
            stderr_tail: stderr.tail,
        }
    }

    /// How many bytes of each stream this is about, here or left out between.
    pub(super) fn lengths(&self) -> (u64, u64) {
        let (stdout, stderr) = self.streams();
        (stdout.bytes(), stderr.bytes())
    }

    fn streams(&self) -> (Captured<&str>, Captured<&str>) {
        let stdout = Captured {
            text: self.stdout.as_str(),
            encoding: self.stdout_encoding,
            omitted_bytes: self.stdout_omitted_bytes,
            tail: self.stdout_tail.as_deref(),
        };
        let stderr = Captured {
            text: self.stderr.as_str(),
            encoding: self.stderr_encoding,
            omitted_bytes: self.stderr_omitted_bytes,
            tail: self.stderr_tail.as_deref(),
        };
        (stdout, stderr)
    }

    /// For a reader: each stream under a heading, unless it is empty, in about so
    /// many bytes. Says whether that is all there is of both.
    pub(super) fn render(&self, page: &mut Page, room: usize) -> Result<bool, fmt::Error> {
        let (stdout, stderr) = self.streams();
        let (for_stdout, for_stderr) = shares(room, stdout.length(), stderr.length());
        let (stdout, stderr) = (stdout.within(for_stdout), stderr.within(for_stderr));
        render_stream(page, "stdout", &stdout)?;
        render_stream(page, "stderr", &stderr)?;
        Ok(stdout.omitted_bytes + stderr.omitted_bytes == 0)
    }
}

/// How much of a room two texts get: half each, and what the other does not need.
pub(super) fn shares(room: usize, first: usize, second: usize) -> (usize, usize) {
    let half = room / 2;
    if first <= half {
        (first, room - first)
    } else {
        let second = second.min(half);
        (room - second, second)
    }
}

fn render_stream(page: &mut Page, name: &str, captured: &Captured<&str>) -> fmt::Result {
    if captured.text.is_empty() && captured.omitted_bytes == 0 {
        return Ok(());
    }
    let encoding = match captured.encoding {
        Encoding::Utf8 => "",
        Encoding::Base64 => " (base64)",
    };
    let heading = page.paint(Style::new().bold(), format_args!("{name}{encoding}:"));
    writeln!(page, "{heading}\n{}", captured.text.trim_end_matches('\n'))?;
    if let Some(tail) = captured.tail {
        writeln!(page, "[{} bytes left out]", captured.omitted_bytes)?;
        writeln!(page, "{}", tail.trim_end_matches('\n'))?;
    }
    Ok(())
}

/// How a program ended, in a few words.
pub(super) fn ending(exit_code: u8, signal: Option<u8>, timed_out: bool) -> String {
    match signal {
        _ if timed_out => "timed out".into(),
        Some(signal) => format!("killed by signal {signal}"),
        None => format!("exit code {exit_code}"),
    }
}

/// What passes through a sink of events while a program runs.
#[derive(Debug, Clone)]
pub(super) struct Collector(Arc<Mutex<Collected>>);

impl Collector {
    /// Keeps at most so many bytes of each stream of what goes to the sink.
    pub(super) fn tap(events: &mut Events, limit: u32) -> Self {
        let collector = Self(Arc::new(Mutex::new(Collected::new(limit))));
        let listener = collector.clone();
        let untapped = std::mem::take(events);
        *events = untapped.tap(move |event| {
            if let Event::Output { stream, bytes } = event {
                listener.lock().push(*stream, bytes);
            }
        });
        collector
    }

    /// What has passed so far.
    pub(super) fn finish(&self) -> Output {
        std::mem::take(&mut *self.lock()).finish()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Collected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both output streams of a program while it runs.
#[derive(Debug, Default)]
pub(super) struct Collected {
    stdout: Ends,
    stderr: Ends,
}

impl Collected {
    /// Keeps at most so many bytes of each stream.
    pub(super) fn new(limit: u32) -> Self {
        Self { stdout: Ends::new(limit), stderr: Ends::new(limit) }
    }

    pub(super) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Stdout => self.stdout.push(bytes),
            Stream::Stderr => self.stderr.push(bytes),
        }
    }

    pub(super) fn finish(self) -> Output {
        Output::of(self.stdout.finish(), self.stderr.finish())
    }
}

/// What is left of one stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Captured<Text> {
    /// All of it, or its beginning when there is a tail.
    pub(super) text: Text,
    pub(super) encoding: Encoding,
    pub(super) omitted_bytes: u64,
    pub(super) tail: Option<Text>,
}

impl Captured<&str> {
    /// How long all of it is to read.
    pub(super) fn length(&self) -> usize {
        self.text.len() + self.tail.map_or(0, str::len)
    }

    /// The same in so many bytes of text: its own first and last ones.
    pub(super) fn within(self, room: usize) -> Self {
        if self.length() <= room {
            return self;
        }
        let encoding = self.encoding;
        let head = encoding.head(self.text, room - room / 2);
        let tail = encoding.tail(self.tail.unwrap_or(self.text), room / 2);
        let shown = (encoding.bytes_of(head) + encoding.bytes_of(tail)) as u64;
        Self { text: head, encoding, omitted_bytes: self.bytes() - shown, tail: Some(tail) }
    }

    /// How many bytes of the stream this is about, here or left out between.
    fn bytes(&self) -> u64 {
        let spelled = |text| self.encoding.bytes_of(text) as u64;
        self.omitted_bytes + spelled(self.text) + self.tail.map_or(0, spelled)
    }
}

impl Encoding {
    /// The beginning of a text, in at most so many bytes.
    pub(super) fn head(self, text: &str, max: usize) -> &str {
        match self {
            Self::Utf8 => &text[..text.floor_char_boundary(max)],
            // Four characters spell three bytes.
            Self::Base64 => &text[..text.len().min(max / 4 * 4)],
        }
    }

    /// The end of a text, in at most so many bytes.
    fn tail(self, text: &str, max: usize) -> &str {
        let start = text.len().saturating_sub(max);
        match self {
            Self::Utf8 => &text[text.ceil_char_boundary(start)..],
            Self::Base64 => &text[start.next_multiple_of(4).min(text.len())..],
        }
    }

    /// The bytes that a text of ours spells.
    pub(super) fn bytes(self, text: &str) -> Vec<u8> {
        match self {
            Self::Utf8 => text.as_bytes().to_vec(),
            // We have spelled it.
            Self::Base64 => STANDARD.decode(text).unwrap_or_default(),
        }
    }

    /// How many bytes a text spells.
    pub(super) fn bytes_of(self, text: &str) -> usize {
        match self {
            Self::Utf8 => text.len(),
            Self::Base64 => {
                text.len() / 4 * 3 - text.bytes().rev().take_while(|b| *b == b'=').count()
            }
        }
    }
}

/// The first and the last bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct Ends {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_max: usize,
    tail_max: usize,
    total: u64,
}

impl Ends {
    /// Keeps at most so many bytes.
    pub(super) fn new(limit: u32) -> Self {
        let limit = limit as usize;
        let tail_max = limit / 2;
        Self { head_max: limit - tail_max, tail_max, ..Self::default() }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let (first, rest) = bytes.split_at(bytes.len().min(self.head_max - self.head.len()));
        self.head.extend_from_slice(first);
        let kept = &rest[rest.len().saturating_sub(self.tail_max)..];
        let excess = (self.tail.len() + kept.len()).saturating_sub(self.tail_max);
        self.tail.drain(..excess);
        self.tail.extend(kept);
    }

    pub(super) fn finish(self) -> Captured<String> {
        capture(self.head, Vec::from(self.tail), self.total)
    }
}

/// Bytes as a string.
pub(super) fn text_or_base64(bytes: Vec<u8>) -> (String, Encoding) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, Encoding::Utf8),
        Err(error) => (STANDARD.encode(error.as_bytes()), Encoding::Base64),
    }
}

/// The beginning and the end of so many bytes, as strings.
fn capture(mut head: Vec<u8>, tail: Vec<u8>, total: u64) -> Captured<String> {
    if total == (head.len() + tail.len()) as u64 {
        head.extend(tail);
        let (text, encoding) = text_or_base64(head);
        return Captured { text, encoding, omitted_bytes: 0, tail: None };
    }
    let (text, tail, encoding, kept) = match (text_until_cut(&head), text_after_cut(&tail)) {
        (Some(first), Some(last)) => {
            (first.into(), last.into(), Encoding::Utf8, first.len() + last.len())
        }
        _ => {
            let kept = head.len() + tail.len();
            (STANDARD.encode(head), STANDARD.encode(tail), Encoding::Base64, kept)
        }
    };
    Captured { text, encoding, omitted_bytes: total - kept as u64, tail: Some(tail) }
}

/// The text up to a cut that may have gone through a character.
fn text_until_cut(bytes: &[u8]) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

/// The text after a cut that may have gone through a character, whose up to
/// three last bytes are then no text.
fn text_after_cut(bytes: &[u8]) -> Option<&str> {
    let is_continuation = |byte: &&u8| **byte & 0xc0 == 0x80;
    let cut = bytes.iter().take(3).take_while(is_continuation).count();
    std::str::from_utf8(&bytes[cut..]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn capture(limit: u32, chunks: &[&[u8]]) -> Captured<String> {
        let mut ends = Ends::new(limit);
        for chunk in chunks {
            ends.push(chunk);
        }
        ends.finish()
    }

    #[test]
    fn all_is_kept_up_to_the_limit() {
        let captured = capture(6, &[b"ab", b"cd", b"ef"]);
        assert_eq!(
            (captured.text.as_str(), captured.tail, captured.omitted_bytes),
            ("abcdef", None, 0)
        );
    }

    #[test]
    fn beyond_the_limit_both_ends_are_kept() {
        let captured = capture(4, &[b"abc", b"defgh", b"i"]);
        assert_eq!((captured.text.as_str(), captured.tail.as_deref()), ("ab", Some("hi")));
        assert_eq!(captured.omitted_bytes, 5);
    }

    #[test]
    fn a_cut_through_a_character_leaves_it_out() {
        let captured = capture(6, &["aaéééézz".as_bytes()]);
        assert_eq!((captured.text.as_str(), captured.tail.as_deref()), ("aa", Some("zz")));
        assert_eq!((captured.encoding, captured.omitted_bytes), (Encoding::Utf8, 8));
    }

    #[test]
    fn what_is_no_text_is_base64() {
        let captured = capture(100, &[b"\xff\x00"]);
        assert_eq!((captured.text.as_str(), captured.encoding), ("/wA=", Encoding::Base64));
    }

    #[test]
    fn a_limit_of_nothing_only_counts() {
        let captured = capture(0, &[b"abc"]);
        assert_eq!((captured.text.as_str(), captured.omitted_bytes), ("", 3));
    }

    proptest! {
        /// A text for a model has no more than there is room for, and says rightly
        /// how much is missing.
        #[test]
        fn what_is_shown_fits_and_adds_up(limit in 0_u32..40, room in 0_usize..60, all: Vec<u8>) {
            let captured = capture(limit, &[&all]);
            let captured = Captured {
                text: captured.text.as_str(),
                encoding: captured.encoding,
                omitted_bytes: captured.omitted_bytes,
                tail: captured.tail.as_deref(),
            };
            let shown = captured.within(room);
            let text = shown.text.to_owned() + shown.tail.unwrap_or_default();
            prop_assert!(text.len() <= room);
            let decode = |text: &str| match shown.encoding {
                Encoding::Utf8 => text.as_bytes().to_vec(),
                Encoding::Base64 => STANDARD.decode(text).unwrap(),
            };
            let (head, tail) = (decode(shown.text), decode(shown.tail.unwrap_or_default()));
            prop_assert!(all.starts_with(&head) && all.ends_with(&tail));
            let told = (head.len() + tail.len()) as u64 + shown.omitted_bytes;
            prop_assert_eq!(told, all.len() as u64);
        }

        #[test]
        fn shares_are_all_there_is(room in 0_usize..99, first in 0_usize..99, second in 0_usize..99) {
            let (one, other) = shares(room, first, second);
            prop_assert!(one + other == room || (one >= first && other >= second));
            prop_assert!(one + other <= room);
        }

        #[test]
        fn kept_and_omitted_add_up(limit in 0_u32..20, chunks: Vec<Vec<u8>>) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let all = chunks.concat();
            let captured = capture(limit, &chunks);
            let decode = |text: &str| match captured.encoding {
                Encoding::Utf8 => text.as_bytes().to_vec(),
                Encoding::Base64 => STANDARD.decode(text).unwrap(),
            };
            let head = decode(&captured.text);
            let tail = captured.tail.as_deref().map(decode).unwrap_or_default();
            prop_assert!(all.starts_with(&head) && all.ends_with(&tail));
            prop_assert!(head.len() + tail.len() <= limit as usize);
            prop_assert_eq!((head.len() + tail.len()) as u64 + captured.omitted_bytes, all.len() as u64);
        }
    }
}
