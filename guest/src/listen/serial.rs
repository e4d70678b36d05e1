//! The host over a virtio-serial port.

mod port;

use super::{Desk, Service, try_announce};
use crate::init::Life;
use crate::log;
use port::Port;
use pyro_protocol::ANNOUNCE_PORT;
use pyro_protocol::channel::{Acceptor, ChannelError, Side, connect, interrupt};
use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::BufReader;

/// What the host calls the port.
const NAME: &str = "pyro.agent";

/// Where the kernel lists such ports.
const PORTS: &str = "/sys/class/virtio-ports";

/// The kernel hands out no more than this at a read.
const READ_AHEAD: usize = 4096;

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
    let mut port = BufReader::with_capacity(READ_AHEAD, Port::open(node)?);
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

async fn serve_channel(port: &mut BufReader<Port>, desk: &Desk) -> Result<(), ChannelError> {
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
            if let Some(service) = Service::on(inbound.port()) {
                let (reader, writer) = inbound.accept().into_split();
                tokio::spawn(async move {
                    desk.serve(service, reader, writer).await;
                    drop(place);
                });
            }
        }
    }
}
