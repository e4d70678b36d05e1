//! A guest's network: its gateway runs here, as long as the guest does.
//!
//! ```text
//! open ──▶ carrying ── the connection is lost ──▶ cut off ── after a while ──┐
//!             ▲                                      ▲    └─── no answer ────┤
//!             └────────────── opened again ──────────┴───────────────────────┘
//! ```
//!
//! A guest that is cut off has no way out.

use super::way::{Duplex, Way};
use super::{Endpoint, ttl};
use crate::agent::Connection;
use crate::egress::gateway::dns::resolve::Resolver;
use crate::egress::gateway::host::ThisHost;
use crate::egress::gateway::wire::Cable;
use crate::egress::gateway::{Gateway, Told, selftest};
use crate::egress::policy::Policy;
use crate::egress::{self, NetworkLimits, NetworkPolicy};
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::{EventLog, Happening};
use crate::store::record;
use pyro_protocol::egress::OpenGateway;
use pyro_protocol::{FrameReader, Lost};
use serde::Deserialize;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::time::{Instant, sleep, timeout};

/// How long a guest may take to make its network interface.
const OPEN_MAX: Duration = Duration::from_secs(30);

/// How long to wait before a network that was lost is opened again: an agent that
/// was killed is there again in less, and has let go of its interface.
const AGAIN: Duration = Duration::from_millis(100);

/// And how long at most, however often it was lost: a guest that breaks it again
/// and again is not to keep its host busy, or to fill its event log.
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// A network that held for so long was not lost again and again.
const STEADY: Duration = Duration::from_secs(60);

/// What a supervisor reads of a record.
#[derive(Deserialize)]
struct Networked {
    network_policy: NetworkPolicy,
    #[serde(default)]
    network_rules: Policy,
    #[serde(default)]
    network_limits: NetworkLimits,
}

/// What the record in a workspace's directory says of its network.
///
/// # Errors
/// When it cannot be read.
pub(super) fn read(directory: &Path) -> Result<egress::Network> {
    let Networked { network_policy, network_rules, network_limits } =
        record::read_part(&directory.join(ttl::RECORD_NAME))?;
    Ok(egress::Network { policy: network_policy, rules: network_rules, limits: network_limits })
}

/// A guest's network.
pub(super) struct Network {
    gateway: Gateway,
    notes: Rc<Notes>,
}

/// Where it is noted what became of it.
struct Notes {
    /// That of the directory where the workspace is now.
    log: RefCell<EventLog>,
    /// The guest is about to go off, and its network with it.
    over: Cell<bool>,
}

impl Notes {
    fn note(&self, happening: Happening) {
        // What cannot be written down has happened all the same.
        drop(self.log.borrow().append(happening));
    }
}

/// Gives a guest the network that it is to have, once it is proved that the policy
/// holds. With it comes what carries packets for as long as it is polled.
///
/// # Errors
/// When the policy does not hold, or the guest cannot have a network.
pub(super) async fn open(
    way: &Way,
    mut cable: Option<Cable>,
    wanted: &egress::Network,
    directory: &Path,
    servers: &[SocketAddr],
) -> Result<Option<(Network, Endpoint)>> {
    let egress::Network { policy, rules, limits } = wanted.clone();
    if policy == NetworkPolicy::Off {
        return Ok(None);
    }
    selftest::run(&rules)?;
    let connection = connect(way, cable.is_some()).await?;
    let log = RefCell::new(EventLog::within(directory));
    let notes = Rc::new(Notes { log, over: Cell::new(false) });
    let noted = Rc::clone(&notes);
    let tell = move |told| noted.note(happening(told));
    let resolver = match servers {
        [] => Resolver::of_this_host(),
        servers => Resolver::new(servers.to_vec()),
    };
    let gateway = Gateway::new(rules, limits, ThisHost::new(resolver), tell);
    let network = Network { gateway: gateway.clone(), notes: Rc::clone(&notes) };
    let way = way.clone();
    let carrying: Endpoint = Box::pin(async move {
        match carry(&way, cable.as_mut(), &gateway, &notes, connection).await {}
    });
    Ok(Some((network, carrying)))
}

