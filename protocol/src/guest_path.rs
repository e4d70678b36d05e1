use crate::ByteString;
use serde::{Deserialize, Serialize};

/// A path inside the guest: bytes without NUL, relative to `/workspace` unless
/// it is absolute.
///
/// There is deliberately no conversion to a host path: what a guest names must
/// never be opened on the host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "ByteString", into = "ByteString")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "ByteString"))]
pub struct GuestPath(Vec<u8>);

/// The longest path that Linux takes, without its NUL.
pub const PATH_MAX: usize = 4095;

/// Why bytes are not a guest path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// There is nothing in it.
    #[error("the path is empty")]
    Empty,
    /// Linux ends a path at a NUL.
    #[error("the path contains a NUL byte")]
    Nul,
    /// See [`PATH_MAX`].
    #[error("the path is longer than {PATH_MAX} bytes")]
    TooLong,
}

impl GuestPath {
    /// Takes the bytes as they are, if Linux could.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, BadPath> {
        let bytes = bytes.into();
        match bytes {
            _ if bytes.is_empty() => Err(BadPath::Empty),
            _ if bytes.contains(&0) => Err(BadPath::Nul),
            _ if bytes.len() > PATH_MAX => Err(BadPath::TooLong),
            _ => Ok(Self(bytes)),
        }
    }

    /// The path's bytes, for use inside the guest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Display for GuestPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0))
    }
}

impl TryFrom<ByteString> for GuestPath {
    type Error = BadPath;

    fn try_from(bytes: ByteString) -> Result<Self, BadPath> {
        Self::new(bytes.0)
    }
}

impl From<GuestPath> for ByteString {
    fn from(path: GuestPath) -> Self {
        Self(path.0)
    }
}
