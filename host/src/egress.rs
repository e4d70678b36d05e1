//! What a guest's packets may reach, and the gateway that takes them there.
//!
//! A guest has no NIC. With a network policy its agent makes a TUN device and
//! sends IP packets over one connection of the channel; [`gateway`] ends their
//! TCP and UDP in this process, asks the [`policy`], and opens ordinary sockets
//! of the user's. Nothing is connected before the policy has allowed it.

pub mod gateway;
pub mod policy;
pub mod set;

use policy::Policy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// What a workspace's network may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NetworkPolicy {
    /// Nothing: the guest has no network at all.
    #[default]
    #[serde(rename = "off")]
    Off,
    /// The guest reaches what its rules allow.
    #[serde(rename = "egress")]
    Egress,
    /// The same, and ports of the guest may be published on the host.
    #[serde(rename = "egress+published-ports")]
    EgressAndPublishedPorts,
}

/// Connections and datagram flows at the same time, at most. Without a limit, a
/// flood of SYNs takes gigabytes.
pub const FLOWS_MAX: u32 = 512;

/// How much of a network a machine may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkLimits {
    /// Connections and datagram flows at the same time; [`FLOWS_MAX`] if not said.
    pub connections: Option<NonZeroU32>,
    /// KiB of packets from the guest in a second; no limit if not said.
    pub up_kib_per_second: Option<NonZeroU32>,
    /// KiB of packets to it in a second; no limit if not said.
    pub down_kib_per_second: Option<NonZeroU32>,
}

impl NetworkLimits {
    /// Connections and datagram flows at the same time.
    #[must_use]
    pub fn flows_max(self) -> u32 {
        self.connections.map_or(FLOWS_MAX, |count| count.get().min(FLOWS_MAX))
    }
}

/// All that is said of a machine's network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// What it may do.
    pub policy: NetworkPolicy,
    /// Where it may go, with a policy other than `off`.
    pub rules: Policy,
    /// How much of it.
    pub limits: NetworkLimits,
}

/// A word that names no such policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the network policies are `off`, `egress` and `egress+published-ports`")]
pub struct UnknownPolicy;

impl NetworkPolicy {
    const ALL: [Self; 3] = [Self::Off, Self::Egress, Self::EgressAndPublishedPorts];

    /// As it is written everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Egress => "egress",
            Self::EgressAndPublishedPorts => "egress+published-ports",
        }
    }
}

impl FromStr for NetworkPolicy {
    type Err = UnknownPolicy;

    fn from_str(word: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == word).ok_or(UnknownPolicy)
    }
}

impl fmt::Display for NetworkPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
