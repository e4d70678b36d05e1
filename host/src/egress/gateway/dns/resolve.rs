//! Asking the host's DNS servers, as the host's own programs do.

use super::wire::{self, ANSWER_MAX, Answer, EDNS_SIZE, Kind};
use crate::egress::policy::name::DomainName;
use crate::id::fill_random;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often each is asked.
const ROUNDS: usize = 2;

/// The most servers that are asked: as many as every resolver looks at.
pub const SERVERS_MAX: usize = 3;

/// How names are resolved.
#[derive(Debug, Clone)]
pub struct Resolver(Servers);

/// Who is asked.
#[derive(Debug, Clone)]
enum Servers {
    /// Those that the host's own programs ask at the moment.
    OfThisHost,
    /// These.
    Named(Vec<SocketAddr>),
}

/// Where the host says whom its programs ask.
const RESOLV_CONF: &str = "/etc/resolv.conf";

impl Resolver {
    /// One that asks these servers, in order.
    #[must_use]
    pub fn new(mut servers: Vec<SocketAddr>) -> Self {
        servers.truncate(SERVERS_MAX);
        Self(Servers::Named(servers))
    }

    /// One that asks whom the host's own programs ask, also when the host moves to
    /// another network meanwhile.
    #[must_use]
    pub const fn of_this_host() -> Self {
        Self(Servers::OfThisHost)
    }

    fn servers(&self) -> Vec<SocketAddr> {
        match &self.0 {
            Servers::Named(servers) => servers.clone(),
            Servers::OfThisHost => {
                named_in(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default())
            }
        }
    }

    /// What the servers say of a name; the first that says something is believed.
    pub async fn resolve(&self, name: &DomainName, kind: Kind) -> Answer {
        let servers = self.servers();
        for _ in 0..ROUNDS {
            for server in &servers {
                match timeout(PATIENCE, ask(*server, name, kind)).await {
                    Ok(Ok(answer @ (Answer::Addresses(..) | Answer::NoName))) => return answer,
                    // The next may know better.
                    Ok(Ok(Answer::Failed | Answer::Truncated) | Err(_)) | Err(_) => {}
                }
            }
        }
        Answer::Failed
    }
}

/// The servers that a resolv.conf names; the host itself if there is none, as
/// every resolver takes it.
fn named_in(content: &str) -> Vec<SocketAddr> {
    const PORT: u16 = 53;
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next())??;
        // A link's own address has a name after it, which is of no use here.
        address.parse().ok().map(|address: IpAddr| SocketAddr::new(address, PORT))
    };
    let named: Vec<_> = content.lines().filter_map(server).take(SERVERS_MAX).collect();
    match named.is_empty() {
        true => vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT)],
        false => named,
    }
}

async fn ask(server: SocketAddr, name: &DomainName, kind: Kind) -> io::Result<Answer> {
    let mut id = [0; 2];
    fill_random(&mut id);
    let id = u16::from_be_bytes(id);
    let question = wire::question(id, name, kind);
    let any = match server {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    // A port of its own, by the kernel's choice; connected, it hears nobody else.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut packet = vec![0; EDNS_SIZE.into()];
    loop {
        let length = socket.recv(&mut packet).await?;
        match wire::answer(packet.get(..length).unwrap_or_default(), id, name, kind) {
            Some(Answer::Truncated) => break,
            Some(answer) => return Ok(answer),
            // Somebody guesses, or answers late.
            None => {}
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question.as_slice()].concat()).await?;
    let length = usize::from(stream.read_u16().await?);
    if length > ANSWER_MAX {
        return Ok(Answer::Failed);
    }
    let mut packet = vec![0; length];
    stream.read_exact(&mut packet).await?;
    Ok(wire::answer(&packet, id, name, kind).unwrap_or(Answer::Failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_the_host_asks_is_whom_it_says() {
        let content = "# a comment\nsearch lan\nnameserver 192.0.2.1\n\
            nameserver fe80::1%eth0\nnameserver 2001:db8::1\nnameserver\n";
        let named: Vec<_> = named_in(content).iter().map(SocketAddr::to_string).collect();
        assert_eq!(named, ["192.0.2.1:53", "[2001:db8::1]:53"]);
        assert_eq!(named_in("")[0].to_string(), "127.0.0.1:53");
    }

    #[tokio::test]
    async fn the_second_server_is_asked_when_the_first_cannot_tell() {
        let servers = [UdpSocket::bind("127.0.0.1:0").await, UdpSocket::bind("127.0.0.1:0").await];
        let [dumb, wise] = servers.map(|server| server.expect("a port"));
        let at = |server: &UdpSocket| server.local_addr().expect("bound");
        let resolver = Resolver::new(vec![at(&dumb), at(&wise)]);
        let name = DomainName::parse("a.org").expect("a name");
        let serve = |server: UdpSocket, code: u8| async move {
            let mut packet = [0; 512];
            let (length, from) = server.recv_from(&mut packet).await.expect("a question");
            packet[2] |= 0x80;
            packet[3] |= code;
            server.send_to(&packet[..length], from).await.expect("an answer");
        };
        let resolving = resolver.resolve(&name, Kind::A);
        let (answer, (), ()) = tokio::join!(resolving, serve(dumb, 2), serve(wise, 3));
        assert_eq!(answer, Answer::NoName);
    }
}
