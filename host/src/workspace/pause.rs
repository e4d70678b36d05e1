//! A workspace that stands still, and what is told of one that runs.

use super::orders::{ask, require_up};
use super::place::{Place, State};
use crate::context::Context;
use crate::error::Result;
use crate::event::Event;
use crate::supervisor::control::give;
use crate::supervisor::keep::Running;
use crate::supervisor::order::{Pause, Paused, ReadMetrics, Resume, Resumed};
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
    let Paused { already } = ask(place, Pause, TURN_DEADLINE, context).await?;
    Ok(already)
}

/// Lets a workspace go on that stands still. Says whether it did already.
///
/// # Errors
/// As [`pause`].
pub async fn resume(place: &Place, context: &Context) -> Result<bool> {
    let _life = place.take_life(context).await?;
    require_up(place)?;
    stage(context, "resuming", place).await;
    let Resumed { already, clock_is_late } = ask(place, Resume, TURN_DEADLINE, context).await?;
    if let Some(reason) = clock_is_late {
        let warning = format!("the clock of workspace {} may be late: {reason}", place.id());
        context.events.emit(Event::Warning(warning)).await;
    }
    Ok(already)
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
    give(ReadMetrics, place.path(), METRICS_DEADLINE).await.ok().flatten()
}

async fn stage(context: &Context, name: &'static str, place: &Place) {
    context.events.emit(Event::Stage { name, subject: place.id().to_string() }).await;
}
