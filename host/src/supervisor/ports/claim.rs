//! Who the ports of services belong to while services start and end.
//!
//! ```text
//! claim ──▶ published for it ──▶ its service starts ──ready──▶ stays
//!                                  │ fails, ends, its starter leaves ──▶ closed
//!                                  └ is refused ──▶ as before the claim
//! ```
//!
//! Services are the guest's, and it is not asked: whoever starts or ends one
//! claims its ports before and says afterwards what became of it. Where several
//! do so at the same time, the claim that was made last counts.

use super::Ports;
use crate::error::{Error, ErrorKind, Result};
use crate::published::{Mapping, PORTS_MAX, Published};
use crate::supervisor::order::{Became, ClaimId, ClaimPorts, Fate};
use pyro_protocol::service::{SERVICES_MAX, ServiceName};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

/// Claims at the same time: each has a descriptor.
const CLAIMS_MAX: usize = 2 * SERVICES_MAX;

/// Services whose ports are remembered: more than there can be, for those whose
/// starters left before anything came of it.
const REMEMBERED_MAX: usize = 2 * PORTS_MAX;

#[derive(Default)]
pub(super) struct Claims {
    last: u64,
    open: BTreeMap<ClaimId, Claim>,
    services: BTreeMap<ServiceName, Belongings>,
}

/// A claim that nobody has settled.
struct Claim {
    service: ServiceName,
    undo: Undo,
}

/// What it takes to undo a claim.
enum Undo {
    Nothing,
    /// The service has this again, or nothing.
    Restore(Option<Belongings>),
}

/// What belongs to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Belongings {
    /// Who said so.
    by: ClaimId,
    /// What it was started with.
    wanted: Vec<Mapping>,
    /// The host's ports that it has now.
    ports: BTreeSet<NonZeroU16>,
}

impl Ports {
    /// Publishes what a service needs that is about to start, all or nothing. Gives
    /// what was not published before.
    pub(in crate::supervisor) async fn claim(
        &mut self,
        ClaimPorts { service, fate }: ClaimPorts,
    ) -> Result<(ClaimId, Vec<Published>)> {
        if self.claims.open.len() >= CLAIMS_MAX {
            let message = format!("{CLAIMS_MAX} services are being started or stopped already");
            return Err(Error::new(ErrorKind::Conflict, message).hint("try again in a moment"));
        }
        let by = ClaimId(self.claims.last + 1);
        let had = self.claims.services.get(&service);
        let wanted = match fate {
            Fate::Start(wanted) => Some(wanted),
            Fate::Restart => Some(had.map(|had| had.wanted.clone()).unwrap_or_default()),
            Fate::End => None,
        };
        let (undo, new) = match wanted {
            None => (Undo::Nothing, Vec::new()),
            Some(wanted) => {
                let (ports, new) = self.publish_all(&wanted, &service).await?;
                let before = self.claims.put(&service, Belongings { by, wanted, ports });
                (Undo::Restore(before), new)
            }
        };
        self.claims.last = by.0;
        self.claims.open.insert(by, Claim { service, undo });
        Ok((by, new))
    }

    async fn publish_all(
        &mut self,
        wanted: &[Mapping],
        service: &ServiceName,
    ) -> Result<(BTreeSet<NonZeroU16>, Vec<Published>)> {
        let (mut ports, mut new) = (BTreeSet::new(), Vec::<Published>::new());
        // Who wants any port does not get one that is named.
        let (named, any): (Vec<Mapping>, Vec<Mapping>) =
            wanted.iter().partition(|mapping| mapping.host_port.is_some());
        for mapping in named.into_iter().chain(any) {
            let is_its_own = |known: &Published| {
                mapping.host_port.is_some() || !ports.contains(&known.host_port)
            };
            if let Some(known) = self.find(mapping, Some(service)).find(is_its_own) {
                ports.insert(known.host_port);
                continue;
            }
            match self.open(mapping, Some(service)).await {
                Ok(published) => {
                    ports.insert(published.host_port);
                    new.push(published);
                }
                Err(error) => {
                    self.close(&new).await;
                    return Err(error);
                }
            }
        }
        Ok((ports, new))
    }

    /// Leaves a service what it has now. Gives that, and what it has no more.
    pub(in crate::supervisor) async fn settle(
        &mut self,
        claim: ClaimId,
        became: Became,
    ) -> (Vec<Published>, Vec<Published>) {
        let Some(Claim { service, undo }) = self.claims.open.remove(&claim) else {
            return (Vec::new(), Vec::new());
        };
        let mut kept = self.list();
        kept.retain(|published| published.service.as_ref() == Some(&service));
        let said = self.claims.services.get(&service).map(|belongings| belongings.by);
        if said.is_some_and(|by| by > claim) {
            return (kept, Vec::new());
        }
        let has = self.claims.change(&service, became, undo);
        let (kept, gone): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|published| has.contains(&published.host_port));
        self.close(&gone).await;
        (kept, gone)
    }
}

