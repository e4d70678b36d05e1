//! Text that comes from a guest, made fit to be shown: it may try to drive a
//! terminal, or to look like something else.

/// With everything that does not print spelled out, cut to so many characters.
pub fn escaped(text: &str, max: usize) -> String {
    let mut escaped = String::new();
    for char in text.chars().take(max) {
        if prints(char) {
            escaped.push(char);
        } else {
            escaped.extend(char.escape_unicode());
        }
    }
    escaped
}

/// Without anything that does not print.
pub fn bare(text: &str) -> String {
    text.chars().filter(|char| prints(*char)).collect()
}

/// Not so: control characters, those that change the direction of writing,
/// separators other than a space, what no font has, marks that would change
/// the character before them.
fn prints(char: char) -> bool {
    matches!(char, '\'' | '"' | '\\') || char.escape_debug().len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write_stays() {
        let text = r#"cannot open "it's C:\x": Größe, 大小, naïve"#;
        assert_eq!((escaped(text, 99).as_str(), bare(text).as_str()), (text, text));
    }

    #[test]
    fn what_drives_a_terminal_does_not() {
        let text = "\x1b]0;title\x07\u{9b}31m\u{202e}a\r\nb\u{2028}";
        assert_eq!(bare(text), "]0;title31mab");
        assert_eq!(escaped(text, 99), r"\u{1b}]0;title\u{7}\u{9b}31m\u{202e}a\u{d}\u{a}b\u{2028}");
        assert_eq!(escaped("abc", 2), "ab");
    }

    proptest! {
        #[test]
        fn no_control_character_survives(text: String) {
            prop_assert!(!bare(&text).contains(char::is_control));
            prop_assert!(!escaped(&text, 10).contains(char::is_control));
            // Ten bytes is the longest escape.
            prop_assert!(escaped(&text, 10).len() <= 100);
        }
    }
}
