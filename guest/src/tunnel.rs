//! `ConnectPort`: a TCP connection to a server in the guest.

use crate::guest::Guest;
use crate::server::Connection;
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::tunnel::{ConnectPort, PortConnected, join};
use pyro_protocol::{AgentError, AgentErrorKind, Lost};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Tunnels at the same time; a place is a socket and two buffers while bytes
/// pass.
const TUNNELS_MAX: usize = 4096;

static PLACES: Semaphore = Semaphore::const_new(TUNNELS_MAX);

/// Answers `ConnectPort`, and carries what passes.
pub(crate) async fn run<R: Fetch, W: Carry>(
    guest: &Guest,
    call: ConnectPort,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let Ok(_place) = PLACES.try_acquire() else {
        let message = format!("{TUNNELS_MAX} connections to TCP ports are open already");
        let full = AgentError::new(AgentErrorKind::OutOfResources, message);
        return connection.reply::<PortConnected>(Err(full)).await;
    };
    let connected = match guest.require_activated() {
        Ok(()) => connect(call.port).await.map_err(|error| refused(call.port, &error)),
        Err(error) => Err(error),
    };
    match connected {
        Ok(socket) => {
            connection.reply(Ok(PortConnected)).await?;
            join(&mut connection.reader, &mut connection.writer, socket).await
        }
        Err(error) => connection.reply::<PortConnected>(Err(error)).await,
    }
}

/// As a client in the guest that asks for `localhost`.
async fn connect(port: u16) -> io::Result<TcpStream> {
    let loopback = |address: IpAddr| TcpStream::connect((address, port));
    let socket = match loopback(Ipv4Addr::LOCALHOST.into()).await {
        Ok(socket) => socket,
        Err(first) => loopback(Ipv6Addr::LOCALHOST.into()).await.map_err(|_| first)?,
    };
    // Small pieces of a conversation are not to wait for one another.
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn refused(port: u16, error: &io::Error) -> AgentError {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        let message = format!("nobody listens on TCP port {port} of the guest");
        return AgentError::new(AgentErrorKind::NotFound, message);
    }
    let message = format!("cannot connect to TCP port {port} of the guest: {error}");
    AgentError::new(AgentErrorKind::System, message)
}
