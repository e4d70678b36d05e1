//! What a VMM counts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a VMM has counted since it started its guest: what it says, which is
/// worth as much as the VMM is. Disks are all that the guest has, taken together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Metrics {
    /// Bytes that the guest read from its disks.
    pub disk_read_bytes: u64,
    /// How often it read.
    pub disk_read_count: u64,
    /// Bytes that the guest wrote to its disks.
    pub disk_write_bytes: u64,
    /// How often it wrote.
    pub disk_write_count: u64,
    /// Bytes that the guest got over vsock; null where the VMM does not carry it.
    pub vsock_received_bytes: Option<u64>,
    /// Bytes that the guest sent over vsock; null where the VMM does not carry it.
    pub vsock_sent_bytes: Option<u64>,
}
