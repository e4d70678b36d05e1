//! Ports that are published for a service: before it starts, until it ends.

use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::published::{PORTS_MAX, Published};
use crate::supervisor::control::Presence;
use crate::supervisor::order::{Became, ClaimId, ClaimPorts, Fate, SettlePorts};
use crate::workspace::live::Live;
use crate::workspace::orders::{ask, ask_and_stay};
use crate::workspace::place::Place;
use pyro_protocol::service::{Service, ServiceName, ServiceState};
use std::time::Duration;

/// How long a supervisor may take over it: a few system calls.
const DEADLINE: Duration = Duration::from_secs(10);

/// A service, and where the host reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The service.
    pub service: Service,
    /// What is published for it.
    pub ports: Vec<Published>,
}

/// What makes one of all that is published.
pub(super) fn served(service: Service, published: &[Published]) -> Served {
    let its_own = |port: &&Published| port.service.as_ref() == Some(&service.name);
    let ports = published.iter().filter(its_own).cloned().collect();
    Served { service, ports }
}

/// That somebody is about to start a service or to end it. The supervisor sees to
/// its ports also when this is just dropped, or its process killed.
pub(super) struct Claim<'a> {
    place: &'a Place,
    id: ClaimId,
    _presence: Presence,
}

impl<'a> Claim<'a> {
    /// Publishes what a service needs that is about to start, all or nothing.
    ///
    /// # Errors
    /// `Conflict` when a port of the host is taken: then it must not start.
    pub(super) async fn make(
        live: &'a Live,
        service: &ServiceName,
        fate: Fate,
        context: &Context,
    ) -> Result<Self> {
        if let Fate::Start(ports) = &fate
            && ports.len() > PORTS_MAX
        {
            let message = format!("a workspace can publish {PORTS_MAX} ports, not {}", ports.len());
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let place = live.place();
        let order = ClaimPorts { service: service.clone(), fate };
        let (id, presence) = ask_and_stay(place, order, DEADLINE, context).await?;
        Ok(Self { place, id, _presence: presence })
    }

    /// Leaves the service what it has, after it was asked to start; `refused` tells
    /// the errors after which it is as it was before.
    pub(super) async fn started(
        self,
        asked: Result<Service>,
        refused: impl Fn(ErrorKind) -> bool,
    ) -> Result<Served> {
        let became = match &asked {
            Ok(service) => match service.state {
                ServiceState::Starting { .. }
                | ServiceState::Running { .. }
                | ServiceState::Backoff { .. }
                // Whatever has become of it since, it was ready.
                | ServiceState::Exited { .. } => Became::Ready,
                ServiceState::Stopped { .. } | ServiceState::Failed { .. } => Became::Over,
            },
            Err(error) if refused(error.kind()) => Became::Unchanged,
            Err(_) => Became::Over,
        };
        self.settle(asked, became).await
    }

    /// The same after it was asked to end.
    pub(super) async fn ended(self, asked: Result<Service>, became: Became) -> Result<Served> {
        let became = match asked.as_ref().map_err(Error::kind) {
            Ok(_) => became,
            // Nobody takes it back.
            Err(ErrorKind::Cancelled) => Became::Over,
            Err(_) => Became::Unchanged,
        };
        self.settle(asked, became).await
    }

    async fn settle(self, asked: Result<Service>, became: Became) -> Result<Served> {
        let order = SettlePorts { claim: self.id, became };
        // Also for one who wants no answer any more.
        let settled = ask(self.place, order, DEADLINE, &Context::default()).await;
        // What went wrong first matters more.
        let service = asked?;
        Ok(Served { service, ports: settled? })
    }
}
