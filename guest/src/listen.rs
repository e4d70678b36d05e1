//! One listener over whatever reaches the host: a vsock device (Firecracker),
//! or the virtio-serial port `pyro.agent` with a multiplexer (QEMU).

mod raw;
mod serial;
mod vsock;

pub use vsock::Doors;

use crate::guest::{Guest, Machine};
use crate::init::Life;
use crate::netlink::Events;
use crate::server::serve_halves;
use crate::{clock, log, power, rehearsal};
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::handshake::{Announcement, MAGIC};
use pyro_protocol::{
    CALL_PORT, ECHO_PORT, FrameKind, FrameWriter, GENERATION, Lost, SINK_PORT, SOURCE_PORT,
    VsockPort,
};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Connections at the same time; the next one is closed unheard. As many as
/// the channel has streams.
const CONNECTIONS_MAX: usize = 256;

/// How long a device that leads to the host may take to appear.
const DEVICE_DEADLINE: Duration = Duration::from_secs(20);

/// How long the host may take to hear the announcement. It need not listen:
/// after a restore it may ask instead.
const ANNOUNCE_DEADLINE: Duration = Duration::from_secs(5);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Calls,
    Echo,
    Source,
    Sink,
}

impl Service {
    const ALL: [(VsockPort, Service); 4] = [
        (CALL_PORT, Service::Calls),
        (ECHO_PORT, Service::Echo),
        (SOURCE_PORT, Service::Source),
        (SINK_PORT, Service::Sink),
    ];

    fn on(port: VsockPort) -> Option<Self> {
        Self::ALL.iter().find(|(own, _)| *own == port).map(|(_, service)| *service)
    }
}

/// Takes connections for a guest, up to [`CONNECTIONS_MAX`] at a time.
#[derive(Clone)]
struct Desk {
    guest: Arc<Guest>,
    places: Arc<Semaphore>,
}

impl Desk {
    fn new(guest: Arc<Guest>) -> Self {
        Self { guest, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    /// A place for one more connection; `None` if all are taken.
    fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    /// Serves a connection to its end.
    async fn serve<R: Fetch, W: Carry>(&self, service: Service, reader: R, writer: W) {
        match service {
            Service::Calls => serve_halves(reader, writer, self.guest.clone()).await,
            // However these end, they are over.
            Service::Echo => drop(raw::echo(reader, writer).await),
            Service::Source => drop(raw::source(reader, writer).await),
            Service::Sink => drop(raw::sink(reader, writer).await),
        }
    }
}

/// Serves this machine's host until the machine is to go off, and sees to that;
/// so it returns only if something is wrong with the machine.
pub async fn serve_machine(guest: Arc<Guest>, life: Life, doors: &Doors) -> io::Error {
    rehearsal::run();
    let desk = Desk::new(guest.clone());
    let served = async {
        match find_transport().await? {
            Transport::Serial(port) => serial::serve(&port, &desk, life).await,
            Transport::Vsock => vsock::serve(&desk, doors).await,
        }
    };
    tokio::select! {
        error = served => match error {
            Ok(never) => match never {},
            Err(error) => error,
        },
        () = guest.powered_off() => match guest.machine {
            Machine::Virtual { .. } => power::reboot(),
            Machine::InProcess { .. } => io::ErrorKind::Unsupported.into(),
        },
    }
}

enum Transport {
    Serial(std::path::PathBuf),
    Vsock,
}

/// The port has a name only some time after the kernel found its device, so
/// this waits for the kernel's events.
async fn find_transport() -> io::Result<Transport> {
    let mut events = Events::of_devices()?;
    let search = async {
        loop {
            if let Some(port) = serial::find_port()? {
                return Ok(Transport::Serial(port));
            }
            if vsock::has_device() {
                return Ok(Transport::Vsock);
            }
            events.next().await?;
        }
    };
    timeout(DEVICE_DEADLINE, search).await?
}

/// Tells the host that we listen.
async fn announce<W: AsyncWrite + Unpin>(stream: W) -> Result<(), Lost> {
    let announcement =
        Announcement { magic: MAGIC, generation: GENERATION, uptime_us: clock::uptime_us() };
    let mut writer = FrameWriter::new(stream);
    writer.send(FrameKind::Announcement, &announcement).await?;
    writer.shutdown().await
}

/// Tells the host, if it wants to hear, and goes on if it does not.
async fn try_announce<W, E>(connecting: impl Future<Output = Result<W, E>>)
where
    W: AsyncWrite + Unpin,
    E: std::error::Error + 'static,
{
    let told = async {
        match connecting.await {
            Ok(stream) => announce(stream).await.map_err(|lost| log::Chain(&lost).to_string()),
            Err(error) => Err(log::Chain(&error).to_string()),
        }
    };
    match timeout(ANNOUNCE_DEADLINE, told).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::note(format_args!("nobody hears the announcement: {error}")),
        Err(_) => log::note(format_args!("nobody hears the announcement in time")),
    }
}
