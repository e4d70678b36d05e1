//! The keys by which one leaves a shell.

use std::str::FromStr;

/// The default, which `docker attach` has taught to many.
pub(in crate::cli) const DETACH_KEYS: &str = "ctrl-p,ctrl-q";

/// The most keys one after the other.
const KEYS_MAX: usize = 8;

/// Keys that leave a shell when they are pressed one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct DetachKeys(Vec<u8>);

/// What are no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "keys are characters or `ctrl-` and a letter or one of @ [ \\ ] ^ _, with commas between: \
     `ctrl-p,ctrl-q`; at most {KEYS_MAX}"
)]
pub(in crate::cli) struct NoKeys;

impl FromStr for DetachKeys {
    type Err = NoKeys;

    fn from_str(text: &str) -> Result<Self, NoKeys> {
        let keys: Vec<u8> = text.split(',').map(key).collect::<Option<_>>().ok_or(NoKeys)?;
        if keys.len() <= KEYS_MAX { Ok(Self(keys)) } else { Err(NoKeys) }
    }
}

fn key(word: &str) -> Option<u8> {
    match (word.strip_prefix("ctrl-").map(str::as_bytes), word.as_bytes()) {
        (Some([letter @ b'a'..=b'z']), _) => Some(letter - b'a' + 1),
        (Some([sign @ (b'@' | b'['..=b'_')]), _) => Some(sign - b'@'),
        (None, [character @ 0x20..0x7f]) => Some(*character),
        (Some(_) | None, _) => None,
    }
}

impl DetachKeys {
    /// Looks out for them.
    pub(super) fn watcher(self) -> Watcher {
        Watcher { keys: self.0, pressed: 0 }
    }
}

/// Looks out for the keys; holds back those that may be the first of them.
#[derive(Debug)]
pub(super) struct Watcher {
    keys: Vec<u8>,
    /// How many of them were pressed, and are held back.
    pressed: usize,
}

/// What comes of keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pressed {
    /// These are for the shell.
    Passed(Vec<u8>),
    /// The caller leaves.
    Detach,
}

impl Watcher {
    /// Takes the next keys.
    pub(super) fn press(&mut self, keys: &[u8]) -> Pressed {
        let mut passed = Vec::new();
        for key in keys {
            let mut held = self.keys[..self.pressed].to_vec();
            held.push(*key);
            // The longest end of them that may still become the sequence.
            let begins = |length: &usize| held.ends_with(&self.keys[..*length]);
            let most = held.len().min(self.keys.len());
            self.pressed = (0..=most).rev().find(begins).unwrap_or(0);
            if self.pressed == self.keys.len() {
                return Pressed::Detach;
            }
            passed.extend(&held[..held.len() - self.pressed]);
        }
        Pressed::Passed(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn keys_are_spelled_as_docker_spells_them() {
        let keys = |text: &str| text.parse::<DetachKeys>().ok().map(|keys| keys.0);
        assert_eq!(keys(DETACH_KEYS), Some(vec![16, 17]));
        assert_eq!(keys("ctrl-@,ctrl-[,ctrl-_"), Some(vec![0, 27, 31]));
        assert_eq!(keys("a,~,."), Some(b"a~.".to_vec()));
        for bad in ["", "ctrl-", "ctrl-P", "ctrl-1", "ab", "a,,b", "é", "a,b,c,d,e,f,g,h,i"] {
            assert_eq!(keys(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_key_that_may_be_the_first_is_held_back_until_it_is_not() {
        let mut watcher = DetachKeys(vec![16, 17]).watcher();
        assert_eq!(watcher.press(b"a\x10"), Pressed::Passed(b"a".to_vec()));
        assert_eq!(watcher.press(b"\x10"), Pressed::Passed(b"\x10".to_vec()));
        assert_eq!(watcher.press(b"b"), Pressed::Passed(b"\x10b".to_vec()));
        assert_eq!(watcher.press(b"\x10"), Pressed::Passed(Vec::new()));
        assert_eq!(watcher.press(b"\x11and more"), Pressed::Detach);
    }

    proptest! {
        /// However keys come: all are passed on up to the sequence, and the
        /// sequence leaves wherever it is.
        #[test]
        fn keys_are_passed_on_or_leave(
            sequence in vec(0..3_u8, 1..4),
            keys in vec(0..3_u8, 0..40),
            cut in 1..5_usize,
        ) {
            let at = keys.windows(sequence.len()).position(|window| window == sequence);
            let mut watcher = DetachKeys(sequence.clone()).watcher();
            let (mut passed, mut left) = (Vec::new(), false);
            for piece in keys.chunks(cut) {
                match watcher.press(piece) {
                    Pressed::Passed(keys) => passed.extend(keys),
                    Pressed::Detach => { left = true; break; }
                }
            }
            prop_assert_eq!(left, at.is_some());
            if !left {
                passed.extend(&sequence[..watcher.pressed]);
                prop_assert_eq!(passed, keys);
            }
        }
    }
}
