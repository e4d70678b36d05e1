//! A TCP port of a guest, and where its host finds it.

use pyro_protocol::service::ServiceName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::num::NonZeroU16;

/// Where programs of the host find what is published: nobody but this host
/// reaches it.
pub const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Ports of one workspace, so that a list fits a supervisor's answer.
pub const PORTS_MAX: usize = 256;

/// Which port to publish, or to take back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// The port on the host; any if not said.
    pub host_port: Option<NonZeroU16>,
    /// The port in the guest.
    pub guest_port: NonZeroU16,
}

/// A TCP port of a guest, published on 127.0.0.1 of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Published {
    /// The port on the host.
    pub host_port: NonZeroU16,
    /// The port in the guest.
    pub guest_port: NonZeroU16,
    /// The service that it was published for, and ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub service: Option<ServiceName>,
}
