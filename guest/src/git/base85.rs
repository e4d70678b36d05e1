//! Git's base 85: five digits for four bytes, big end first, in lines of up to
//! 52 bytes that begin with a letter for their length.

/// The most bytes of one line.
pub(crate) const LINE_BYTES: usize = 52;

const DIGITS: &[u8; 85] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";

/// Writes one line of at most [`LINE_BYTES`], with its newline.
pub(crate) fn write_line(bytes: &[u8], to: &mut Vec<u8>) {
    let length = u8::try_from(bytes.len()).unwrap_or(0);
    to.push(if length <= 26 { b'A' + length - 1 } else { b'a' + length - 27 });
    for group in bytes.chunks(4) {
        let mut word = [0; 4];
        word[..group.len()].copy_from_slice(group);
        let mut value = u32::from_be_bytes(word);
        let mut digits = [0; 5];
        for digit in digits.iter_mut().rev() {
            *digit = DIGITS[value as usize % DIGITS.len()];
            value /= 85;
        }
        to.extend(digits);
    }
    to.push(b'\n');
}

/// Reads one line, without its newline. `None` when it is not one.
pub(crate) fn read_line(line: &[u8], to: &mut Vec<u8>) -> Option<()> {
    let (first, digits) = line.split_first()?;
    let length = usize::from(match first {
        b'A'..=b'Z' => first - b'A' + 1,
        b'a'..=b'z' => first - b'a' + 27,
        _ => return None,
    });
    if digits.len() != length.div_ceil(4) * 5 {
        return None;
    }
    let start = to.len();
    for group in digits.chunks_exact(5) {
        let mut value: u32 = 0;
        for digit in group {
            let digit = DIGITS.iter().position(|known| known == digit)?;
            value = value.checked_mul(85)?.checked_add(u32::try_from(digit).ok()?)?;
        }
        to.extend(value.to_be_bytes());
    }
    to.truncate(start + length);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_was_written_is_read_again(bytes in proptest::collection::vec(any::<u8>(), 1..=LINE_BYTES)) {
            let mut line = Vec::new();
            write_line(&bytes, &mut line);
            prop_assert_eq!(line.pop(), Some(b'\n'));
            let mut read = Vec::new();
            prop_assert_eq!(read_line(&line, &mut read), Some(()));
            prop_assert_eq!(read, bytes);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut read = Vec::new();
            read_line(&line, &mut read);
            prop_assert!(read.len() <= 80);
        }
    }
}
