//! A guest's network: IP packets over a connection instead of a NIC.

use crate::channel::STREAM_UNIT;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Gives the guest a network interface for as long as this connection is open.
///
/// Without a NIC, packets travel on the connection: after the reply either side
/// sends `Data` frames, each of whole IP packets one after another, that is at
/// least one. With one they travel on its cable, and the connection is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OpenGateway {
    /// The guest's own address.
    pub guest_v4: Ipv4Addr,
    /// Another.
    pub guest_v6: Ipv6Addr,
    /// Where everything goes, and where names are asked for.
    pub gateway_v4: Ipv4Addr,
    /// The same.
    pub gateway_v6: Ipv6Addr,
    /// The longest packet, at most [`MTU_MAX`].
    pub mtu: u16,
    /// The hardware address of the NIC that the machine has.
    pub nic: Option<[u8; 6]>,
}

/// There is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GatewayOpened;

/// The longest packet there can be: no wire sets a limit, the length fields of IP
/// do. Each packet costs both sides the same however long it is, so the longest
/// are the fastest by far; but a few bytes more would take a third write to the
/// channel for each.
pub const MTU_MAX: u16 = 65_500;

const _: () = assert!(MTU_MAX as usize + crate::frame::HEADER_LEN <= 2 * STREAM_UNIT);

/// Packets that are pending travel together in frames of at most so many bytes,
/// or alone.
pub const BATCH: usize = 32 * 1024;

/// Addresses of a guest's network, the same in each: nobody else sees them.
pub const GUEST_V4: Ipv4Addr = Ipv4Addr::new(10, 112, 121, 2);
/// As [`GUEST_V4`].
pub const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd70, 0x7972, 0x6f00, 0, 0, 0, 0, 2);
/// The gateway's address in it, where its DNS answers.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 112, 121, 1);
/// As [`GATEWAY_V4`].
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd70, 0x7972, 0x6f00, 0, 0, 0, 0, 1);
/// The hardware address of a machine's NIC: locally administered.
pub const NIC: [u8; 6] = [0x02, b'p', b'y', b'r', b'o', 2];
/// And the gateway's, at the other end of the cable.
pub const GATEWAY_NIC: [u8; 6] = [0x02, b'p', b'y', b'r', b'o', 1];
/// The length of the network that the guest and its gateway share.
pub const PREFIX_V4: u8 = 30;
/// As [`PREFIX_V4`].
pub const PREFIX_V6: u8 = 126;

const _: () = assert!(MTU_MAX as usize <= crate::frame::STREAM_CHUNK);

impl OpenGateway {
    /// The network that every guest gets, over its connection.
    #[must_use]
    pub const fn usual() -> Self {
        Self {
            guest_v4: GUEST_V4,
            guest_v6: GUEST_V6,
            gateway_v4: GATEWAY_V4,
            gateway_v6: GATEWAY_V6,
            mtu: MTU_MAX,
            nic: None,
        }
    }

    /// The same, over the NIC of a machine that has one.
    #[must_use]
    pub const fn over_nic() -> Self {
        Self { nic: Some(NIC), ..Self::usual() }
    }
}

/// Why bytes are no packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes that are no IP packet")]
pub struct NoPacket(pub usize);

/// Packets of a frame, as they lie one after another. Only their lengths have
/// been looked at.
#[derive(Debug, Clone)]
pub struct Packets<'a>(&'a [u8]);

impl<'a> Packets<'a> {
    /// The packets in a frame's payload.
    #[must_use]
    pub const fn of(payload: &'a [u8]) -> Self {
        Self(payload)
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<&'a [u8], NoPacket>;

    /// After an error there is nothing more: nobody can tell where the next
    /// packet begins.
    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        if bytes.is_empty() {
            return None;
        }
        let whole = length(bytes).and_then(|length| bytes.split_at_checked(length));
        let Some((packet, rest)) = whole else { return Some(Err(NoPacket(bytes.len()))) };
        self.0 = rest;
        Some(Ok(packet))
    }
}

/// What a packet's header says of its length.
fn length(bytes: &[u8]) -> Option<usize> {
    const V4_HEADER: usize = 20;
    const V6_HEADER: usize = 40;
    let field =
        |at: usize| Some(usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])));
    let (length, least) = match bytes.first()? >> 4 {
        4 => (field(2)?, V4_HEADER),
        6 => (V6_HEADER + field(4)?, V6_HEADER),
        _ => return None,
    };
    (least..=usize::from(MTU_MAX)).contains(&length).then_some(length)
}
