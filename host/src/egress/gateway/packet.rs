//! Headers of the guest's packets, as far as the gateway decides by them, and
//! the few packets it makes itself. Reading is total: the guest sends anything.

use crate::egress::policy::Protocol;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr,
    IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, UdpPacket, UdpRepr,
};
use std::net::{IpAddr, SocketAddr};

/// Linux's own.
const HOP_LIMIT: u8 = 64;

/// How much of a packet an ICMP error quotes: what every stack can match it by.
const QUOTED: usize = 64;

/// A packet whose headers make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// From whom.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// What it carries.
    pub payload: Payload<'a>,
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// A piece of a TCP connection.
    Tcp {
        /// The sender's port.
        from: u16,
        /// The other port.
        to: u16,
        /// What it does beside carrying bytes.
        flags: Flags,
    },
    /// A datagram.
    Udp {
        /// The sender's port.
        from: u16,
        /// The other port.
        to: u16,
        /// What is said.
        data: &'a [u8],
    },
    /// A question whether anybody is there.
    Echo,
    /// What the gateway does not carry.
    Other(u8),
}

/// The flags of TCP that matter before there is a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// It begins a connection.
    pub opens: bool,
    /// It ends one at once.
    pub resets: bool,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP_V4: u8 = 1;
const ICMP_V6: u8 = 58;

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Reads a packet's headers; `None` for what is malformed, a fragment, or has
/// options that hide what follows.
#[must_use]
pub fn parse(packet: &[u8]) -> Option<Packet<'_>> {
    let (source, destination, protocol, body) = match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet.first()? & 0xf) * 4;
            // More fragments, or not the first.
            let fragment = be16(packet, 6)? & 0x3fff != 0;
            if header < 20 || usize::from(be16(packet, 2)?) != packet.len() || fragment {
                return None;
            }
            let address = |at: usize| {
                let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddr::from(octets))
            };
            (address(12)?, address(16)?, *packet.get(9)?, packet.get(header..)?)
        }
        6 => {
            if usize::from(be16(packet, 4)?) + 40 != packet.len() {
                return None;
            }
            let address = |at: usize| {
                let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::from(octets))
            };
            (address(8)?, address(24)?, *packet.get(6)?, packet.get(40..)?)
        }
        _ => return None,
    };
    let payload = match protocol {
        TCP => {
            let flags = *body.get(13)?;
            let (syn, reset, ack) = (flags & 2 != 0, flags & 4 != 0, flags & 16 != 0);
            let flags = Flags { opens: syn && !reset && !ack, resets: reset };
            Payload::Tcp { from: be16(body, 0)?, to: be16(body, 2)?, flags }
        }
        UDP => {
            let length = usize::from(be16(body, 4)?);
            Payload::Udp { from: be16(body, 0)?, to: be16(body, 2)?, data: body.get(8..length)? }
        }
        ICMP_V4 if source.is_ipv4() && body.first() == Some(&8) => Payload::Echo,
        ICMP_V6 if source.is_ipv6() && body.first() == Some(&128) => Payload::Echo,
        other => Payload::Other(other),
    };
    Some(Packet { source, destination, payload })
}

/// A datagram for the guest.
#[must_use]
pub fn datagram(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Option<Vec<u8>> {
    let udp = UdpRepr { src_port: from.port(), dst_port: to.port() };
    let length = udp.header_len() + data.len();
    let checksums = ChecksumCapabilities::default();
    let fill = |body: &mut [u8]| {
        let (source, destination) = (from.ip().into(), to.ip().into());
        udp.emit(
            &mut UdpPacket::new_unchecked(body),
            &source,
            &destination,
            data.len(),
            |to| to.copy_from_slice(data),
            &checksums,
        );
    };
    emit(from.ip(), to.ip(), IpProtocol::Udp, length, fill)
}

/// Tells the guest that a datagram of its was not let through.
#[must_use]
pub fn prohibited(packet: &[u8], parsed: &Packet<'_>) -> Option<Vec<u8>> {
    let checksums = ChecksumCapabilities::default();
    let (from, to) = (parsed.destination, parsed.source);
    match (from, to) {
        (IpAddr::V4(dst_addr), IpAddr::V4(src_addr)) => {
            let data = packet.get(20..)?;
            let header = Ipv4Repr {
                src_addr,
                dst_addr,
                next_header: IpProtocol::Udp,
                payload_len: data.len(),
                hop_limit: HOP_LIMIT,
            };
            let data = data.get(..QUOTED).unwrap_or(data);
            // "Communication administratively prohibited" (RFC 1812).
            let reason = Icmpv4DstUnreachable::from(13);
            let icmp = Icmpv4Repr::DstUnreachable { reason, header, data };
            emit(from, to, IpProtocol::Icmp, icmp.buffer_len(), |body| {
                icmp.emit(&mut Icmpv4Packet::new_unchecked(body), &checksums);
            })
        }
        (IpAddr::V6(dst_addr), IpAddr::V6(src_addr)) => {
            let data = packet.get(40..)?;
            let header = Ipv6Repr {
                src_addr,
                dst_addr,
                next_header: IpProtocol::Udp,
                payload_len: data.len(),
                hop_limit: HOP_LIMIT,
            };
            let data = data.get(..QUOTED).unwrap_or(data);
            let reason = Icmpv6DstUnreachable::AdminProhibit;
            let icmp = Icmpv6Repr::DstUnreachable { reason, header, data };
            emit(from, to, IpProtocol::Icmpv6, icmp.buffer_len(), |body| {
                let packet = &mut Icmpv6Packet::new_unchecked(body);
                icmp.emit(&dst_addr, &src_addr, packet, &checksums);
            })
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// A packet with so many bytes of payload; `None` if it would be too long.
fn emit(
    from: IpAddr,
    to: IpAddr,
    next_header: IpProtocol,
    payload_len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Option<Vec<u8>> {
    const V4: usize = 20;
    const V6: usize = 40;
    let hop_limit = HOP_LIMIT;
    let header = if from.is_ipv4() { V4 } else { V6 };
    if header + payload_len > pyro_protocol::egress::MTU_MAX.into() {
        return None;
    }
    let mut packet = vec![0; header + payload_len];
    match (from, to) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit }.emit(
                &mut Ipv4Packet::new_unchecked(&mut packet),
                &ChecksumCapabilities::default(),
            );
        }
        (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
            Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit }
                .emit(&mut Ipv6Packet::new_unchecked(&mut packet));
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    }
    fill(packet.get_mut(header..)?);
    Some(packet)
}

/// One end of the guest's and the other end, of one protocol: what a flow is
/// known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The guest's end.
    pub guest: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
}
