//! A world of two network namespaces: the story's thread, and all that it starts,
//! is in the one; the other has a neighbour that serves pages, packages through a
//! proxy, and names. A pair of TUN devices joins them, and nothing leaves the two.

use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread;

/// Public elsewhere.
pub const SITE_V4: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 14);
pub const SITE_V6: Ipv6Addr = Ipv6Addr::new(0x2606, 0x2800, 0x21f, 0, 0, 0, 0, 0xe);
const HERE_V4: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 1);
const HERE_V6: Ipv6Addr = Ipv6Addr::new(0x2606, 0x2800, 0x21f, 0, 0, 0, 0, 1);

/// Where pages are.
pub const PAGES: u16 = 80;

/// Where the proxy is.
pub const PROXY: u16 = 3128;

/// What the proxy's package holds.
pub const PACKAGE: &str = "hello\n";
const PACKAGE_SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

/// Who knows all names.
pub fn name_server() -> SocketAddr {
    SocketAddr::new(SITE_V4.into(), 53)
}

/// Moves this thread there.
pub fn move_in() {
    leave_the_network();
    let here = Interface::make(HERE_V4, HERE_V6);
    let (told, hear) = mpsc::channel();
    thread::spawn(move || {
        leave_the_network();
        let there = Interface::make(SITE_V4, SITE_V6);
        here.join(&there);
        there.join(&here);
        let names = UdpSocket::bind(name_server()).expect("a port");
        for port in [PAGES, PROXY] {
            // Of IPv4 too; an address of IPv6 that is new can be bound a moment later.
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("a port");
            thread::spawn(move || serve(&listener));
        }
        told.send(()).expect("the story waits");
        tell_names(&names);
    });
    hear.recv().expect("a neighbour that serves");
}

/// Puts this thread, and what it starts, into a network of its own.
fn leave_the_network() {
    // SAFETY: only the network namespace of this thread changes; no memory is
    // unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("root may make namespaces");
    Request::of("lo").raise();
}

/// A network interface whose packets are read and written here.
struct Interface(File);

impl Interface {
    /// Makes one in the network of this thread.
    fn make(v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        const NAME: &str = "world";
        let device = File::options().read(true).write(true).open("/dev/net/tun").expect("TUN");
        let mut request = Request::of(NAME);
        let flags = libc::IFF_TUN | libc::IFF_NO_PI;
        request.0.ifr_ifru.ifru_flags = flags as libc::c_short;
        ioctl(&device, libc::TUNSETIFF as _, &raw mut request.0);

        let socket = datagrams(libc::AF_INET);
        let mut request = Request::of(NAME);
        request.0.ifr_ifru.ifru_addr = address(v4);
        ioctl(&socket, libc::SIOCSIFADDR as _, &raw mut request.0);
        request.0.ifr_ifru.ifru_netmask = address(Ipv4Addr::new(255, 255, 255, 0));
        ioctl(&socket, libc::SIOCSIFNETMASK as _, &raw mut request.0);
        Request::of(NAME).raise();
        ioctl(&socket, libc::SIOCGIFINDEX as _, &raw mut request.0);
        let mut own = libc::in6_ifreq {
            ifr6_addr: libc::in6_addr { s6_addr: v6.octets() },
            ifr6_prefixlen: 64,
            // SAFETY: the call above has set it.
            ifr6_ifindex: unsafe { request.0.ifr_ifru.ifru_ifindex },
        };
        ioctl(&datagrams(libc::AF_INET6), libc::SIOCSIFADDR as _, &raw mut own);
        Self(device)
    }

    /// Gives another every packet that leaves by this one.
    fn join(&self, other: &Self) {
        let ends = [&self.0, &other.0].map(|end| end.try_clone().expect("a descriptor"));
        thread::spawn(move || {
            let [mut from, mut to] = ends;
            let mut packet = vec![0; 65536];
            while let Ok(length) = from.read(&mut packet) {
                // One that is not up yet takes none.
                let _ = to.write(&packet[..length]);
            }
        });
    }
}

