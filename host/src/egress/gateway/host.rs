//! What the gateway does on the host: ordinary sockets of the user's.

use super::dns::resolve::Resolver;
use super::dns::wire::{Answer, Kind};
use crate::egress::policy::name::DomainName;
use futures::future::{FutureExt, LocalBoxFuture};
use rustix::io::Errno;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket};
use tokio::net::{TcpStream, UdpSocket};

/// What a gateway asks of its host. It has decided before it asks.
pub trait Host {
    /// Makes a connection.
    fn connect(&self, to: SocketAddr) -> LocalBoxFuture<'static, io::Result<TcpStream>>;

    /// A socket that talks to one address only.
    ///
    /// # Errors
    /// When the host has no way there.
    fn datagrams(&self, to: SocketAddr) -> io::Result<UdpSocket>;

    /// Whether an address is one of the host's own.
    fn is_own(&self, address: IpAddr) -> bool;

    /// What a name's addresses are.
    fn resolve(&self, name: &DomainName, kind: Kind) -> LocalBoxFuture<'static, Answer>;
}

/// The host that this process runs on.
#[derive(Debug, Clone)]
pub struct ThisHost {
    resolver: Resolver,
}

impl ThisHost {
    /// With servers that resolve names.
    #[must_use]
    pub fn new(resolver: Resolver) -> Self {
        Self { resolver }
    }
}

impl Host for ThisHost {
    fn connect(&self, to: SocketAddr) -> LocalBoxFuture<'static, io::Result<TcpStream>> {
        async move {
            let stream = TcpStream::connect(to).await?;
            // Whether to wait for more is the guest's to decide, and it has.
            stream.set_nodelay(true)?;
            Ok(stream)
        }
        .boxed_local()
    }

    fn datagrams(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        let socket = connected(to)?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    }

    fn is_own(&self, address: IpAddr) -> bool {
        const DISCARD: u16 = 9;
        let asked = connected(SocketAddr::new(address, DISCARD));
        may_be_own(address, asked.and_then(|socket| socket.local_addr()))
    }

    fn resolve(&self, name: &DomainName, kind: Kind) -> LocalBoxFuture<'static, Answer> {
        let (resolver, name) = (self.resolver.clone(), name.clone());
        async move { resolver.resolve(&name, kind).await }.boxed_local()
    }
}

/// The kernel is asked, who knows of every change: it talks to an address of its
/// own from that very address. Nothing is sent. A kernel that cannot tell, for it
/// has no socket left, has not said no.
fn may_be_own(address: IpAddr, from: io::Result<SocketAddr>) -> bool {
    match from {
        Ok(from) => from.ip() == address,
        Err(error) => match Errno::from_io_error(&error) {
            Some(errno) => NO_SOCKET.contains(&errno),
            None => true,
        },
    }
}

/// That there is no descriptor, memory or port for a socket. All else is said of
/// addresses to which there is no way, and so of no address of the host's own.
const NO_SOCKET: [Errno; 6] =
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRINUSE, Errno::AGAIN];

fn connected(to: SocketAddr) -> io::Result<StdUdpSocket> {
    let any = match to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = StdUdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s7_whether_an_address_is_the_hosts_is_not_denied_for_want_of_a_socket() {
        let host = ThisHost::new(Resolver::of_this_host());
        let own = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert!(host.is_own(own) && !host.is_own(IpAddr::from([192, 0, 2, 1])));
        let answered = |errno: Errno| may_be_own(own, Err(errno.into()));
        assert!(NO_SOCKET.into_iter().all(answered));
        for nowhere in [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::AFNOSUPPORT, Errno::ACCESS] {
            assert!(!answered(nowhere));
        }
    }
}
