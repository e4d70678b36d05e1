//! The TUN device: what the guest's kernel takes for its network.

use pyro_protocol::egress::{OpenGateway, PREFIX_V4, PREFIX_V6};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The end of an interface that somebody removes is an error, and nothing to read.
const INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);

const DEVICE: &str = "/dev/net/tun";

/// What programs see it as.
const NAME: &[u8] = b"pyro0";

/// An interface that goes away when this does.
#[derive(Debug)]
pub(super) struct Tun(AsyncFd<OwnedFd>);

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

impl Tun {
    /// Makes the interface, with its addresses and routes.
    pub(super) fn open(network: &OpenGateway) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device = rustix::fs::open(DEVICE, flags, Mode::empty())
            .map_err(|errno| named(DEVICE, errno.into()))?;
        let mut request = request();
        let wanted = libc::IFF_TUN | libc::IFF_NO_PI;
        request.ifr_ifru.ifru_flags = wanted as libc::c_short;
        ioctl(&device, libc::TUNSETIFF as _, &raw mut request)
            .map_err(|error| named("making it", error))?;
        configure(network)?;
        Self::over(device)
    }

    /// What moves packets through a descriptor that keeps them apart.
    pub(super) fn over(device: OwnedFd) -> io::Result<Self> {
        // SAFETY: an OwnedFd names the same open descriptor for as long as it lives.
        Ok(Self(unsafe { AsyncFd::register_with_interest(device, INTEREST) }?))
    }

    /// Hands the kernel a packet that has come.
    pub(super) fn send(&self, packet: &[u8]) -> io::Result<()> {
        rustix::io::write(self.0.get_ref(), packet)?;
        Ok(())
    }

    /// The next packet that is to go; waits for it.
    pub(super) async fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.ready(INTEREST).await?;
            let read = ready.try_io(|device| Ok(rustix::io::read(device.get_ref(), &mut *into)?));
            if let Ok(read) = read {
                return read.and_then(whole);
            }
        }
    }

    /// The next packet, if there is one.
    pub(super) fn pending(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::read(self.0.get_ref(), into) {
            Ok(length) => whole(length).map(Some),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A packet's length: none is empty, so that is the end.
fn whole(length: usize) -> io::Result<usize> {
    match length {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => Ok(length),
    }
}

fn configure(network: &OpenGateway) -> io::Result<()> {
    let socket = |family| {
        rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .map_err(io::Error::from)
    };
    let v4 = socket(AddressFamily::INET)?;
    let step = |what: &'static str| move |error| named(what, error);

    let mut request = request();
    request.ifr_ifru.ifru_mtu = network.mtu.into();
    ioctl(&v4, libc::SIOCSIFMTU as _, &raw mut request).map_err(step("its MTU"))?;
    request.ifr_ifru.ifru_addr = address(network.guest_v4);
    ioctl(&v4, libc::SIOCSIFADDR as _, &raw mut request).map_err(step("its address"))?;
    request.ifr_ifru.ifru_netmask = address(mask(PREFIX_V4));
    ioctl(&v4, libc::SIOCSIFNETMASK as _, &raw mut request).map_err(step("its netmask"))?;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
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

/// A request about our interface.
fn request() -> libc::ifreq {
    // SAFETY: ifreq is plain old data; zero is a valid value of each field.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(NAME) {
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
fn ioctl<T>(on: &OwnedFd, request: libc::Ioctl, argument: *mut T) -> io::Result<()> {
    // SAFETY: every caller's argument is a valid structure of the type that its
    // request reads and writes.
    match unsafe { libc::ioctl(on.as_raw_fd(), request, argument) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn named(what: &str, error: io::Error) -> io::Error {
    match error.raw_os_error() {
        // Whoever asks knows what it means that there is one already.
        Some(libc::EBUSY) => error,
        _ => io::Error::new(error.kind(), format!("{what}: {error}")),
    }
}
