//! A workspace's secrets, changed while it lives.

use super::place::{Place, State};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::secret::{SecretName, Secrets};
use crate::supervisor::control::give;
use crate::supervisor::order::ReadSecrets;
use std::time::Duration;

/// How long a supervisor may take to hand its guest what is secret.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(40);

/// Sets some, others stay; a guest that runs has them at once. Says whether one
/// does.
///
/// # Errors
/// `Conflict` when it is paused: its guest could not take them.
pub async fn set(place: &Place, secrets: &Secrets, context: &Context) -> Result<bool> {
    let _life = place.take_life(context).await?;
    refuse_paused(place)?;
    place.secrets().set(secrets)?;
    deliver(place).await
}

/// Removes one, from a guest that runs as well. Says whether it was there.
///
/// # Errors
/// As [`set`].
pub async fn delete(place: &Place, name: &SecretName, context: &Context) -> Result<bool> {
    let _life = place.take_life(context).await?;
    refuse_paused(place)?;
    let was_there = place.secrets().delete(name)?;
    deliver(place).await?;
    Ok(was_there)
}

fn refuse_paused(place: &Place) -> Result<()> {
    match place.state() {
        State::Paused => Err(place.is_paused()),
        State::Stopped | State::Changing | State::Running | State::Crashed | State::Damaged => {
            Ok(())
        }
    }
}

/// Has the supervisor read them and hand them to the guest, if there is one: one
/// that comes up later gets them then.
async fn deliver(place: &Place) -> Result<bool> {
    let undelivered = |error: Error| {
        let message = format!("they are kept, and the guest of {} has the old ones", place.id());
        let restart = format!("stop and start it: `pyro workspace stop {}`", place.id());
        Error::new(error.kind(), message).because(error).hint(restart)
    };
    let delivered = give(ReadSecrets, place.path(), DELIVERY_DEADLINE).await;
    Ok(delivered.map_err(undelivered)?.is_some())
}
