//! Carrying out what is ordered of a guest that lives.

use super::{End, Settled, note};
use crate::error::Result;
use crate::event_log::Happening;
use crate::published::{Mapping, Published};
use crate::supervisor::order::{
    Became, ClaimId, ClaimPorts, Kill, ListPorts, Ordered, Pause, Paused, PortPublished, Publish,
    ReadMetrics, ReadNetwork, ReadSecrets, ReadTtl, Resume, Resumed, SettlePorts, Stop, Unpublish,
};
use crate::supervisor::{Guest, ttl};
use futures::future::FutureExt;
use std::ops::ControlFlow;
use std::time::Duration;

impl Settled {
    /// Carries an order out and answers it; those that end the guest's life are
    /// answered at its end.
    pub(super) async fn obey(&mut self, ordered: Ordered, guest: &mut Guest) -> ControlFlow<End> {
        match ordered {
            Ordered::Stop(Stop { grace_ms }, by) => {
                let grace = Duration::from_millis(grace_ms.into());
                return ControlFlow::Break(End::Stopped { by, grace });
            }
            Ordered::Kill(Kill, by) => return ControlFlow::Break(End::Killed { by }),
            Ordered::ReadTtl(ReadTtl, by) => {
                self.ttl = ttl::read(&self.directory).unwrap_or(self.ttl);
                by.answer(Ok(())).await;
            }
            Ordered::ReadNetwork(ReadNetwork, by) => {
                let read = guest.network.as_ref().map(|network| network.read(&self.directory));
                by.answer(read.unwrap_or(Ok(()))).await;
            }
            Ordered::ReadSecrets(ReadSecrets, by) => {
                by.answer(guest.read_secrets(&self.secrets).await).await;
            }
            Ordered::Pause(Pause, by) => by.answer(self.pause(guest).await).await,
            Ordered::Resume(Resume, by) => by.answer(self.resume(guest).await).await,
            Ordered::CopyDisk(copy, mut by) => {
                let copied = guest.copy_disk(&mut self.told, copy, by.leaves()).await;
                by.answer(copied).await;
            }
            Ordered::ReadMetrics(ReadMetrics, by) => by.answer(guest.metrics().await).await,
            Ordered::Publish(publish, by) => by.answer(self.publish(publish).await).await,
            Ordered::Unpublish(unpublish, by) => {
                by.answer(Ok(self.unpublish(unpublish).await)).await;
            }
            Ordered::ListPorts(ListPorts, by) => by.answer(Ok(self.ports.list())).await,
            Ordered::ClaimPorts(claim, by) => match self.claim_ports(claim).await {
                Ok(id) => {
                    let leaves = by.answer_and_attend(Ok(id)).await;
                    self.claimants.push(leaves.map(move |()| id).boxed());
                }
                Err(error) => by.answer(Err(error)).await,
            },
            Ordered::SettlePorts(SettlePorts { claim, became }, by) => {
                by.answer(Ok(self.settle_ports(claim, became).await)).await;
            }
        }
        ControlFlow::Continue(())
    }

    async fn pause(&mut self, guest: &mut Guest) -> Result<Paused> {
        let already = guest.pause(&mut self.told).await?;
        if !already {
            note(&self.log, Happening::Paused);
        }
        Ok(Paused { already })
    }

    async fn resume(&mut self, guest: &mut Guest) -> Result<Resumed> {
        let already = guest.resume(&mut self.told).await?;
        if already {
            return Ok(Resumed { already, clock_is_late: None });
        }
        note(&self.log, Happening::Resumed);
        let clock_is_late = guest.set_clock().await.err().map(|error| error.chain());
        Ok(Resumed { already, clock_is_late })
    }

    async fn publish(
        &mut self,
        Publish { guest_port, host_port }: Publish,
    ) -> Result<PortPublished> {
        let (port, already) = self.ports.publish(Mapping { host_port, guest_port }).await?;
        if !already {
            note(&self.log, Happening::PortPublished(port.clone()));
        }
        Ok(PortPublished { port, already })
    }

    async fn unpublish(
        &mut self,
        Unpublish { guest_port, host_port }: Unpublish,
    ) -> Vec<Published> {
        let gone = self.ports.unpublish(guest_port, host_port).await;
        self.note_unpublished(&gone);
        gone
    }

    async fn claim_ports(&mut self, claim: ClaimPorts) -> Result<ClaimId> {
        let (id, new) = self.ports.claim(claim).await?;
        new.into_iter().for_each(|port| note(&self.log, Happening::PortPublished(port)));
        Ok(id)
    }

    /// What belongs to a service from now on.
    pub(super) async fn settle_ports(&mut self, claim: ClaimId, became: Became) -> Vec<Published> {
        let (kept, gone) = self.ports.settle(claim, became).await;
        self.note_unpublished(&gone);
        kept
    }

    fn note_unpublished(&self, gone: &[Published]) {
        gone.iter().for_each(|port| note(&self.log, Happening::PortUnpublished(port.clone())));
    }
}
