use super::redact::{SHORTEST, is_looked_for, trimmed};
use std::fmt;
use std::io::Read;
use zeroize::Zeroizing;

/// The longest value: a bundle of certificates fits.
pub const VALUE_MAX: usize = 64 * 1024;

/// A secret's value: any bytes. It is never shown, and wiped when it is dropped.
pub struct SecretValue(Zeroizing<Vec<u8>>);

/// What is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// There is too much.
    #[error("it is longer than {VALUE_MAX} bytes")]
    TooLong,
}

impl SecretValue {
    /// A value of these bytes.
    ///
    /// # Errors
    /// When there are none, or more than [`VALUE_MAX`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, BadValue> {
        let value = Self(Zeroizing::new(bytes));
        match value.0.len() {
            0 => Err(BadValue::Empty),
            1..=VALUE_MAX => Ok(value),
            _ => Err(BadValue::TooLong),
        }
    }

    /// Reads all there is, and one byte more than may be.
    pub(crate) fn read(from: impl Read) -> std::io::Result<Result<Self, BadValue>> {
        // At once as much as it may take: growing would leave copies behind.
        let mut bytes = Vec::with_capacity(VALUE_MAX + 1);
        from.take(VALUE_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(Self::new(bytes))
    }

    /// The bytes, for sealing, handing over and looking for.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// What a variable gets: no line end at its end, as `$(cat FILE)` has none.
    /// `None` when no variable can have it.
    pub(crate) fn as_variable(&self) -> Option<&[u8]> {
        let value = trimmed(&self.0);
        (!value.contains(&0)).then_some(value)
    }

    /// What is to be known of a value that is not left out of what is told.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        (!is_looked_for(&self.0)).then(|| {
            format!(
                "it is shorter than {SHORTEST} bytes, which are in every text: it is not left out \
                 of outputs"
            )
        })
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_bounds() {
        assert_eq!(SecretValue::new(Vec::new()).err(), Some(BadValue::Empty));
        assert!(SecretValue::new(vec![b'x'; VALUE_MAX]).is_ok());
        assert_eq!(SecretValue::new(vec![b'x'; VALUE_MAX + 1]).err(), Some(BadValue::TooLong));
        let endless = SecretValue::read(std::io::repeat(b'x')).expect("read");
        assert_eq!(endless.err(), Some(BadValue::TooLong));
    }

    #[test]
    fn s6_a_value_does_not_show() {
        let value = SecretValue::new(b"hunter22".to_vec()).expect("a value");
        assert!(!format!("{value:?}").contains("hunter"));
    }

    #[test]
    fn a_variable_has_no_line_end_and_no_nul() {
        let variable = |bytes: &[u8]| {
            let value = SecretValue::new(bytes.to_vec()).expect("a value");
            value.as_variable().map(<[u8]>::to_vec)
        };
        assert_eq!(variable(b"a\nb\r\n\n"), Some(b"a\nb".to_vec()));
        assert_eq!(variable(b"a\0b"), None);
    }
}
