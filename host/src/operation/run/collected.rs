//! The first and the last bytes of a program's output, and a count of the rest.

use crate::event::Stream;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::VecDeque;

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

    pub(super) fn finish(self) -> (Captured<String>, Captured<String>) {
        (self.stdout.finish(), self.stderr.finish())
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

#[derive(Debug, Default)]
struct Ends {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_max: usize,
    tail_max: usize,
    total: u64,
}

impl Ends {
    fn new(limit: u32) -> Self {
        let limit = limit as usize;
        let tail_max = limit / 2;
        Self { head_max: limit - tail_max, tail_max, ..Self::default() }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let (first, rest) = bytes.split_at(bytes.len().min(self.head_max - self.head.len()));
        self.head.extend_from_slice(first);
        let kept = &rest[rest.len().saturating_sub(self.tail_max)..];
        let excess = (self.tail.len() + kept.len()).saturating_sub(self.tail_max);
        self.tail.drain(..excess);
        self.tail.extend(kept);
    }

    fn finish(self) -> Captured<String> {
        let (mut head, tail) = (self.head, Vec::from(self.tail));
        if self.total == (head.len() + tail.len()) as u64 {
            head.extend(tail);
            let (text, encoding) = match String::from_utf8(head) {
                Ok(text) => (text, Encoding::Utf8),
                Err(error) => (STANDARD.encode(error.as_bytes()), Encoding::Base64),
            };
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
        Captured { text, encoding, omitted_bytes: self.total - kept as u64, tail: Some(tail) }
    }
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
