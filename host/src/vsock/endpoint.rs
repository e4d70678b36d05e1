//! Serves the endpoint over a multiplexed channel, as Firecracker would over
//! its vsock device.

use super::read_line;
use pyro_protocol::VsockPort;
use pyro_protocol::channel::{Acceptor, Opener};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long either side may take to say which port it wants.
const OPENING_DEADLINE: Duration = Duration::from_secs(5);

/// Connections at the same time; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 192;

/// What one direction of a connection may have underway.
const COPY_BUFFER: usize = 32 * 1024;

/// Serves until dropped. What the guest opens to `announce_port` goes to
/// `announced`; every other port of the host is refused.
pub async fn serve(
    listener: UnixListener,
    opener: Opener,
    mut acceptor: Acceptor,
    announce_port: VsockPort,
    announced: mpsc::Sender<pyro_protocol::channel::Stream>,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                let (caller, _) = accepted?;
                let opener = opener.clone();
                connections.spawn(async move {
                    // A caller that goes away, or a guest that refuses, ends
                    // its own connection and nothing else.
                    drop(carry(caller, opener).await);
                });
            }
            inbound = acceptor.accept() => {
                let Some(mut inbound) = inbound else { return Ok(()) };
                let announced = announced.clone();
                connections.spawn(async move {
                    if let Ok(Ok(port)) = timeout(OPENING_DEADLINE, inbound.port()).await
                        && port == announce_port
                        && let Ok(stream) = inbound.accept().await
                    {
                        // Full: it was announced before.
                        drop(announced.try_send(stream));
                    }
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn carry(mut caller: UnixStream, opener: Opener) -> io::Result<()> {
    let line = timeout(OPENING_DEADLINE, read_line(&mut caller)).await??;
    let port = parse_connect(&line)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a CONNECT line"))?;
    let mut guest =
        timeout(OPENING_DEADLINE, opener.open(port)).await?.map_err(io::Error::other)?;
    // The number is the host's port on a real vsock; nobody reads it.
    caller.write_all(format!("OK {}\n", port.0).as_bytes()).await?;
    copy_bidirectional_with_sizes(&mut caller, &mut guest, COPY_BUFFER, COPY_BUFFER).await?;
    Ok(())
}

fn parse_connect(line: &[u8]) -> Option<VsockPort> {
    let digits = line.strip_prefix(b"CONNECT ")?;
    std::str::from_utf8(digits).ok()?.parse().ok().map(VsockPort)
}
