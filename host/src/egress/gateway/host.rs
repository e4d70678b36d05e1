//! What the gateway does on the host: ordinary sockets of the user's.

use super::dns::resolve::Resolver;
use super::dns::wire::{Answer, Kind};
use crate::egress::policy::name::DomainName;
use futures::future::{FutureExt, LocalBoxFuture};
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

    /// The kernel is asked, who knows of every change: it talks to an address of
    /// its own from that very address. Nothing is sent.
    fn is_own(&self, address: IpAddr) -> bool {
        const DISCARD: u16 = 9;
        connected(SocketAddr::new(address, DISCARD))
            .and_then(|socket| socket.local_addr())
            .is_ok_and(|from| from.ip() == address)
    }

    fn resolve(&self, name: &DomainName, kind: Kind) -> LocalBoxFuture<'static, Answer> {
        let (resolver, name) = (self.resolver.clone(), name.clone());
        async move { resolver.resolve(&name, kind).await }.boxed_local()
    }
}

fn connected(to: SocketAddr) -> io::Result<StdUdpSocket> {
    let any = match to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = StdUdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket)
}
