//! The only place that knows how a payload is encoded.
//!
//! bincode 2.0.1 in its standard configuration: little endian, variable-length
//! integers, enum variants by index. So the order of variants and fields *is*
//! the wire format, and a shipped type is never changed in place; the frozen
//! schema and the golden bytes in tests/ guard it.

use crate::frame::FrameKind;
use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::{Serialize, de::DeserializeOwned};

/// The largest payload that any decoder here will look at: the largest that
/// any kind of frame may carry.
pub const DECODE_LIMIT: usize = 4 * 1024 * 1024;

const _: () = assert!(FrameKind::Call.limit() <= DECODE_LIMIT);
const _: () = assert!(FrameKind::Reply.limit() <= DECODE_LIMIT);

const CONFIG: Configuration<LittleEndian, Varint, Limit<DECODE_LIMIT>> =
    bincode::config::standard().with_limit::<DECODE_LIMIT>();

/// Why a payload is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes do not describe the type.
    #[error("malformed payload")]
    Malformed(#[source] bincode::error::DecodeError),
    /// The bytes describe the type, and then there are more.
    #[error("{0} bytes too many in the payload")]
    Trailing(usize),
    /// The value cannot be encoded within [`DECODE_LIMIT`].
    #[error("the payload cannot be encoded")]
    Unencodable(#[source] bincode::error::EncodeError),
}

/// Encodes a value.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    bincode::serde::encode_to_vec(value, CONFIG).map_err(CodecError::Unencodable)
}

/// Decodes a value out of exactly these bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, consumed) =
        bincode::serde::decode_from_slice(bytes, CONFIG).map_err(CodecError::Malformed)?;
    match bytes.len() - consumed {
        0 => Ok(value),
        trailing => Err(CodecError::Trailing(trailing)),
    }
}
