//! A guest's network: its gateway runs here, as long as the guest does.

use super::way::Way;
use super::{Endpoint, ttl};
use crate::egress::NetworkPolicy;
use crate::egress::gateway::dns::resolve::Resolver;
use crate::egress::gateway::host::ThisHost;
use crate::egress::gateway::{Gateway, Told, selftest};
use crate::egress::policy::Policy;
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::{EventLog, Happening};
use crate::store::record;
use pyro_protocol::egress::OpenGateway;
use serde::Deserialize;
use std::cell::RefCell;
use std::future::pending;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a guest may take to make its network interface.
const OPEN_MAX: Duration = Duration::from_secs(30);

/// What a supervisor reads of a record.
#[derive(Deserialize)]
struct Networked {
    network_policy: NetworkPolicy,
    #[serde(default)]
    network_rules: Policy,
}

/// What the record in a workspace's directory says its network may do; `None` is
/// nothing.
///
/// # Errors
/// When it cannot be read.
fn read(directory: &Path) -> Result<Option<Policy>> {
    let Networked { network_policy, network_rules } =
        record::read_part(&directory.join(ttl::RECORD_NAME))?;
    Ok(match network_policy {
        NetworkPolicy::Off => None,
        NetworkPolicy::Egress | NetworkPolicy::EgressAndPublishedPorts => Some(network_rules),
    })
}

/// A guest's network.
pub(super) struct Network {
    gateway: Gateway,
    /// That of the directory where the workspace is now.
    log: Rc<RefCell<EventLog>>,
}

/// Gives the guest of a workspace the network that its record says, once it is
/// proved that the policy holds. With it comes what carries packets; when that
/// is lost, the guest has no network any more.
///
/// # Errors
/// When the policy does not hold, or the guest cannot have a network.
pub(super) async fn open(
    way: &Way,
    directory: &Path,
    servers: &[SocketAddr],
) -> Result<Option<(Network, Endpoint)>> {
    let Some(policy) = read(directory)? else { return Ok(None) };
    selftest::run(&policy)?;
    let opening = async {
        let mut connection = way.greet().await?;
        connection.call(OpenGateway::usual(), Duration::MAX).await?;
        Ok(connection)
    };
    let connection = timeout(OPEN_MAX, opening).await.unwrap_or_else(|_| {
        let message = format!("the guest made no network within {} s", OPEN_MAX.as_secs());
        Err(Error::new(ErrorKind::BootFailed, message))
    })?;
    let log = Rc::new(RefCell::new(EventLog::within(directory)));
    let noted = Rc::clone(&log);
    let tell = move |told| {
        // What cannot be written down was decided all the same.
        drop(noted.borrow().append(happening(told)));
    };
    let resolver = match servers {
        [] => Resolver::of_this_host(),
        servers => Resolver::new(servers.to_vec()),
    };
    let gateway = Gateway::new(policy, ThisHost::new(resolver), tell);
    let network = Network { gateway: gateway.clone(), log };
    let (reader, writer) = connection.into_frames();
    let carrying: Endpoint = Box::pin(async move {
        // The guest's other calls go on, without a network.
        drop(gateway.run(reader, writer).await);
        pending().await
    });
    Ok(Some((network, carrying)))
}

impl Network {
    /// Notes what is decided in the log of a directory from now on.
    pub(super) fn settle(&self, directory: &Path) {
        *self.log.borrow_mut() = EventLog::within(directory);
    }

    /// Decides by what the record says now.
    ///
    /// # Errors
    /// When it cannot be read, or would not hold; then all is as before.
    pub(super) fn read(&self, directory: &Path) -> Result<()> {
        if let Some(policy) = read(directory)? {
            selftest::run(&policy)?;
            self.gateway.set_policy(policy);
        }
        Ok(())
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
