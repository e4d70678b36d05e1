//! How a secret may be spelled where it is not meant to be.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// The shortest spelling that is looked for: what is shorter is in every text.
pub const SHORTEST: usize = 4;

/// The shortest line of a secret of several lines that is looked for alone. A
/// diff puts a sign before each line, and a search shows one; shorter ones, such
/// as a brace, are no secret.
const LINE_MIN: usize = 16;

/// The longest piece that is looked for as a whole. A longer spelling is looked
/// for in pieces, so that little is held back while one may be coming, and a
/// part of it is found as well.
pub(super) const PIECE_MAX: usize = 128;

/// Every spelling that is looked for, in pieces, without line ends: those are
/// left out of what is searched, too.
pub(super) fn pieces(value: &[u8]) -> Vec<Vec<u8>> {
    if !is_looked_for(value) {
        return Vec::new();
    }
    let value = trimmed(value);
    let mut spellings = vec![
        value.to_vec(),
        value.iter().map(|byte| if *byte == b' ' { b'+' } else { *byte }).collect(),
        requoted(value, br"'\''"),
        requoted(value, br#"'"'"'"#),
        backslashed(value, br#"$`"\"#),
        backslashed(value, SHELL_SPECIAL),
        value.escape_ascii().collect(),
    ];
    if let Ok(text) = std::str::from_utf8(value) {
        spellings.push(text.escape_debug().to_string().into_bytes());
        for quoted in [serde_json::Value::from(text).to_string(), format!("{text:?}")] {
            // Within the quotes.
            spellings.push(quoted.as_bytes()[1..quoted.len() - 1].to_vec());
        }
    }
    let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    spellings.extend(lines.filter(|line| line.len() >= LINE_MIN).map(<[u8]>::to_vec));
    spellings.extend(in_base64(value));
    let mut pieces: Vec<_> = spellings.iter().flat_map(|spelling| cut(spelling)).collect();
    pieces.sort_unstable();
    pieces.dedup();
    pieces
}

/// Whether a value is long enough to be looked for.
pub(crate) fn is_looked_for(value: &[u8]) -> bool {
    value.iter().filter(|byte| !is_line_end(**byte)).count() >= SHORTEST
}

/// A value without the line ends at its end, which it may have from its file.
pub(crate) fn trimmed(value: &[u8]) -> &[u8] {
    let end = value.iter().rposition(|byte| !is_line_end(*byte)).map_or(0, |last| last + 1);
    &value[..end]
}

pub(super) const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// A spelling in pieces, the last as long as the others.
fn cut(spelling: &[u8]) -> Vec<Vec<u8>> {
    let bare: Vec<u8> = spelling.iter().copied().filter(|byte| !is_line_end(*byte)).collect();
    if bare.len() < SHORTEST {
        return Vec::new();
    }
    let last = bare.len().saturating_sub(PIECE_MAX);
    let starts = (0..last).step_by(PIECE_MAX).chain([last]);
    starts.map(|start| bare[start..bare.len().min(start + PIECE_MAX)].to_vec()).collect()
}

/// What shells put a backslash before where there are no quotes.
const SHELL_SPECIAL: &[u8] = b" \t!\"$&'()*,;<>?[\\]^`{|}";

/// With a backslash before each of these bytes.
fn backslashed(value: &[u8], special: &[u8]) -> Vec<u8> {
    let mut spelling = Vec::with_capacity(value.len());
    for byte in value {
        spelling.extend(special.contains(byte).then_some(b'\\'));
        spelling.push(*byte);
    }
    spelling
}

/// With the single quotes in it as they stand within single quotes of a shell.
fn requoted(value: &[u8], quote: &[u8]) -> Vec<u8> {
    value.split(|byte| *byte == b'\'').collect::<Vec<_>>().join(quote)
}

/// In base64 of both alphabets, wherever it begins in what is encoded: of the
/// characters that its own bytes decide alone; and to the end, if the encoded
/// ends with it, or with the line that it is.
fn in_base64(value: &[u8]) -> Vec<Vec<u8>> {
    let mut spellings = Vec::new();
    for alphabet in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        for before in 0..3_usize {
            let mut encoded = vec![0; before];
            encoded.extend_from_slice(value);
            let (first, sure) = ((before * 8).div_ceil(6), encoded.len() * 8 / 6);
            let text = alphabet.encode(&encoded);
            spellings.extend(text.get(first..sure).map(|text| text.as_bytes().to_vec()));
            for end in ["", "\n", "\r\n"] {
                let mut text = alphabet.encode([&encoded, end.as_bytes()].concat());
                let padding = "=".repeat((4 - text.len() % 4) % 4);
                // Of a long one all but the end is there already.
                let from = first.max(text.len().saturating_sub(PIECE_MAX - padding.len()));
                spellings.extend(text.get(from..).map(|text| text.as_bytes().to_vec()));
                text.push_str(&padding);
                spellings.extend(text.get(from..).map(|text| text.as_bytes().to_vec()));
            }
        }
    }
    spellings
}
