//! A workspace whose guest answers calls.

use super::find::find;
use super::place::{Place, State};
use super::power::{GOING_DOWN, start_with, warn_of_crash};
use super::record::Record;
use super::template::Start;
use crate::agent::AgentClient;
use crate::context::Context;
use crate::error::{ErrorKind, Result};
use crate::event_log::Happening;
use crate::id::WorkspaceId;
use crate::pyro::Pyro;
use crate::secret::{Redactor, SecretVariable, Secrets};
use crate::store::lock::Lock;
use std::path::Path;

/// A workspace whose guest answers calls, or did a moment ago.
#[derive(Debug)]
pub struct Live {
    place: Place,
    record: Record,
    agent: AgentClient,
    secrets: Secrets,
    redactor: Redactor,
}

impl Live {
    /// Finds a running workspace. One that went away unasked is started again;
    /// one that was stopped is not, and one that is paused stays so.
    ///
    /// # Errors
    /// `NotFound`, and `Conflict` when it is stopped or paused; and when its secrets
    /// cannot be unsealed, for then nobody knows what must not be told.
    pub async fn open(pyro: &Pyro, reference: &str, context: &Context) -> Result<Self> {
        let place = find(&pyro.config, reference)?;
        let record = place.record()?;
        // What must not be told is known before anything can be.
        let secrets = place.secrets().read()?;
        let redactor = secrets.redactor();
        context.discretion.learn(&redactor);
        if place.state() == State::Paused {
            return Err(place.is_paused());
        }
        if place.state() == State::Running {
            let agent = AgentClient::new(place.path(), pyro.deadlines)?;
            // The connection is the first call's. Without an endpoint the guest has
            // gone, and its supervisor has not told yet.
            if agent.dial_ahead().await {
                return Ok(Self { place, record, agent, secrets, redactor });
            }
        }
        // Whoever starts, stops or resets it now is waited for.
        let life = place.take_life(context).await?;
        bring_back(pyro, &place, &life, context).await?;
        let agent = AgentClient::new(place.path(), pyro.deadlines)?;
        Ok(Self { place, record, agent, secrets, redactor })
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

    /// What leaves its secrets out of what its guest says. Everything that comes
    /// from there passes it before it is told or written down.
    #[must_use]
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Adds secrets to a program's variables, and writes down which are used.
    ///
    /// # Errors
    /// `NotFound` for a secret that is not there; `InvalidInput` when a variable
    /// would have two values, or one that it cannot have.
    pub fn add_secrets(
        &self,
        env: &mut Vec<(Vec<u8>, Vec<u8>)>,
        wanted: &[SecretVariable],
    ) -> Result<()> {
        let listed = format!("`pyro workspace secret list {}` shows those there are", self.id());
        self.secrets.add_to(env, wanted).map_err(|error| {
            if error.kind() == ErrorKind::NotFound { error.hint(listed) } else { error }
        })?;
        for SecretVariable { secret, variable } in wanted {
            let (secret, variable) = (secret.to_string(), variable.to_string());
            self.place.note(Happening::SecretUsed { secret, variable }, false);
        }
        Ok(())
    }

    /// Its agent.
    #[must_use]
    pub fn agent(&self) -> &AgentClient {
        &self.agent
    }
}

/// Has one answer again that does not, unless somebody stopped or paused it.
async fn bring_back(pyro: &Pyro, place: &Place, life: &Lock, context: &Context) -> Result<()> {
    let goes_down = match place.state() {
        // It may have been started meanwhile.
        State::Running => {
            let agent = AgentClient::new(place.path(), pyro.deadlines)?;
            !agent.dial_ahead().await
        }
        // Whoever stopped it has left.
        State::Changing => true,
        State::Stopped | State::Paused | State::Crashed | State::Damaged => false,
    };
    if goes_down {
        drop(place.take_run(GOING_DOWN).await?);
    }
    match place.state() {
        State::Running => Ok(()),
        State::Crashed => {
            start_with(pyro, place, life, Start::Quick, context).await?;
            warn_of_crash(place, context).await;
            Ok(())
        }
        State::Paused => Err(place.is_paused()),
        State::Stopped | State::Changing | State::Damaged => Err(place.is_stopped()),
    }
}
