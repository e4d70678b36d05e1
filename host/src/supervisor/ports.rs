//! TCP ports of the guest that programs of the host can connect to.
//!
//! A listener on 127.0.0.1 for each; every connection to it becomes a tunnel to
//! the agent, who connects to the guest's own loopback. What is published ends
//! with the supervisor: on stop, at the end of a workspace's time, on delete; and
//! what is published for a service, with that service.

mod claim;

use super::way::Way;
use crate::error::{Error, ErrorKind, Result};
use crate::published::{HOST, Mapping, PORTS_MAX, Published};
use crate::vsock::calls::Underway;
use claim::Claims;
use pyro_protocol::service::ServiceName;
use pyro_protocol::tunnel::ConnectPort;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// Connections of one workspace: each has two descriptors and, while bytes pass,
/// two buffers.
const CONNECTIONS_MAX: usize = 2048;

/// How long the guest may take to connect to a server of its own.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// How long to wait for a descriptor where there is none.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// All that is published of a guest.
pub(super) struct Ports {
    way: Way,
    calling: Arc<Calling>,
    places: Arc<Semaphore>,
    /// By their ports on the host.
    published: BTreeMap<NonZeroU16, Listening>,
    claims: Claims,
}

/// A listener with its connections, for as long as this is there.
struct Listening {
    guest_port: NonZeroU16,
    service: Option<ServiceName>,
    serving: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Ports {
    pub(super) fn new(way: Way, directory: &File) -> io::Result<Self> {
        Ok(Self {
            way,
            calling: Arc::new(Calling { directory: directory.try_clone()?, now: Mutex::default() }),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            published: BTreeMap::new(),
            claims: Claims::default(),
        })
    }

    /// All that is published, by the host's ports.
    pub(super) fn list(&self) -> Vec<Published> {
        let published = self.published.iter();
        published.map(|(&host_port, listening)| listening.published_at(host_port)).collect()
    }

    /// Publishes a port, at any free one of the host's if none is asked for. Says
    /// where it is, and whether it was there already.
    pub(super) async fn publish(&mut self, mapping: Mapping) -> Result<(Published, bool)> {
        if let Some(known) = self.find(mapping, None).next() {
            return Ok((known, true));
        }
        Ok((self.open(mapping, None).await?, false))
    }

    /// Where a port is published already for a service, or for nobody.
    fn find(
        &self,
        Mapping { host_port, guest_port }: Mapping,
        service: Option<&ServiceName>,
    ) -> impl Iterator<Item = Published> {
        self.list().into_iter().filter(move |published| {
            published.guest_port == guest_port
                && published.service.as_ref() == service
                && host_port.is_none_or(|port| port == published.host_port)
        })
    }

    /// Publishes a port once more.
    async fn open(
        &mut self,
        Mapping { host_port, guest_port }: Mapping,
        service: Option<&ServiceName>,
    ) -> Result<Published> {
        if let Some((port, other)) = host_port.and_then(|port| self.published.get_key_value(&port))
        {
            return Err(occupied(&other.published_at(*port)));
        }
        if self.published.len() >= PORTS_MAX {
            let message = format!("{PORTS_MAX} ports of this workspace are published already");
            return Err(Error::new(ErrorKind::Conflict, message)
                .hint("`pyro workspace port unpublish` takes one back"));
        }
        let wanted = host_port.map_or(0, NonZeroU16::get);
        let bound = TcpListener::bind((HOST, wanted)).await;
        let listener = bound.map_err(|error| taken(wanted, error))?;
        let bound = listener.local_addr().map_err(|error| taken(wanted, error))?;
        let host_port = NonZeroU16::new(bound.port())
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a listener without a port"))?;
        let serving = serve(
            listener,
            Tunnels {
                way: self.way.clone(),
                calling: Arc::clone(&self.calling),
                places: Arc::clone(&self.places),
                guest_port,
            },
        );
        let serving = tokio::spawn(serving);
        let listening = Listening { guest_port, service: service.cloned(), serving };
        let published = listening.published_at(host_port);
        self.published.insert(host_port, listening);
        Ok(published)
    }

    /// Takes back what was published of a port, their connections too; says what.
    pub(super) async fn unpublish(
        &mut self,
        guest_port: NonZeroU16,
        host_port: Option<NonZeroU16>,
    ) -> Vec<Published> {
        let mut gone = self.list();
        gone.retain(|published| {
            published.guest_port == guest_port
                && host_port.is_none_or(|port| port == published.host_port)
        });
        self.close(&gone).await;
        gone
    }

    /// Takes all back.
    pub(super) async fn end(&mut self) {
        self.close(&self.list()).await;
    }

    /// Returns when their ports on the host are free.
    async fn close(&mut self, gone: &[Published]) {
        for published in gone {
            if let Some(listening) = self.published.remove(&published.host_port) {
                listening.close().await;
            }
        }
    }
}

impl Listening {
    async fn close(mut self) {
        self.serving.abort();
        // It was aborted: there is nothing to hear of it but that.
        drop((&mut self.serving).await);
    }

