//! Processes of a workspace that outlive their callers, seen from the host.

mod look;
mod rest;

pub use look::{Seen, look};

use super::exec::{unknown_end, unwritten};
use super::history::{Ending, History};
use super::live::Live;
use super::machine::Caller;
use crate::agent::kept::Heard;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use pyro_protocol::kept::{PollProcess, PollUntil, ProcessId, ProcessPolled, ProcessState};
use pyro_protocol::process::Exit;
use rest::Rest;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// How long one call waits in the guest; a longer wait is made of several, so
/// that a host that is gone is noticed.
const WAIT_STEP: Duration = Duration::from_secs(60);

/// The least time between two of them, should the guest not wait at all. Shorter
/// than what a supervisor takes for the end of all calls.
const WAIT_PACE: Duration = Duration::from_millis(100);

/// How long it may take to fetch the rest of what an ended process wrote: some
/// 16 MiB through a crowded host's channel.
const COMPLETION_DEADLINE: Duration = Duration::from_secs(60);

/// Polls a process; when it has ended, completes its entry in the history.
///
/// # Errors
/// `NotFound` when the guest has no such process.
pub async fn poll(live: &Live, call: PollProcess, context: &Context) -> Result<ProcessPolled> {
    let caller = Caller::from(context);
    let polled = caller.unless_cancelled(live.agent().poll(call)).await;
    let polled = forgotten(live, call.id, polled)?;
    complete(live, call.id, polled.state, context).await;
    Ok(polled)
}

/// Waits for a process's end, at most so long; `None` if it has not come by then.
///
/// # Errors
/// `NotFound` when the guest has no such process; `GuestLost` when nobody knows
/// how it ended.
pub async fn wait(
    live: &Live,
    id: ProcessId,
    patience: Option<Duration>,
    context: &Context,
) -> Result<Option<Exit>> {
    let deadline = patience.map(|patience| Instant::now() + patience);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let step = left.unwrap_or(WAIT_STEP).min(WAIT_STEP);
        let call = PollProcess {
            id,
            stdout_cursor: 0,
            stderr_cursor: 0,
            max_bytes: 0,
            wait_ms: u32::try_from(step.as_millis()).unwrap_or(u32::MAX),
            until: PollUntil::End,
        };
        // A guest that answers at once is not asked again at once.
        let pace = Instant::now() + left.map_or(WAIT_PACE, |left| left.min(WAIT_PACE));
        match poll(live, call, context).await?.state {
            ProcessState::Ended { exit } => return Ok(Some(exit)),
            ProcessState::Lost => return Err(unknown_end(id)),
            ProcessState::Running { .. } if left.is_some_and(|left| left.is_zero()) => {
                return Ok(None);
            }
            ProcessState::Running { .. } => sleep_until(pace).await,
        }
    }
}

/// Tells all that a process wrote and writes, as events, until its end; `None`
/// if that does not come in time. Leaving ends nothing.
///
/// # Errors
/// As [`wait`].
pub async fn follow(
    live: &Live,
    id: ProcessId,
    patience: Option<Duration>,
    context: &Context,
) -> Result<Option<Exit>> {
    let events = context.events.clone().without(live.redactor());
    let following = async {
        let following = live.agent().follow(id, (0, 0)).await;
        let hear = |heard| {
            let events = events.clone();
            async move {
                let event = match heard {
                    Heard::Output(stream, bytes) => Event::Output { stream, bytes },
                    Heard::Skipped(stream, bytes) => {
                        events.skip(stream, bytes).await;
                        Event::Warning(format!("{bytes} bytes of {stream} are gone"))
                    }
                };
                events.emit(event).await;
            }
        };
        let state = forgotten(live, id, following)?.finish(hear).await;
        events.settle().await;
        state
    };
    let in_time = async {
        match patience {
            Some(patience) => timeout(patience, following).await.ok().transpose(),
            None => following.await.map(Some),
        }
    };
    let Some(state) = Caller::from(context).unless_cancelled(in_time).await? else {
        return Ok(None);
    };
    complete(live, id, state, context).await;
    match state {
        ProcessState::Ended { exit } => Ok(Some(exit)),
        ProcessState::Running { .. } | ProcessState::Lost => Err(unknown_end(id)),
    }
}

/// Writes down in the history how a process ended and what it wrote since
/// anybody last listened.
async fn complete(live: &Live, id: ProcessId, state: ProcessState, context: &Context) {
    let ending = match state {
        ProcessState::Running { .. } => return,
        ProcessState::Ended { exit } => Ending::of(exit),
        ProcessState::Lost => Ending::lost(&unknown_end(id)),
    };
    let history = History::within(live.path());
    let Some(sequence) = history.of_process(id) else { return };
    let completed = async {
        // Somebody else completes it, or has.
        let Some(mut recorder) = history.resume(sequence)? else { return Ok(()) };
        let mut rest = Rest::after(&recorder, live.redactor());
        let following = async {
            let following = live.agent().follow(id, rest.from).await?;
            let hear = |heard| {
                rest.hear(&mut recorder, heard);
                std::future::ready(())
            };
            following.finish(hear).await
        };
        let overdue = |_| {
            let message = format!("the output of process {id} does not come to an end");
            Err(Error::new(ErrorKind::TimedOut, message))
        };
        // Without all of its output the entry stays open: the next poll tries again.
        timeout(COMPLETION_DEADLINE, following).await.unwrap_or_else(overdue)?;
        rest.finish(&mut recorder);
        recorder.finish(ending)
    };
    if let Err(error) = completed.await {
        context.events.emit(unwritten(&error)).await;
    }
}

/// A process that the guest does not know any more has ended somehow: that is
/// written down, and the error says which there are.
///
/// # Errors
/// Those of what was asked.
pub fn forgotten<T>(live: &Live, id: ProcessId, asked: Result<T>) -> Result<T> {
    let error = match asked {
        Err(error) if error.kind() == ErrorKind::NotFound => error,
        asked => return asked,
    };
    let history = History::within(live.path());
    let entry = history.of_process(id).and_then(|sequence| history.resume(sequence).ok()?);
    if let Some(recorder) = entry {
        // Should it not be written now, the next who asks writes it.
        drop(recorder.finish(Ending::lost(&error)));
    }
    Err(error.hint(format!("`pyro workspace process list {}` shows those there are", live.id())))
}
