//! A TCP port of a guest, and where its host finds it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::num::NonZeroU16;

/// Where programs of the host find what is published: nobody but this host
/// reaches it.
pub const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A TCP port of a guest, published on 127.0.0.1 of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Published {
    /// The port on the host.
    pub host_port: NonZeroU16,
    /// The port in the guest.
    pub guest_port: NonZeroU16,
}
