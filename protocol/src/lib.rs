//! The framed RPC that the host controller `pyro` and the guest agent
//! `pyro-agent` speak.
//!
//! One connection carries one call. Its first frames are [`Hello`] and
//! [`Welcome`], which settle the protocol [`Generation`]; then one [`Call`] and
//! its typed reply or an [`AgentError`]. A call that starts a process keeps the
//! connection: output, input, signals and the exit status follow as frames, and
//! closing the connection cancels it. docs/protocol.md tells the whole story.
//!
//! Either side may be hostile to the other, the guest certainly: every decoder
//! here is total, refuses before it allocates, and consumes all it was given.

pub mod call;
pub mod carry;
pub mod channel;
pub mod codec;
pub mod diff;
pub mod egress;
/// What the agent answers when a call fails.
pub mod error;
pub mod export;
pub mod file;
pub mod frame;
/// Paths inside the guest.
pub mod guest_path;
pub mod handshake;
pub mod inspect;
pub mod io;
pub mod kept;
pub mod piece;
pub mod power;
pub mod process;
pub mod push;
pub mod quote;
pub mod secret;
pub mod service;
pub mod shell;
pub mod transfer;
pub mod tunnel;

mod bytes;

pub use bytes::ByteString;
pub use call::{Call, Request};
pub use error::{AgentError, AgentErrorKind};
pub use frame::{Frame, FrameKind};
pub use guest_path::GuestPath;
pub use handshake::{GENERATION, Generation, Hello, Welcome};
pub use io::{FrameReader, FrameWriter, Lost};

use serde::{Deserialize, Serialize};

/// A port in the vsock address space, never a TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VsockPort(pub u32);

impl std::fmt::Display for VsockPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "vsock port {}", self.0)
    }
}

/// Where the agent listens for calls.
pub const CALL_PORT: VsockPort = VsockPort(5005);

/// Where the host listens for the agent's announcement that it is up.
pub const ANNOUNCE_PORT: VsockPort = VsockPort(5006);

/// Where the agent echoes raw bytes, so that a benchmark can tell what the
/// channel itself can carry.
pub const ECHO_PORT: VsockPort = VsockPort(5007);

/// Where the agent sends as many zero bytes as the host asks for by a u64 in
/// little endian, again and again; for a benchmark, as [`ECHO_PORT`].
pub const SOURCE_PORT: VsockPort = VsockPort(5008);

/// Where the agent takes as many bytes as the host announces by a u64 in little
/// endian, and then sends one byte, again and again; as [`SOURCE_PORT`].
pub const SINK_PORT: VsockPort = VsockPort(5009);
