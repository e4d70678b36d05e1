//! The first frames of every connection.

use serde::{Deserialize, Serialize};

/// A version of the protocol as a whole. Both sides speak the lower of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Generation(pub u16);

/// The newest generation that this crate speaks; schema/1.json is its surface.
pub const GENERATION: Generation = Generation(1);

/// What makes a peer one of ours.
pub const MAGIC: [u8; 4] = *b"pyro";

/// The host's opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// The newest generation the host speaks.
    pub generation: Generation,
}

/// The agent's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Welcome {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// What the connection speaks: the lower of the two sides' newest.
    pub generation: Generation,
    /// The agent's version, such as `0.1.0`.
    pub agent_version: String,
    /// The guest's wall clock when this was written, in nanoseconds since the
    /// Unix epoch. With the time of sending `Hello` and of receiving this, the
    /// host knows the guest's clock to within half a round trip, on every
    /// connection and at no cost.
    pub clock_ns: i64,
    /// Whether `Activate` has given the guest a workspace.
    pub activated: bool,
}

/// What the agent says, unasked, once it listens: the host need not poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Announcement {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// The newest generation the agent speaks.
    pub generation: Generation,
    /// The guest's time since its kernel started, in microseconds.
    pub uptime_us: u64,
}

impl Hello {
    /// The host's opening in our generation.
    #[must_use]
    pub fn ours() -> Self {
        Self { magic: MAGIC, generation: GENERATION }
    }
}
