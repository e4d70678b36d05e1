//! Orders to the supervisor of a workspace that is up.

use super::place::{Place, State};
use super::power::by_force;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::supervisor::control::{Presence, give_and_stay};
use crate::supervisor::order::Order;
use std::time::Duration;

/// Refuses what only a running or paused workspace can do.
pub(super) fn require_up(place: &Place) -> Result<()> {
    match place.state() {
        State::Running | State::Paused => Ok(()),
        State::Stopped | State::Changing | State::Crashed => Err(place.is_stopped()),
        // Its record says why.
        State::Damaged => place.record().and_then(|_| Err(place.is_stopped())),
    }
}

/// What comes of an order. Who leaves meanwhile leaves it to be carried out.
pub(super) async fn ask<O: Order>(
    place: &Place,
    order: O,
    deadline: Duration,
    context: &Context,
) -> Result<O::Outcome> {
    let (outcome, _) = ask_and_stay(place, order, deadline, context).await?;
    Ok(outcome)
}

/// The same, and the supervisor can tell how long its giver is there.
pub(super) async fn ask_and_stay<O: Order>(
    place: &Place,
    order: O,
    deadline: Duration,
    context: &Context,
) -> Result<(O::Outcome, Presence)> {
    let asking = give_and_stay(order, place.path(), deadline);
    match context.unless_cancelled(asking).await {
        Ok(Some(answered)) => Ok(answered),
        Ok(None) => Err(unheard(place)),
        Err(error) => Err(stuck(error, place)),
    }
}

/// Of what does not answer there is one way to get rid.
fn stuck(error: Error, place: &Place) -> Error {
    if error.kind() == ErrorKind::TimedOut { error.hint(by_force(place)) } else { error }
}

fn unheard(place: &Place) -> Error {
    let id = place.id();
    match place.state() {
        State::Running | State::Paused => {
            let message = format!("the supervisor of workspace {id} does not know this order");
            Error::new(ErrorKind::Unsupported, message).hint(format!(
                "an older pyro started it: `pyro workspace stop {id}`, then \
                 `pyro workspace start {id}`"
            ))
        }
        State::Stopped | State::Changing | State::Crashed | State::Damaged => {
            let message = format!("the guest of workspace {id} went away");
            Error::new(ErrorKind::GuestLost, message)
                .hint(format!("start it again: `pyro workspace start {id}`"))
        }
    }
}
