//! Making a workspace from another.
//!
//! It begins with the other's disk, as it is or as it was, on the other's seed and
//! environment. What the other keeps to itself, its name, its labels and what was
//! run in it stay there.

use super::place::{Place, SEED_NAME};
use super::power;
use super::record::{Record, Seed};
use super::snapshot::take::{copy_at_rest, copy_disk};
use super::snapshot::{self, SnapshotRef};
use crate::context::Context;
use crate::disk::{self, copy::sparse};
use crate::environment::Bootable;
use crate::error::{Error, Result};
use crate::event_log::Happening;
use crate::id::WorkspaceId;
use crate::pyro::Pyro;
use crate::vmm::Durability;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// A workspace that another is made from.
#[derive(Debug, Clone)]
pub struct Fork {
    of: Place,
    record: Record,
    at: Option<SnapshotRef>,
}

/// Where a workspace comes from that was made from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForkedFrom {
    /// The other's id. It may be gone.
    pub workspace_id: String,
    /// The snapshot that it began with; null for the disk as it was then.
    pub snapshot_name: Option<String>,
}

impl Fork {
    /// Of a workspace: of its disk as it is, unless something else is named.
    ///
    /// # Errors
    /// `NotFound` when there is no such workspace or snapshot.
    pub fn new(of: Place, at: Option<SnapshotRef>) -> Result<Self> {
        let record = of.record()?;
        if let Some(SnapshotRef::Named(name)) = &at {
            snapshot::disk(&of, name)?;
        }
        Ok(Self { of, record, at })
    }

    /// What is written down of the other.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What is written down of where the new one comes from.
    pub(super) fn told(&self) -> ForkedFrom {
        ForkedFrom {
            workspace_id: self.of.id().to_string(),
            snapshot_name: self.at.as_ref().map(ToString::to_string),
        }
    }

    /// The environment's image that the other has for life.
    pub(super) async fn resolve(&self, pyro: &Pyro) -> Result<Bootable> {
        power::resolve(pyro, &self.record).await
    }

    /// Puts the other's seed in a directory. Nobody ever writes it, so both have
    /// the same file.
    pub(super) fn take_seed(&self, into: &Path) -> Result<Seed> {
        let (from, to) = (self.of.path().join(SEED_NAME), into.join(SEED_NAME));
        if fs::hard_link(&from, &to).is_err() {
            sparse(&from, &to).map_err(|error| self.unless_gone(error))?;
        }
        Ok(self.record.seed.clone())
    }

    /// Makes the new one's disk.
    pub(super) async fn take_disk(
        &self,
        pyro: &Pyro,
        to: PathBuf,
        context: &Context,
    ) -> Result<()> {
        let taken = match &self.at {
            Some(SnapshotRef::Baseline) => {
                disk::create(&pyro.config, &to, self.record.disk_mib, Durability::Kept).await
            }
            Some(SnapshotRef::Named(name)) => {
                copy_at_rest(snapshot::disk(&self.of, name)?, to, (), context).await.map(drop)
            }
            None => {
                let _life = self.of.take_life(context).await?;
                let from = self.of.path().join(&self.of.record()?.disk);
                copy_disk(pyro, &self.of, from, to, context).await.map(drop)
            }
        };
        taken.map_err(|error| self.unless_gone(error))
    }

    /// Writes down that a workspace was made, whose guest answers.
    pub(super) async fn note(&self, made: WorkspaceId) {
        if let Some(SnapshotRef::Named(name)) = &self.at {
            drop(snapshot::note_verified(&self.of, name).await);
        }
        let snapshot = self.at.as_ref().map(ToString::to_string);
        self.of.note(Happening::Forked { workspace_id: made.to_string(), snapshot }, false);
    }

    fn unless_gone(&self, error: Error) -> Error {
        if self.of.is_there() { error } else { self.of.gone() }
    }
}
