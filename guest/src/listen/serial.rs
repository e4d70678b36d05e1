//! The host over a virtio-serial port.

mod port;

use super::{Desk, Service, try_announce};
use crate::init::Life;
use crate::log;
use port::Port;
use pyro_protocol::ANNOUNCE_PORT;
use pyro_protocol::channel::{Acceptor, ChannelError, Inbound, Side, connect, interrupt};
use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::BufStream;
use tokio::time::timeout;

/// What the host calls the port.
const NAME: &str = "pyro.agent";

/// Where the kernel lists such ports.
const PORTS: &str = "/sys/class/virtio-ports";

/// The kernel hands out no more than this at a read.
const READ_AHEAD: usize = 4096;

/// The kernel takes no more than this at a write; a multiplexer's header and
/// body then go in one.
const WRITE_BEHIND: usize = 32 * 1024;

/// How long the host may take to say which vsock port it wants.
const PORT_DEADLINE: Duration = Duration::from_secs(10);

/// The device node of the port, once the kernel knows its name.
pub(super) fn find_port() -> io::Result<Option<PathBuf>> {
    let ports = match fs::read_dir(PORTS) {
        Ok(ports) => ports,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for port in ports {
        let port = port?;
        // One without a name yet has no such file.
        let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        let node = Path::new("/dev").join(port.file_name());
        if name.trim_end() == NAME && node.exists() {
            return Ok(Some(node));
        }
    }
    Ok(None)
}

/// Brings the channel up, announces, accepts; and again with the next host
/// whenever the channel has failed.
pub(super) async fn serve(node: &Path, desk: &Desk, life: Life) -> io::Result<Infallible> {
    let mut port = BufStream::with_capacity(READ_AHEAD, WRITE_BEHIND, Port::open(node)?);
    match life {
        Life::First => {}
        Life::Another => interrupt(&mut port).await?,
    }
    loop {
        // The port waits for a host that is not there, so this does not spin.
        if let Err(error) = serve_channel(&mut port, desk).await {
            log::note(format_args!("the channel ended: {}", log::Chain(&error)));
        }
    }
}

async fn serve_channel(port: &mut BufStream<Port>, desk: &Desk) -> Result<(), ChannelError> {
    let (opener, acceptor, driver) = connect(port, Side::Guest).await?;
    let announced = try_announce(opener.open(ANNOUNCE_PORT));
    let served = async {
        tokio::join!(announced, accept(acceptor, desk));
    };
    tokio::select! {
        ended = driver => ended,
        () = served => Ok(()),
    }
}

async fn accept(mut acceptor: Acceptor, desk: &Desk) {
    while let Some(inbound) = acceptor.accept().await {
        if let Some(place) = desk.place() {
            let desk = desk.clone();
            tokio::spawn(async move {
                admit(inbound, &desk).await;
                drop(place);
            });
        }
    }
}

async fn admit(mut inbound: Inbound, desk: &Desk) {
    // A stream that names no port of ours in time is dropped: refused.
    if let Ok(Ok(port)) = timeout(PORT_DEADLINE, inbound.port()).await
        && let Some(service) = Service::on(port)
        && let Ok(stream) = inbound.accept().await
    {
        desk.serve(service, stream).await;
    }
}
