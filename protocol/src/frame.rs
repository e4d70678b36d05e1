//! The unit on the wire: an eight-byte header, then a payload.
//!
//! ```text
//! offset  0        1..4          4..8
//!         kind u8  zero [u8; 3]  payload length u32, little endian
//! ```

/// Bytes before every payload.
pub const HEADER_LEN: usize = 8;

/// The most bytes of a stream (stdin, stdout, stderr) in one frame. Large
/// enough to amortise the header, small enough that frames of two streams
/// interleave.
pub const STREAM_CHUNK: usize = 64 * 1024;

macro_rules! frame_kinds {
    ($($(#[$doc:meta])* $name:ident = $byte:literal, at most $limit:expr;)*) => {
        /// What a frame carries.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum FrameKind { $($(#[$doc])* $name = $byte,)* }

        impl FrameKind {
            /// Every kind, in the order of their bytes.
            pub const ALL: &[FrameKind] = &[$(FrameKind::$name),*];

            /// The most payload bytes a frame of this kind may carry; a longer
            /// one is refused before any of it is read.
            #[must_use]
            pub const fn limit(self) -> usize {
                match self { $(FrameKind::$name => $limit,)* }
            }

            /// The kind's name in errors.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(FrameKind::$name => stringify!($name),)* }
            }

            const fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($byte => Some(FrameKind::$name),)* _ => None }
            }
        }
    };
}

frame_kinds! {
    /// Opens a connection: [`Hello`](crate::Hello), from the host.
    Hello = 1, at most 64;
    /// Answers it: [`Welcome`](crate::Welcome), from the agent.
    Welcome = 2, at most 1024;
    /// The connection's one [`Call`](crate::Call). Room for the largest
    /// argument list that Linux takes (2 MiB) and as much environment.
    Call = 3, at most 4 * 1024 * 1024;
    /// The call's typed reply.
    Reply = 4, at most 1024 * 1024;
    /// The call failed: [`AgentError`](crate::AgentError).
    Error = 5, at most 16 * 1024;
    /// The agent is up: [`Announcement`](crate::handshake::Announcement).
    Announcement = 6, at most 1024;
    /// Raw bytes for the process.
    Stdin = 16, at most STREAM_CHUNK;
    /// The process will read no more; empty.
    StdinEnd = 17, at most 0;
    /// Raw bytes from the process.
    Stdout = 18, at most STREAM_CHUNK;
    /// Raw bytes from the process.
    Stderr = 19, at most STREAM_CHUNK;
    /// The process is gone: [`Exit`](crate::process::Exit); the last frame.
    Exit = 20, at most 64;
    /// A [`Signal`](crate::process::Signal) for the process.
    Signal = 21, at most 8;
    /// The process took of its stdin: [`StdinTaken`](crate::process::StdinTaken).
    StdinTaken = 22, at most 8;
    /// Raw bytes of what a call transfers, in the direction that the call says.
    Data = 23, at most STREAM_CHUNK;
    /// The transfer is complete; its payload is what the call says. A transfer
    /// that ends without it was cut off, and counts for nothing.
    DataEnd = 24, at most 64 * 1024;
    /// Output that is gone: [`Skipped`](crate::kept::Skipped).
    Skipped = 25, at most 16;
    /// The terminal is to have this size:
    /// [`TerminalSize`](crate::shell::TerminalSize).
    Resize = 26, at most 8;
}

/// One frame, its payload still encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: FrameKind,
    /// At most [`FrameKind::limit`] bytes.
    pub payload: Vec<u8>,
}

/// Why eight bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// No frame kind has this byte.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// The padding is not zero.
    #[error("the header's reserved bytes are not zero")]
    Reserved,
    /// The payload would be longer than its kind allows.
    #[error("a {kind:?} frame of {length} bytes; at most {} are allowed", kind.limit())]
    TooLong {
        /// What was to come.
        kind: FrameKind,
        /// How long it claimed to be.
        length: usize,
    },
}

/// Writes the header of a frame whose payload has `length` bytes.
///
/// # Panics
/// When the payload is longer than its kind allows: our own frames never are.
#[must_use]
pub fn header(kind: FrameKind, length: usize) -> [u8; HEADER_LEN] {
    assert!(length <= kind.limit(), "a {kind:?} frame of {length} bytes");
    let length = u32::try_from(length).expect("limits fit a u32").to_le_bytes();
    [kind as u8, 0, 0, 0, length[0], length[1], length[2], length[3]]
}

/// Reads a header: the kind and the length of the payload that follows.
pub fn parse_header(bytes: [u8; HEADER_LEN]) -> Result<(FrameKind, usize), BadHeader> {
    let [kind, r0, r1, r2, l0, l1, l2, l3] = bytes;
    let kind = FrameKind::from_byte(kind).ok_or(BadHeader::UnknownKind(kind))?;
    if [r0, r1, r2] != [0; 3] {
        return Err(BadHeader::Reserved);
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > kind.limit() {
        return Err(BadHeader::TooLong { kind, length });
    }
    Ok((kind, length))
}