/// A request about an interface.
struct Request(libc::ifreq);

impl Request {
    fn of(name: &str) -> Self {
        // SAFETY: ifreq is plain old data; zero is a valid value of each field.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        Self(request)
    }

    fn raise(mut self) {
        self.0.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        ioctl(&datagrams(libc::AF_INET), libc::SIOCSIFFLAGS as _, &raw mut self.0);
    }
}

fn datagrams(family: i32) -> OwnedFd {
    use rustix::net::{AddressFamily, SocketType, socket};
    let family = AddressFamily::from_raw(family as u16);
    socket(family, SocketType::DGRAM, None).expect("a socket")
}

fn address(address: Ipv4Addr) -> libc::sockaddr {
    let [a, b, c, d] = address.octets().map(u8::cast_signed);
    let sa_data = [0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0];
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data }
}

/// The argument must be what the request takes.
fn ioctl<T>(on: &impl AsRawFd, request: libc::Ioctl, argument: *mut T) {
    // SAFETY: every caller's argument is a valid structure of the type that its
    // request reads and writes.
    let done = unsafe { libc::ioctl(on.as_raw_fd(), request, argument) };
    assert!(done >= 0, "ioctl {request:#x}: {}", std::io::Error::last_os_error());
}

fn serve(site: &TcpListener) {
    for stream in site.incoming() {
        let stream = stream.expect("a connection");
        thread::spawn(move || answer(stream));
    }
}

/// Answers a request: a page, or what an archive of packages has. Whoever takes it
/// for a proxy asks for an archive that is nowhere else.
fn answer(mut stream: TcpStream) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(length) if length > 0 => request.extend_from_slice(&piece[..length]),
            Ok(_) | Err(_) => return,
        }
    }
    let request = String::from_utf8_lossy(&request);
    let what = request.split(' ').nth(1).unwrap_or_default();
    let packages = format!(
        "Package: hello\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nFilename: ./hello.deb\n\
         Size: {}\nSHA256: {PACKAGE_SHA256}\nDescription: none\n",
        PACKAGE.len()
    );
    let found = match what {
        "http://archive.test/./Packages" => Some(packages.as_str()),
        "http://archive.test/./hello.deb" => Some(PACKAGE),
        page if page.starts_with('/') => Some("hello"),
        _ => None,
    };
    let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
    let body = found.unwrap_or_default();
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

/// Tells the site's addresses for every name: of one kind for some, and a private
/// one for another.
fn tell_names(socket: &UdpSocket) {
    let mut packet = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut packet) {
        // The question ends where the record begins that says what fits.
        let question = &packet[..length - 11];
        let name = &question[13..];
        let is_v4 = question[question.len() - 3] == 1;
        let told: Option<IpAddr> = match (is_v4, name.starts_with(b"rebound")) {
            (true, true) => Some(Ipv4Addr::new(10, 0, 0, 1).into()),
            (false, true) => Some(Ipv6Addr::LOCALHOST.into()),
            (true, false) => (!name.starts_with(b"six")).then(|| SITE_V4.into()),
            (false, false) => (!name.starts_with(b"four")).then(|| SITE_V6.into()),
        };
        let mut answer = question.to_vec();
        answer[2] |= 0x80;
        (answer[7], answer[11]) = (u8::from(told.is_some()), 0);
        if let Some(told) = told {
            let (kind, octets) = match told {
                IpAddr::V4(address) => (1, address.octets().to_vec()),
                IpAddr::V6(address) => (28, address.octets().to_vec()),
            };
            answer.extend([0xc0, 0x0c, 0, kind, 0, 1, 0, 0, 0, 60, 0, octets.len() as u8]);
            answer.extend(octets);
        }
        let _ = socket.send_to(&answer, from);
    }
}