    fn published_at(&self, host_port: NonZeroU16) -> Published {
        Published { host_port, guest_port: self.guest_port, service: self.service.clone() }
    }
}

fn occupied(Published { host_port, guest_port, service }: &Published) -> Error {
    let service = service.as_ref().map(|name| format!(" for service {name}")).unwrap_or_default();
    let message = format!(
        "{HOST}:{host_port} is published already{service}, to TCP port {guest_port} of this workspace"
    );
    let hint = "name another port of the host, or none for any that is free; or take that one \
                back: `pyro workspace port unpublish`";
    Error::new(ErrorKind::Conflict, message).hint(hint)
}

fn taken(port: u16, error: io::Error) -> Error {
    let message = format!("cannot listen on {HOST}:{port}");
    if error.kind() == io::ErrorKind::AddrInUse {
        return Error::new(ErrorKind::Conflict, message)
            .because(error)
            .hint("another program has that port; name another one, or none for any that is free");
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Error::new(ErrorKind::HostRequirement, message)
            .because(error)
            .hint("low ports are root's; name a higher one, or none for any that is free");
    }
    Error::io(message, error)
}

/// That connections are calls as others, which defer the end of a workspace's time.
struct Calling {
    directory: File,
    /// One for all.
    now: Mutex<Weak<Underway>>,
}

impl Calling {
    fn begin(&self) -> io::Result<Arc<Underway>> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(underway) = now.upgrade() {
            return Ok(underway);
        }
        let underway = Arc::new(Underway::begin(&self.directory)?);
        *now = Arc::downgrade(&underway);
        Ok(underway)
    }
}

/// What a connection needs to get to the guest.
#[derive(Clone)]
struct Tunnels {
    way: Way,
    calling: Arc<Calling>,
    places: Arc<Semaphore>,
    guest_port: NonZeroU16,
}

/// Accepts connections until it is dropped, and they with it.
async fn serve(listener: TcpListener, tunnels: Tunnels) {
    let mut open = JoinSet::new();
    loop {
        // One that finds no place waits in the listener's queue.
        let Ok(place) = Arc::clone(&tunnels.places).acquire_owned().await else { return };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let tunnels = tunnels.clone();
                    open.spawn(async move {
                        tunnels.carry(socket).await;
                        drop(place);
                    });
                }
                Err(error) if is_the_clients(&error) => {}
                Err(_) => tokio::time::sleep(EXHAUSTED).await,
            },
            Some(_) = open.join_next() => {}
        }
    }
}

/// Whether an error is of one connection, which its client gave up.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    [ConnectionAborted, ConnectionReset, Interrupted].contains(&error.kind())
}

impl Tunnels {
    /// Carries one connection to its end. What the guest does not take is reset.
    async fn carry(&self, socket: TcpStream) {
        // Small pieces of a conversation are not to wait for one another.
        drop(socket.set_nodelay(true));
        let connecting = async {
            let underway = self
                .calling
                .begin()
                .map_err(|error| Error::io("the workspace's time is over", error))?;
            let mut connection = self.way.greet().await?;
            let call = ConnectPort { port: self.guest_port.get() };
            connection.call(call, CONNECT_MAX).await?;
            Ok::<_, Error>((connection, underway))
        };
        match timeout(CONNECT_MAX, connecting).await {
            // However it ended, both of its ends know.
            Ok(Ok((connection, _underway))) => drop(connection.join(socket).await),
            Ok(Err(_)) | Err(_) => drop(socket.set_zero_linger()),
        }
    }
}
