//! The guest's network interface: its name, addresses, and routes.

use pyro_protocol::egress::{OpenGateway, PREFIX_V4, PREFIX_V6};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

/// What programs see it as.
pub(super) const NAME: &[u8] = b"pyro0";

// <linux/ipv6_route.h>, whose fields the libc crate hides.
#[repr(C)]
struct RouteV6 {
    destination: [u8; 16],
    source: [u8; 16],
    gateway: [u8; 16],
    kind: u32,
    destination_length: u16,
    source_length: u16,
    metric: u32,
    info: libc::c_ulong,
    flags: u32,
    interface: libc::c_int,
}

/// Raises the interface of our name.
pub(super) fn configure(network: &OpenGateway) -> io::Result<()> {
    let v4 = socket(AddressFamily::INET)?;
    let step = |what: &'static str| move |error| named(what, error);

    let mut request = request(NAME);
    request.ifr_ifru.ifru_mtu = network.mtu.into();
    ioctl(&v4, libc::SIOCSIFMTU as _, &raw mut request).map_err(step("its MTU"))?;
    request.ifr_ifru.ifru_addr = address(network.guest_v4);
    ioctl(&v4, libc::SIOCSIFADDR as _, &raw mut request).map_err(step("its address"))?;
    request.ifr_ifru.ifru_netmask = address(mask(PREFIX_V4));
    ioctl(&v4, libc::SIOCSIFNETMASK as _, &raw mut request).map_err(step("its netmask"))?;
    // There is one neighbour, and no need to ask where it is.
    let flags = libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_NOARP;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    ioctl(&v4, libc::SIOCSIFFLAGS as _, &raw mut request).map_err(step("raising it"))?;
    // SAFETY: rtentry is plain old data; zero is a valid value of each field.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = address(network.gateway_v4);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    ioctl(&v4, libc::SIOCADDRT as _, &raw mut route).map_err(step("its route"))?;

    // A kernel may be without IPv6; then the guest is.
    let Ok(v6) = socket(AddressFamily::INET6) else { return Ok(()) };
    ioctl(&v4, libc::SIOCGIFINDEX as _, &raw mut request).map_err(step("its index"))?;
    // SAFETY: the call above has set it.
    let interface = unsafe { request.ifr_ifru.ifru_ifindex };
    let mut own = libc::in6_ifreq {
        ifr6_addr: libc::in6_addr { s6_addr: network.guest_v6.octets() },
        ifr6_prefixlen: PREFIX_V6.into(),
        ifr6_ifindex: interface,
    };
    ioctl(&v6, libc::SIOCSIFADDR as _, &raw mut own).map_err(step("its IPv6 address"))?;
    let mut route = RouteV6 {
        destination: Ipv6Addr::UNSPECIFIED.octets(),
        source: Ipv6Addr::UNSPECIFIED.octets(),
        gateway: network.gateway_v6.octets(),
        kind: 0,
        destination_length: 0,
        source_length: 0,
        metric: 1,
        info: 0,
        flags: u32::from(libc::RTF_UP | libc::RTF_GATEWAY),
        interface,
    };
    ioctl(&v6, libc::SIOCADDRT as _, &raw mut route).map_err(step("its IPv6 route"))
}

pub(super) fn socket(family: AddressFamily) -> io::Result<OwnedFd> {
    rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(io::Error::from)
}

/// A request about an interface.
pub(super) fn request(name: &[u8]) -> libc::ifreq {
    // SAFETY: ifreq is plain old data; zero is a valid value of each field.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed();
    }
    request
}

fn mask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0))
}

fn address(address: Ipv4Addr) -> libc::sockaddr {
    let [a, b, c, d] = address.octets().map(u8::cast_signed);
    // Port, address, and eight bytes of nothing, as sockaddr_in has them.
    let sa_data = [0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0];
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data }
}

/// The argument must be what the request takes.
pub(super) fn ioctl<T>(on: &OwnedFd, request: libc::Ioctl, argument: *mut T) -> io::Result<()> {
    // SAFETY: every caller's argument is a valid structure of the type that its
    // request reads and writes.
    match unsafe { libc::ioctl(on.as_raw_fd(), request, argument) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

pub(super) fn named(what: &str, error: io::Error) -> io::Error {
    match error.raw_os_error() {
        // Whoever asks knows what it means that there is one already.
        Some(libc::EBUSY) => error,
        _ => io::Error::new(error.kind(), format!("{what}: {error}")),
    }
}
