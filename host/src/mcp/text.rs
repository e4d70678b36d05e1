//! The text of an answer, short enough for a model.

/// How long the text of an answer may be, in bytes: some 8,000 tokens. Clients
/// cut off what is longer, without regard to what they cut.
pub(super) const TEXT_MAX: usize = 32 * 1024;

/// How much of a longer text is its end, where programs tell how they fared.
const TAIL_MAX: usize = TEXT_MAX / 4;

/// The text, or its head and its tail and how much is missing between them:
/// for answers that are long by the number of things in them. What a guest wrote
/// has been fitted in already.
pub(super) fn bounded(text: String) -> String {
    if text.len() <= TEXT_MAX {
        return text;
    }
    let head = &text[..text.floor_char_boundary(TEXT_MAX - TAIL_MAX)];
    let tail = &text[text.ceil_char_boundary(text.len() - TAIL_MAX)..];
    let missing = text.len() - head.len() - tail.len();
    format!(
        "{head}\n[{missing} bytes of this text left out; ask for less at a time, or see the \
         structured content]\n{tail}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_fits_is_left_alone() {
        let text = "x".repeat(TEXT_MAX);
        assert_eq!(bounded(text.clone()), text);
    }

    proptest! {
        #[test]
        fn what_does_not_keeps_its_ends(pad in 0_usize..4, more in 1_usize..9) {
            let text = "x".repeat(pad) + &"é".repeat(TEXT_MAX / 2 + more) + "end";
            let short = bounded(text.clone());
            prop_assert!(short.len() < TEXT_MAX + 256);
            let (head, rest) = short.split_once("\n[").expect("a note");
            let (note, tail) = rest.split_once("]\n").expect("a note");
            prop_assert!(text.starts_with(head) && text.ends_with(tail));
            let missing = text.len() - head.len() - tail.len();
            prop_assert!(note.starts_with(&format!("{missing} bytes")), "{}", note);
        }
    }
}