async fn connect(way: &Way, over_nic: bool) -> Result<Connection<Box<dyn Duplex>>> {
    let call = if over_nic { OpenGateway::over_nic() } else { OpenGateway::usual() };
    let opening = async {
        let mut connection = way.greet().await?;
        connection.call(call, Duration::MAX).await?;
        Ok(connection)
    };
    timeout(OPEN_MAX, opening).await.unwrap_or_else(|_| {
        let message = format!("the guest made no network within {} s", OPEN_MAX.as_secs());
        Err(Error::new(ErrorKind::BootFailed, message))
    })
}

/// Carries packets, with one connection after another: the agent may die, and
/// whoever is root in the guest may take its interface away.
async fn carry(
    way: &Way,
    mut cable: Option<&mut Cable>,
    gateway: &Gateway,
    notes: &Notes,
    mut connection: Connection<Box<dyn Duplex>>,
) -> Infallible {
    let mut pause = AGAIN;
    loop {
        let opened = Instant::now();
        let (reader, writer) = connection.into_frames();
        let lost = match cable.as_deref_mut() {
            Some(cable) => {
                let (from_nic, to_nic) = cable.split();
                tokio::select! {
                    lost = gateway.run(from_nic, to_nic) => lost,
                    // The agent keeps the NIC up for as long as it is there itself.
                    lost = silence(reader) => lost,
                }
            }
            None => gateway.run(reader, writer).await,
        };
        let why = Error::new(ErrorKind::GuestLost, "its connection is lost").because(lost).chain();
        if opened.elapsed() >= STEADY {
            pause = AGAIN;
        }
        let mut noted = false;
        connection = loop {
            sleep(pause).await;
            pause = (pause * 2).min(AGAIN_MAX);
            match connect(way, cable.is_some()).await {
                Ok(connection) => break connection,
                // One that goes off loses it too.
                Err(error) if !noted && !notes.over.get() => {
                    noted = true;
                    let why = format!("{why}; {}", error.chain());
                    notes.note(Happening::NetworkLost { why });
                }
                Err(_) => {}
            }
        };
        notes.note(Happening::NetworkReopened { why });
    }
}

/// Waits for the end of a connection on which nothing is to come.
async fn silence(mut reader: FrameReader<impl AsyncRead + Unpin>) -> Lost {
    match reader.next().await {
        Ok(frame) => Lost::OutOfPlace { got: frame.kind, wanted: "nothing" },
        Err(lost) => lost,
    }
}

impl Network {
    /// Notes what is decided in the log of a directory from now on, and decides by
    /// what the record there says: it may have changed before anybody could tell.
    ///
    /// # Errors
    /// As [`Network::read`].
    pub(super) fn settle(&self, directory: &Path) -> Result<()> {
        *self.notes.log.borrow_mut() = EventLog::within(directory);
        self.read(directory)
    }

    /// Decides by what the record says now.
    ///
    /// # Errors
    /// When it cannot be read, or would not hold; then all is as before.
    pub(super) fn read(&self, directory: &Path) -> Result<()> {
        let egress::Network { policy, rules, .. } = read(directory)?;
        if policy != NetworkPolicy::Off {
            selftest::run(&rules)?;
            self.gateway.set_policy(rules);
        }
        Ok(())
    }

    /// The guest is about to go off: that its network is lost then is no news.
    pub(super) fn expect_end(&self) {
        self.notes.over.set(true);
    }
}

fn happening(told: Told) -> Happening {
    match told {
        Told::Decision(decision) => Happening::Network {
            action: decision.action.word().into(),
            destination: decision.destination,
            names: decision.names,
            allowed: decision.allowed,
            rule: decision.cause.to_string(),
        },
        Told::Omitted(count) => Happening::NetworkOmitted { count },
    }
}
