//! What programs in the guest may know and nobody else is told.

use crate::ByteString;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Puts these secrets, each as a file under its name, into the guest's memory,
/// where root alone reads them; in place of all that were there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SetSecrets {
    /// At most [`COUNT_MAX`], of [`TOTAL_MAX`] bytes together.
    pub secrets: Vec<Secret>,
}

/// One secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Secret {
    /// A letter or `_`, then up to 63 letters, digits and `_`.
    pub name: String,
    /// Any bytes.
    pub value: ByteString,
}

/// They are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SecretsSet;

/// How many secrets a guest has at most.
pub const COUNT_MAX: usize = 64;

/// How many bytes all their values have at most: they stay in memory, and what
/// leaves the guest is searched for all their spellings.
pub const TOTAL_MAX: usize = 128 * 1024;

/// Without the value.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}