impl Claims {
    /// Says what belongs to a service from now on; gives what did.
    fn put(&mut self, service: &ServiceName, belongings: Belongings) -> Option<Belongings> {
        if self.services.len() >= REMEMBERED_MAX {
            self.services.retain(|_, belongings| !belongings.ports.is_empty());
        }
        self.services.insert(service.clone(), belongings)
    }

    /// Says what became of a service; gives the host's ports that it has now.
    fn change(
        &mut self,
        service: &ServiceName,
        became: Became,
        undo: Undo,
    ) -> BTreeSet<NonZeroU16> {
        let belongings = match (became, undo) {
            (Became::Gone, _) | (Became::Unchanged, Undo::Restore(None)) => None,
            (Became::Unchanged, Undo::Restore(Some(before))) => Some(before),
            (Became::Ready, _) | (Became::Unchanged, Undo::Nothing) => {
                self.services.remove(service)
            }
            (Became::Over, _) => self
                .services
                .remove(service)
                .map(|belongings| Belongings { ports: BTreeSet::new(), ..belongings }),
        };
        self.services.remove(service);
        // Without anything to remember it is as one that nobody knows.
        let Some(belongings) = belongings.filter(|its| !its.wanted.is_empty()) else {
            return BTreeSet::new();
        };
        let ports = belongings.ports.clone();
        self.services.insert(service.clone(), belongings);
        ports
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::way::Way;
    use std::fs::File;
    use std::os::unix::net::UnixListener;

    /// The ports of a guest that nobody connects to.
    fn ports() -> Ports {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(home.path().join("vmm")).expect("ours");
        let _endpoint = UnixListener::bind(home.path().join("vmm/vsock.sock")).expect("ours");
        let directory = File::open(home.path()).expect("ours");
        Ports::new(Way::endpoint(&directory).expect("it is there"), &directory).expect("one more")
    }

    async fn claim(ports: &mut Ports, name: &str, fate: Fate) -> Result<ClaimId> {
        let service = name.parse().expect("a name");
        ports.claim(ClaimPorts { service, fate }).await.map(|(id, _)| id)
    }

    fn start(guest_port: u16) -> Fate {
        let guest_port = NonZeroU16::new(guest_port).expect("not zero");
        Fate::Start(vec![Mapping { host_port: None, guest_port }])
    }

    fn guest_ports(published: &[Published]) -> Vec<u16> {
        published.iter().map(|published| published.guest_port.get()).collect()
    }

    #[tokio::test]
    async fn the_claim_that_was_made_last_counts() {
        let mut ports = ports();
        let starter = claim(&mut ports, "web", start(80)).await.expect("it is free");
        let restarter = claim(&mut ports, "web", Fate::Restart).await.expect("it is its own");
        let other = claim(&mut ports, "web", start(81)).await.expect("it is free");
        // Whoever started it first has left, and another start was refused.
        let (_, gone) = ports.settle(starter, Became::Over).await;
        assert_eq!(gone, []);
        let (kept, gone) = ports.settle(other, Became::Unchanged).await;
        assert_eq!((guest_ports(&kept), guest_ports(&gone)), (vec![80], vec![81]));
        let (kept, gone) = ports.settle(restarter, Became::Ready).await;
        assert_eq!((guest_ports(&kept), gone), (vec![80], vec![]));
        // It is stopped while somebody starts it again.
        let ender = claim(&mut ports, "web", Fate::End).await.expect("there is room");
        let restarter = claim(&mut ports, "web", Fate::Restart).await.expect("it is its own");
        assert_eq!(ports.settle(ender, Became::Over).await.1, []);
        assert_eq!(guest_ports(&ports.settle(restarter, Became::Ready).await.0), [80]);
        // Nobody settles twice.
        assert_eq!(ports.settle(restarter, Became::Over).await, (vec![], vec![]));
        assert_eq!(guest_ports(&ports.list()), [80]);
    }

    #[tokio::test]
    async fn what_is_remembered_and_claimed_is_bounded() {
        let mut ports = ports();
        for number in 0..=REMEMBERED_MAX {
            let name = format!("s{number}");
            let starter = claim(&mut ports, &name, start(80)).await.expect("it is free");
            assert_eq!(ports.settle(starter, Became::Over).await.1.len(), 1);
        }
        assert!(ports.claims.services.len() <= REMEMBERED_MAX);
        for _ in 0..CLAIMS_MAX {
            claim(&mut ports, "web", Fate::End).await.expect("there is room");
        }
        let error = claim(&mut ports, "web", Fate::End).await.expect_err("they are too many");
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
}
