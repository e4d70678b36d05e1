//! TCP ports of a workspace's guest that programs of the host can connect to.

use super::orders::{ask, require_up};
use super::place::Place;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::published::{Mapping, Published};
use crate::supervisor::control::give;
use crate::supervisor::order::{ListPorts, PortPublished, Publish, Unpublish};
use std::num::NonZeroU16;
use std::time::Duration;

/// How long a supervisor may take over it: a few system calls.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long who only asks how a workspace is waits for its ports.
const GLANCE: Duration = Duration::from_secs(2);

/// Publishes ports of a workspace that is up, all or none. One that is published
/// already is left as it is.
///
/// # Errors
/// `Conflict` when the workspace does not run, or a port on the host is taken.
pub async fn publish(
    place: &Place,
    mappings: &[Mapping],
    context: &Context,
) -> Result<Vec<Published>> {
    let _life = place.take_life(context).await?;
    require_up(place)?;
    let (mut published, mut new) = (Vec::new(), Vec::new());
    for mapping in mappings {
        match publish_one(place, *mapping, context).await {
            Ok((port, already)) => {
                new.extend((!already).then(|| port.clone()));
                published.push(port);
            }
            Err(error) => {
                for Published { host_port, guest_port, .. } in new {
                    let host_port = Some(host_port);
                    let order = Unpublish { guest_port, host_port };
                    // Why it could not be matters more than that some of it stays.
                    drop(ask(place, order, DEADLINE, &Context::default()).await);
                }
                return Err(error);
            }
        }
    }
    Ok(published)
}

async fn publish_one(
    place: &Place,
    Mapping { host_port, guest_port }: Mapping,
    context: &Context,
) -> Result<(Published, bool)> {
    let order = Publish { guest_port, host_port };
    let PortPublished { port, already } = ask(place, order, DEADLINE, context).await?;
    Ok((port, already))
}

/// Takes published ports back, and ends their connections. Without a port on the
/// host, all that a guest's port is published at.
///
/// # Errors
/// `NotFound` when one is not published; those before it are taken back.
pub async fn unpublish(
    place: &Place,
    mappings: &[Mapping],
    context: &Context,
) -> Result<Vec<Published>> {
    let _life = place.take_life(context).await?;
    require_up(place)?;
    let mut gone = Vec::new();
    for Mapping { host_port, guest_port } in mappings.iter().copied() {
        let order = Unpublish { guest_port, host_port };
        let ports = ask(place, order, DEADLINE, context).await?;
        if ports.is_empty() {
            return Err(unknown(place, guest_port, host_port));
        }
        gone.extend(ports);
    }
    Ok(gone)
}

fn unknown(place: &Place, guest_port: NonZeroU16, host_port: Option<NonZeroU16>) -> Error {
    let id = place.id();
    let at = host_port.map(|port| format!(" at {port}")).unwrap_or_default();
    let message = format!("TCP port {guest_port} of workspace {id} is not published{at}");
    Error::new(ErrorKind::NotFound, message)
        .hint(format!("`pyro workspace port list {id}` shows what is"))
}

/// All that is published of a workspace that is up.
///
/// # Errors
/// `Conflict` when it does not run.
pub async fn list(place: &Place, context: &Context) -> Result<Vec<Published>> {
    require_up(place)?;
    ask(place, ListPorts, DEADLINE, context).await
}

/// The same, if its supervisor says so soon.
pub async fn glance(place: &Place) -> Option<Vec<Published>> {
    give(ListPorts, place.path(), GLANCE).await.ok().flatten()
}
