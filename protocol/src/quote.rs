//! Names as git writes them: as they are if nothing in them is odd, otherwise
//! in double quotes with C's escapes.

/// A name as git writes it, quoted if it must be.
#[must_use]
pub fn quoted(name: &[u8]) -> Vec<u8> {
    if !name.iter().copied().any(is_odd) {
        return name.to_vec();
    }
    let mut quoted = vec![b'"'];
    for byte in name.iter().copied() {
        match escape_of(byte) {
            Some(letter) => quoted.extend([b'\\', letter]),
            None if is_odd(byte) => {
                quoted.extend([
                    b'\\',
                    b'0' + (byte >> 6),
                    b'0' + (byte >> 3 & 7),
                    b'0' + (byte & 7),
                ]);
            }
            None => quoted.push(byte),
        }
    }
    quoted.push(b'"');
    quoted
}

/// Reads a quoted name at the beginning of a text: the name, and what follows
/// the closing quote. `None` when it is not one.
#[must_use]
pub fn unquoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = text.strip_prefix(b"\"")?;
    let mut name = Vec::new();
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'"' => return Some((name, rest)),
            b'\\' => {
                let (&letter, after) = rest.split_first()?;
                rest = after;
                if matches!(letter, b'0'..=b'3') {
                    let [second @ b'0'..=b'7', third @ b'0'..=b'7', after @ ..] = rest else {
                        return None;
                    };
                    name.push((letter - b'0') << 6 | (second - b'0') << 3 | (third - b'0'));
                    rest = after;
                } else {
                    name.push(byte_of(letter)?);
                }
            }
            byte => name.push(byte),
        }
    }
}

/// What git quotes with `core.quotePath`, its default.
fn is_odd(byte: u8) -> bool {
    byte < b' ' || byte >= 0x7f || matches!(byte, b'"' | b'\\')
}

const ESCAPES: [(u8, u8); 9] = [
    (0x07, b'a'),
    (0x08, b'b'),
    (b'\t', b't'),
    (b'\n', b'n'),
    (0x0b, b'v'),
    (0x0c, b'f'),
    (b'\r', b'r'),
    (b'"', b'"'),
    (b'\\', b'\\'),
];

fn escape_of(byte: u8) -> Option<u8> {
    ESCAPES.iter().find(|(odd, _)| *odd == byte).map(|(_, letter)| *letter)
}

fn byte_of(letter: u8) -> Option<u8> {
    ESCAPES.iter().find(|(_, known)| *known == letter).map(|(byte, _)| *byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn r7_names_are_quoted_as_git_does() {
        for (name, expected) in [
            (b"plain name.txt".as_slice(), b"plain name.txt".as_slice()),
            ("ä".as_bytes(), br#""\303\244""#),
            (b"a\tb\nc", br#""a\tb\nc""#),
            (b"\"\\", br#""\"\\""#),
            (b"\x01\x7f\xff", br#""\001\177\377""#),
        ] {
            assert_eq!(quoted(name), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_was_quoted_is_read_again(name: Vec<u8>, rest: Vec<u8>) {
            let text = quoted(&name);
            if text.first() == Some(&b'"') {
                let text = [text, rest.clone()].concat();
                prop_assert_eq!(unquoted(&text), Some((name, rest.as_slice())));
            } else {
                prop_assert_eq!(text, name);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(text: Vec<u8>) {
            let text = [b"\"".as_slice(), &text].concat();
            if let Some((_, rest)) = unquoted(&text) {
                prop_assert!(rest.len() < text.len());
            }
        }
    }
}
