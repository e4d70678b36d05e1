//! An error on its way from a supervisor to whoever asked.

use crate::error::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

/// An error, as far as it can be told to another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// See [`ErrorKind`].
    pub kind: ErrorKind,
    /// One sentence, with all its causes.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            message: error.chain(),
            hint: error.next_step().map(str::to_owned),
        }
    }
}

impl From<Failure> for Error {
    fn from(Failure { kind, message, hint }: Failure) -> Self {
        let error = Self::new(kind, message);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}
