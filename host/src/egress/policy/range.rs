//! Addresses that are refused unless a rule names them: everything that is not
//! plainly a host of the public Internet.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is that is not public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Range {
    /// One of the host's own.
    Host,
    /// A service that tells a cloud's machines their secrets.
    Metadata,
    /// The host itself.
    Loopback,
    /// A neighbour's on the same link.
    LinkLocal,
    /// A private network's.
    Private,
    /// A provider's own, behind its NAT (RFC 6598).
    CarrierNat,
    /// None at all.
    Unspecified,
    /// Many hosts'.
    Multicast,
    /// Every host's.
    Broadcast,
    /// IPv6 that stands for an IPv4 address, which would hide what is reached.
    EmbeddedV4,
    /// For documents, measurements, or nobody yet.
    Reserved,
}

impl Range {
    /// As in texts and events.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Metadata => "metadata",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local",
            Self::Private => "private",
            Self::CarrierNat => "carrier-nat",
            Self::Unspecified => "unspecified",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::EmbeddedV4 => "embedded-v4",
            Self::Reserved => "reserved",
        }
    }

    /// The narrowest range that an address lies in, and its network.
    #[must_use]
    pub fn of(address: IpAddr, is_host: bool) -> Option<(Self, IpNet)> {
        if is_host {
            return Some((Self::Host, IpNet::from(address)));
        }
        match address {
            IpAddr::V4(address) => V4
                .iter()
                .filter(|(_, network)| network.contains(&address))
                .max_by_key(|(_, network)| network.prefix_len())
                .map(|(range, network)| (*range, IpNet::V4(*network))),
            IpAddr::V6(address) => V6
                .iter()
                .filter(|(_, network)| network.contains(&address))
                .max_by_key(|(_, network)| network.prefix_len())
                .map(|(range, network)| (*range, IpNet::V6(*network))),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(s: [u16; 8], prefix: u8) -> Ipv6Net {
    let address = Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]);
    Ipv6Net::new_assert(address, prefix)
}

/// The IANA registry of special addresses, and the metadata services of AWS and
/// most others, Alibaba, Azure and Oracle.
const V4: &[(Range, Ipv4Net)] = &[
    (Range::Unspecified, v4(0, 0, 0, 0, 8)),
    (Range::Private, v4(10, 0, 0, 0, 8)),
    (Range::CarrierNat, v4(100, 64, 0, 0, 10)),
    (Range::Metadata, v4(100, 100, 100, 200, 32)),
    (Range::Loopback, v4(127, 0, 0, 0, 8)),
    (Range::Metadata, v4(168, 63, 129, 16, 32)),
    (Range::LinkLocal, v4(169, 254, 0, 0, 16)),
    (Range::Metadata, v4(169, 254, 169, 254, 32)),
    // The credentials of containers, and the resolver, on AWS.
    (Range::Metadata, v4(169, 254, 170, 2, 32)),
    (Range::Metadata, v4(169, 254, 169, 253, 32)),
    (Range::Private, v4(172, 16, 0, 0, 12)),
    (Range::Reserved, v4(192, 0, 0, 0, 24)),
    (Range::Metadata, v4(192, 0, 0, 192, 32)),
    (Range::Reserved, v4(192, 0, 2, 0, 24)),
    (Range::Reserved, v4(192, 88, 99, 0, 24)),
    (Range::Private, v4(192, 168, 0, 0, 16)),
    (Range::Reserved, v4(198, 18, 0, 0, 15)),
    (Range::Reserved, v4(198, 51, 100, 0, 24)),
    (Range::Reserved, v4(203, 0, 113, 0, 24)),
    (Range::Multicast, v4(224, 0, 0, 0, 4)),
    (Range::Reserved, v4(240, 0, 0, 0, 4)),
    (Range::Broadcast, v4(255, 255, 255, 255, 32)),
];

/// The same; and what lies outside 2000::/3 is nobody's.
const V6: &[(Range, Ipv6Net)] = &[
    (Range::Reserved, v6([0, 0, 0, 0, 0, 0, 0, 0], 3)),
    (Range::EmbeddedV4, v6([0, 0, 0, 0, 0, 0, 0, 0], 96)),
    (Range::Unspecified, v6([0, 0, 0, 0, 0, 0, 0, 0], 128)),
    (Range::Loopback, v6([0, 0, 0, 0, 0, 0, 0, 1], 128)),
    (Range::EmbeddedV4, v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96)),
    (Range::EmbeddedV4, v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96)),
    (Range::EmbeddedV4, v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96)),
    (Range::EmbeddedV4, v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48)),
    (Range::EmbeddedV4, v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32)),
    (Range::Reserved, v6([0x2001, 0x2, 0, 0, 0, 0, 0, 0], 48)),
    (Range::Reserved, v6([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28)),
    (Range::Reserved, v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28)),
    (Range::Reserved, v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32)),
    (Range::EmbeddedV4, v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16)),
    (Range::Reserved, v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20)),
    (Range::Reserved, v6([0x4000, 0, 0, 0, 0, 0, 0, 0], 2)),
    (Range::Reserved, v6([0x8000, 0, 0, 0, 0, 0, 0, 0], 1)),
    (Range::Private, v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7)),
    (Range::Metadata, v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 64)),
    (Range::Metadata, v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128)),
    (Range::LinkLocal, v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10)),
    (Range::Private, v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10)),
    (Range::Multicast, v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8)),
];
