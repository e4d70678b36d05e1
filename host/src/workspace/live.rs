//! A workspace whose guest answers calls.

use super::find::find;
use super::place::{Place, State};
use super::power::{GOING_DOWN, start_with, warn_of_crash};
use super::record::Record;
use crate::agent::AgentClient;
use crate::context::Context;
use crate::error::Result;
use crate::id::WorkspaceId;
use crate::pyro::Pyro;
use std::path::Path;

/// A workspace whose guest answers calls, or did a moment ago.
#[derive(Debug)]
pub struct Live {
    place: Place,
    record: Record,
    agent: AgentClient,
}

impl Live {
    /// Finds a running workspace. One that went away unasked is started again;
    /// one that was stopped is not, and one that is paused stays so.
    ///
    /// # Errors
    /// `NotFound`, and `Conflict` when it is stopped or paused.
    pub async fn open(pyro: &Pyro, reference: &str, context: &Context) -> Result<Self> {
        let place = find(&pyro.config, reference)?;
        let record = place.record()?;
        let state = place.state();
        if state == State::Paused {
            return Err(place.is_paused());
        }
        if state != State::Running {
            // Whoever starts, stops or resets it now is waited for.
            let life = place.take_life(context).await?;
            if place.state() == State::Changing {
                // It goes down, and whoever stopped it has left.
                drop(place.take_run(GOING_DOWN).await?);
            }
            match place.state() {
                State::Running => {}
                State::Crashed => {
                    start_with(pyro, &place, &life, context).await?;
                    warn_of_crash(&place, context).await;
                }
                State::Paused => return Err(place.is_paused()),
                State::Stopped | State::Changing | State::Damaged => {
                    return Err(place.is_stopped());
                }
            }
        }
        let agent = AgentClient::new(place.path(), pyro.deadlines)?;
        Ok(Self { place, record, agent })
    }

    /// Whose guest it is.
    #[must_use]
    pub fn id(&self) -> WorkspaceId {
        self.place.id()
    }

    /// What is written down of it.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Its directory on the host.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its agent.
    #[must_use]
    pub fn agent(&self) -> &AgentClient {
        &self.agent
    }
}
