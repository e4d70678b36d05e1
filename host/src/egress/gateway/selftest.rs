//! The proof, before a guest is said to be ready, that a gateway refuses what its
//! policy refuses: the same code, asked by packets, on a host that only watches.

use super::Gateway;
use super::dns::wire::{Answer, Kind};
use super::host::Host;
use super::packet::{Payload, datagram, parse};
use crate::egress::NetworkLimits;
use crate::egress::policy::name::DomainName;
use crate::egress::policy::{Destination, Policy, Protocol};
use crate::error::{Error, ErrorKind, Result};
use futures::future::{FutureExt, LocalBoxFuture};
use pyro_protocol::egress::{GUEST_V4, GUEST_V6, Packets};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber,
};
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use tokio::net::{TcpStream, UdpSocket};

/// From where it asks.
const PORT: u16 = 40_000;

/// Where a guest must not come unless a rule names it by a network: the host, its
/// network, its cloud, and the same in disguise.
const INSIDE: &[(IpAddr, u16)] = &[
    (IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80),
    (IpAddr::V4(Ipv4Addr::LOCALHOST), 22),
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 80),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 1)), 80),
    (IpAddr::V4(Ipv4Addr::new(100, 64, 0, 1)), 443),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 22),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), 80),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)), 80),
    (IpAddr::V6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xa9fe, 0xa9fe)), 80),
];

/// Where the public is, which closed policies refuse.
const OUTSIDE: &[(IpAddr, u16)] = &[
    (IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), 25),
    (IpAddr::V6(Ipv6Addr::new(0x2600, 0, 0, 0, 0, 0, 0, 1)), 25),
];

/// A host that connects nowhere and remembers what it was asked.
#[derive(Clone, Default)]
pub(super) struct Watch(Rc<RefCell<Vec<SocketAddr>>>);

impl Host for Watch {
    fn connect(&self, to: SocketAddr) -> LocalBoxFuture<'static, io::Result<TcpStream>> {
        self.0.borrow_mut().push(to);
        async { Err(io::ErrorKind::ConnectionRefused.into()) }.boxed_local()
    }

    fn datagrams(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        self.0.borrow_mut().push(to);
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    fn is_own(&self, _: IpAddr) -> bool {
        false
    }

    fn resolve(&self, _: &DomainName, _: Kind) -> LocalBoxFuture<'static, Answer> {
        async { Answer::Failed }.boxed_local()
    }
}

/// Proves that a policy holds.
///
/// # Errors
/// When a packet got through that must not; then no guest may have the network.
pub fn run(policy: &Policy) -> Result<()> {
    for (address, port) in INSIDE.iter().chain(OUTSIDE) {
        let remote = SocketAddr::new(*address, *port);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            probe(policy, remote, protocol).map_err(|what| {
                let message =
                    format!("the network policy does not hold: {what} {protocol}:{remote}");
                Error::new(ErrorKind::Internal, message)
            })?;
        }
    }
    Ok(())
}

fn probe(policy: &Policy, remote: SocketAddr, protocol: Protocol) -> Result<(), &'static str> {
    let address = remote.ip();
    let to = Destination { address, port: remote.port(), protocol, names: &[], is_host: false };
    let allowed = policy.decide(&to).allowed();
    // Without asking what decides.
    let named = policy.rules.iter().any(|rule| rule.matcher.names(address));
    if allowed && !named && INSIDE.iter().any(|(inside, _)| *inside == address) {
        return Err("no rule names, and yet it allows,");
    }
    let watch = Watch::default();
    let limits = NetworkLimits::default();
    let gateway = Gateway::new(policy.clone(), limits, watch.clone(), |_| {});
    let packet = match protocol {
        Protocol::Tcp => syn(remote),
        Protocol::Udp => datagram(SocketAddr::new(own_address(address), PORT), remote, b"?"),
    };
    let packet = packet.ok_or("no packet can be made for")?;
    gateway.take(&packet).map_err(|_| "the gateway does not understand a packet to")?;
    let (begun, answered) = gateway.settle();
    let refused = !begun && watch.0.borrow().is_empty() && answered;
    match (allowed, refused) {
        (false, false) => Err("a guest would have reached"),
        (true, true) => Err("a guest is kept from"),
        (false, true) | (true, false) => Ok(()),
    }
}

impl Gateway {
    /// Whether a flow has been begun, and whether the guest was told that there
    /// is none.
    fn settle(&self) -> (bool, bool) {
        let mut shared = self.0.shared.borrow_mut();
        shared.stack.poll();
        let mut answered = false;
        while let Some(batch) = shared.stack.leaving() {
            answered |= Packets::of(&batch).flatten().any(refuses);
        }
        (!shared.flows.is_empty(), answered)
    }
}

/// The guest's, of the same kind as another.
fn own_address(other: IpAddr) -> IpAddr {
    match other {
        IpAddr::V4(_) => GUEST_V4.into(),
        IpAddr::V6(_) => GUEST_V6.into(),
    }
}

/// Whether a packet resets a connection, or says that something is prohibited.
fn refuses(packet: &[u8]) -> bool {
    parse(packet).is_some_and(|parsed| match parsed.payload {
        Payload::Tcp { flags, .. } => flags.resets,
        Payload::Other(_) => true,
        Payload::Udp { .. } | Payload::Echo => false,
    })
}

/// A packet by which the guest would begin a connection.
pub(super) fn syn(remote: SocketAddr) -> Option<Vec<u8>> {
    let tcp = TcpRepr {
        src_port: PORT,
        dst_port: remote.port(),
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(1),
        ack_number: None,
        window_len: 64_000,
        window_scale: Some(7),
        max_seg_size: Some(65_480),
        sack_permitted: true,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let (payload_len, hop_limit) = (tcp.buffer_len(), 64);
    let checksums = ChecksumCapabilities::default();
    let next_header = IpProtocol::Tcp;
    let (mut packet, header) = match remote.ip() {
        IpAddr::V4(dst_addr) => {
            let mut packet = vec![0; 20 + payload_len];
            Ipv4Repr { src_addr: GUEST_V4, dst_addr, next_header, payload_len, hop_limit }
                .emit(&mut Ipv4Packet::new_unchecked(&mut packet), &checksums);
            (packet, 20)
        }
        IpAddr::V6(dst_addr) => {
            let mut packet = vec![0; 40 + payload_len];
            Ipv6Repr { src_addr: GUEST_V6, dst_addr, next_header, payload_len, hop_limit }
                .emit(&mut Ipv6Packet::new_unchecked(&mut packet));
            (packet, 40)
        }
    };
    let source = own_address(remote.ip());
    let body = packet.get_mut(header..)?;
    let destination = remote.ip().into();
    tcp.emit(&mut TcpPacket::new_unchecked(body), &source.into(), &destination, &checksums);
    Some(packet)
}
