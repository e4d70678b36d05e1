//! Calls that may take long, and what is told of them meanwhile.

use super::Context;
use crate::Result;
use crate::agent::AgentClient;
use crate::event::Event;
use crate::id::WorkspaceId;
use crate::workspace::Live;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How often it is told how far a call is: what is done before is told by its
/// answer. Clients that give up on a silent call wait for far longer.
const INTERVAL: Duration = Duration::from_secs(1);

/// Does something in a workspace that may take long, unless the caller changes its
/// mind, and tells now and then how many bytes have passed.
pub(super) async fn told<T>(
    stage: &'static str,
    live: &Live,
    context: &Context,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    told_by(stage, live.id(), live.agent(), context, work).await
}

/// The same in whatever guest has something of the workspace.
pub(super) async fn told_by<T>(
    stage: &'static str,
    id: WorkspaceId,
    agent: &AgentClient,
    context: &Context,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let stage = Event::Stage { name: stage, subject: id.to_string() };
    tell(stage, || agent.passed(), context, work).await
}

async fn tell<T>(
    stage: Event,
    passed: impl Fn() -> u64,
    context: &Context,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let telling = async {
        let mut work = pin!(work);
        let mut ticks = interval_at(Instant::now() + INTERVAL, INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stage = Some(stage);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = ticks.tick() => {}
            }
            if let Some(stage) = stage.take() {
                context.events.emit(stage).await;
            }
            let mib = passed() as f64 / f64::from(1 << 20);
            context.events.emit(Event::Progress(format!("{mib:.1} MiB"))).await;
        }
    };
    context.unless_cancelled(telling).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Events;
    use tokio::time::sleep;

    fn stage() -> Event {
        Event::Stage { name: "pushing to", subject: "w".into() }
    }

    async fn heard(seconds: f64) -> Vec<Event> {
        let (events, mut received) = Events::channel();
        let context = Context { events, ..Context::default() };
        let work = async {
            sleep(Duration::from_secs_f64(seconds)).await;
            Ok(())
        };
        tell(stage(), || 3 << 19, &context, work).await.expect("it is done");
        drop(context);
        let mut heard = Vec::new();
        while let Some(event) = received.recv().await {
            heard.push(event);
        }
        heard
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_told_of_and_what_does_not_is_not() {
        assert_eq!(heard(0.9).await, []);
        let step = || Event::Progress("1.5 MiB".into());
        assert_eq!(heard(2.5).await, [stage(), step(), step()]);
    }
}
