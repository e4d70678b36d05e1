//! A workspace that stands still, and what is told of one that runs.

use super::orders::{ask, require_up, senseless};
use super::place::{Place, State};
use crate::context::Context;
use crate::error::Result;
use crate::event::Event;
use crate::supervisor::control::{Answer, Order, order};
use crate::supervisor::keep::Running;
use crate::vmm::Metrics;
use std::time::Duration;

/// How long a supervisor may take over it: its VMM may have to write out much
/// before the guest stands still, and does not always obey.
const TURN_DEADLINE: Duration = Duration::from_secs(60);

/// How long who only asks how it is waits for what the VMM has counted.
const METRICS_DEADLINE: Duration = Duration::from_secs(2);

/// Makes a running workspace stand still. What runs in it, and who waits for
/// that, is left as it is. Says whether it stood still already.
///
/// # Errors
/// `Conflict` when it does not run; `Unsupported` when its VMM cannot.
pub async fn pause(place: &Place, context: &Context) -> Result<bool> {
    let _life = place.take_life(context).await?;
    require_up(place)?;
    stage(context, "pausing", place).await;
    match ask(place, Order::Pause, TURN_DEADLINE, context).await? {
        Answer::Paused { already } => Ok(already),
        other @ (Answer::Stopped { .. }
        | Answer::Noted
        | Answer::Resumed { .. }
        | Answer::Metrics(_)
        | Answer::Published { .. }
        | Answer::Unpublished(_)
        | Answer::Ports(_)
        | Answer::Failed(_)) => Err(senseless(&other)),
    }
}

/// Lets a workspace go on that stands still. Says whether it did already.
///
/// # Errors
/// As [`pause`].
pub async fn resume(place: &Place, context: &Context) -> Result<bool> {
    let _life = place.take_life(context).await?;
    require_up(place)?;
    stage(context, "resuming", place).await;
    match ask(place, Order::Resume, TURN_DEADLINE, context).await? {
        Answer::Resumed { already, clock_is_late } => {
            if let Some(reason) = clock_is_late {
                let id = place.id();
                let warning = format!("the clock of workspace {id} may be late: {reason}");
                context.events.emit(Event::Warning(warning)).await;
            }
            Ok(already)
        }
        other @ (Answer::Stopped { .. }
        | Answer::Noted
        | Answer::Paused { .. }
        | Answer::Metrics(_)
        | Answer::Published { .. }
        | Answer::Unpublished(_)
        | Answer::Ports(_)
        | Answer::Failed(_)) => Err(senseless(&other)),
    }
}

/// What is told of a workspace that runs, or stands still; of no other.
#[must_use]
pub fn running(place: &Place) -> Option<Running> {
    match place.state() {
        State::Running | State::Paused => place.running().ok(),
        State::Stopped | State::Changing | State::Crashed | State::Damaged => None,
    }
}

/// What its VMM has counted, if it says so soon.
pub async fn metrics(place: &Place) -> Option<Metrics> {
    match order(place.path(), Order::Metrics, METRICS_DEADLINE).await {
        Ok(Some(Answer::Metrics(metrics))) => Some(metrics),
        Ok(_) | Err(_) => None,
    }
}

async fn stage(context: &Context, name: &'static str, place: &Place) {
    context.events.emit(Event::Stage { name, subject: place.id().to_string() }).await;
}
