//! What stands before everything that the multiplexer sends.
//!
//! ```text
//! offset  0        1..4          4..8              8..12
//!         kind u8  zero [u8; 3]  stream u32 LE     value u32 LE
//! ```

use super::{STREAM_UNIT, WINDOW};
use crate::VsockPort;

/// Bytes of a header.
pub const HEADER_LEN: usize = 12;

/// Which stream; the side that opens it chooses. The host's are odd, the
/// guest's even, and each is greater than the last of its side.
pub(super) type StreamId = u32;

/// One header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// A new stream to this port.
    Open(VsockPort),
    /// The other side listens there.
    Accept,
    /// So many bytes follow; at least one, at most [`STREAM_UNIT`].
    Data(usize),
    /// Nothing more will follow on this stream.
    End,
    /// The stream is over in both directions, or was refused.
    Reset,
    /// So many bytes more may be sent; at most [`WINDOW`].
    Credit(usize),
}

const OPEN: u8 = 1;
const ACCEPT: u8 = 2;
const DATA: u8 = 3;
const END: u8 = 4;
const RESET: u8 = 5;
const CREDIT: u8 = 6;

impl Header {
    pub(super) fn to_bytes(self, stream: StreamId) -> [u8; HEADER_LEN] {
        let number = |value| u32::try_from(value).expect("limits fit a u32");
        let (kind, value) = match self {
            Header::Open(port) => (OPEN, port.0),
            Header::Accept => (ACCEPT, 0),
            Header::Data(length) => (DATA, number(length)),
            Header::End => (END, 0),
            Header::Reset => (RESET, 0),
            Header::Credit(bytes) => (CREDIT, number(bytes)),
        };
        let [s0, s1, s2, s3] = stream.to_le_bytes();
        let [v0, v1, v2, v3] = value.to_le_bytes();
        [kind, 0, 0, 0, s0, s1, s2, s3, v0, v1, v2, v3]
    }

    /// `None` for what is no header.
    pub(super) fn parse(bytes: [u8; HEADER_LEN]) -> Option<(StreamId, Self)> {
        let [kind, r0, r1, r2, s0, s1, s2, s3, v0, v1, v2, v3] = bytes;
        if [r0, r1, r2] != [0; 3] {
            return None;
        }
        let value = u32::from_le_bytes([v0, v1, v2, v3]);
        let header = match (kind, value, value as usize) {
            (OPEN, port, _) => Header::Open(VsockPort(port)),
            (ACCEPT, 0, _) => Header::Accept,
            (DATA, _, length @ 1..=STREAM_UNIT) => Header::Data(length),
            (END, 0, _) => Header::End,
            (RESET, 0, _) => Header::Reset,
            (CREDIT, _, bytes @ 1..=WINDOW) => Header::Credit(bytes),
            _ => return None,
        };
        Some((u32::from_le_bytes([s0, s1, s2, s3]), header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn byte_for_byte() {
        let golden = [
            (Header::Open(VsockPort(5005)), "01000000070000008d130000"),
            (Header::Accept, "020000000700000000000000"),
            (Header::Data(STREAM_UNIT), "0300000007000000f47f0000"),
            (Header::End, "040000000700000000000000"),
            (Header::Reset, "050000000700000000000000"),
            (Header::Credit(WINDOW / 2), "060000000700000000000200"),
        ];
        for (header, hex) in golden {
            let bytes = header.to_bytes(7);
            let shown: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(shown, hex.replace(' ', ""), "{header:?}");
            assert_eq!(Header::parse(bytes), Some((7, header)));
        }
    }

    proptest! {
        #[test]
        fn what_is_a_header_is_written_the_same(bytes: [u8; HEADER_LEN]) {
            if let Some((stream, header)) = Header::parse(bytes) {
                prop_assert_eq!(header.to_bytes(stream), bytes);
            }
        }

        /// What [`super::super::FLUSH`] rests on.
        #[test]
        fn a_header_that_ends_in_flush_bytes_leads_nowhere_far(
            stream: u32, length in 1..=STREAM_UNIT, cut in 0..HEADER_LEN
        ) {
            let mut bytes = Header::Data(length).to_bytes(stream);
            bytes[cut..].fill(0xff);
            prop_assert_eq!(Header::parse(bytes), None);
        }
    }
}
