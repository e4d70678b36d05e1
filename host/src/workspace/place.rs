//! Where a kept workspace is: its directory, its locks, its state.
//!
//! ```text
//! state/workspaces/<id>/
//!   record.json    what it is                  record.lock  one who changes that
//!   disk-N.ext4    what the guest writes       life.lock    one who starts, stops, resets, deletes
//!   seed.erofs     what it began with          lock         its supervisor, while it runs
//!   secrets.json   what it keeps to itself, sealed
//!   running.json   how it came up, and whether it stands still; left behind by
//!                  one that went away unasked
//!   vsock.sock control.sock console.log supervisor.log events.jsonl history/
//! ```
//!
//! Nothing in it says "running": the supervisor's lock does, which the kernel
//! takes back however a supervisor ends.

use super::directory;
use super::history::History;
use super::record::{self, Record};
use crate::config::Config;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::{EventLog, Happening};
use crate::id::WorkspaceId;
use crate::secret::{Redactor, SecretStore};
use crate::store::lock::{Lock, Mode};
use crate::store::record as records;
use crate::supervisor::keep::{RUNNING_NAME, Running};
use crate::supervisor::ttl;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Its seed, the immutable baseline.
pub const SEED_NAME: &str = "seed.erofs";

/// A file whose time says when the workspace was last active. Not the record:
/// being used is no change of what a workspace is.
const ACTIVITY_NAME: &str = "activity";

/// How long a start, stop, reset or delete waits for another to be done: as
/// long as a translated guest may take to boot.
const LIFE_DEADLINE: Duration = Duration::from_secs(150);

/// A kept workspace's directory, which may have gone meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    id: WorkspaceId,
    path: PathBuf,
    secrets: SecretStore,
}

/// What a workspace is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was stopped, or has not been started.
    Stopped,
    /// Its guest comes up, or goes down.
    Changing,
    /// Its guest answers calls.
    Running,
    /// Its guest stands still, its memory kept, until it is resumed.
    Paused,
    /// Its guest went away though nobody stopped it. The next command that
    /// needs it starts it again.
    Crashed,
    /// Its record cannot be read.
    Damaged,
}

impl State {
    /// As JSON and help have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Stopped => "stopped",
            State::Changing => "changing",
            State::Running => "running",
            State::Paused => "paused",
            State::Crashed => "crashed",
            State::Damaged => "damaged",
        }
    }
}

impl Place {
    /// Where the workspace of this id would be.
    #[must_use]
    pub fn of(config: &Config, id: WorkspaceId) -> Self {
        let path = directory::parent(config).join(id.to_string());
        Self { id, secrets: SecretStore::within(config, &path, id), path }
    }

    /// Every kept workspace of this host, in no order.
    pub fn all(config: &Config) -> Result<Vec<Self>> {
        let parent = directory::parent(config);
        let unreadable = |error| Error::io(format!("cannot read {}", parent.display()), error);
        let entries = match fs::read_dir(&parent) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut places = Vec::new();
        for entry in entries {
            let name = entry.map_err(unreadable)?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            let place = Self::of(config, id);
            if place.is_there() {
                places.push(place);
            }
        }
        Ok(places)
    }

    /// Whether there is a workspace. One-shot runs have directories as well.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.path.join(record::NAME).symlink_metadata().is_ok()
    }

    /// Whose it is.
    #[must_use]
    pub fn id(&self) -> WorkspaceId {
        self.id
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its secrets.
    #[must_use]
    pub fn secrets(&self) -> &SecretStore {
        &self.secrets
    }

    /// What leaves its secrets out of what is told.
    ///
    /// # Errors
    /// When they cannot be unsealed.
    pub fn redactor(&self) -> Result<Redactor> {
        self.secrets.redactor()
    }

    /// What is written down.
    ///
    /// # Errors
    /// `NotFound` when there is no such workspace; else when it is damaged.
    pub fn record(&self) -> Result<Record> {
        let damaged = |error: records::RecordError| match error {
            records::RecordError::Missing { .. } => self.gone(),
            records::RecordError::Unreadable { .. }
            | records::RecordError::Damaged { .. }
            | records::RecordError::OtherVersion { .. } => Error::from(error).hint(format!(
                "its disk is whole; `pyro workspace delete {}` removes it for good",
                self.id
            )),
        };
        let record: Record = records::read(&self.path.join(record::NAME)).map_err(damaged)?;
        if record.workspace_id != self.id {
            let message = format!("the record of workspace {} is another's", self.id);
            return Err(Error::new(ErrorKind::StateCorrupt, message));
        }
        Ok(record)
    }

    /// That it is not there.
    #[must_use]
    pub fn gone(&self) -> Error {
        Error::new(ErrorKind::NotFound, format!("there is no workspace {}", self.id))
            .hint("`pyro workspace list` shows those there are")
    }

    /// That it does not run.
    pub(super) fn is_stopped(&self) -> Error {
        Error::new(ErrorKind::Conflict, format!("workspace {} is stopped", self.id))
            .hint(format!("start it: `pyro workspace start {}`", self.id))
    }

    /// That it stands still.
    pub(super) fn is_paused(&self) -> Error {
        Error::new(ErrorKind::Conflict, format!("workspace {} is paused", self.id))
            .hint(format!("let it go on: `pyro workspace resume {}`", self.id))
    }

    /// Changes what is written down; concurrent changes follow one another.
    ///
    /// # Errors
    /// Those of `change`, and of reading and writing; then nothing is changed.
    pub async fn change(&self, change: impl FnOnce(&mut Record) -> Result<()>) -> Result<Record> {
        let _one_at_a_time = self.unless_gone(ttl::lock_record(&self.path).await)?;
        // What one who was killed meanwhile left half written.
        records::sweep(&self.path);
        let mut record = self.record()?;
        change(&mut record)?;
        self.unless_gone(records::write(&self.path.join(record::NAME), &record))?;
        Ok(record)
    }

    /// Whatever could not be done with what is deleted meanwhile, that it is gone
    /// is why.
    fn unless_gone<T>(&self, done: Result<T>) -> Result<T> {
        done.map_err(|error| if self.is_there() { error } else { self.gone() })
    }

    /// The right to start, stop, reset or delete it; others wait meanwhile.
    ///
    /// # Errors
    /// `NotFound`, and `Conflict` when another's is not done in time; `Cancelled`.
    pub async fn take_life(&self, context: &Context) -> Result<Lock> {
        self.hold_life(Mode::Exclusive, context).await
    }

    /// The right to have it stay as it is, together with others who want that.
    ///
    /// # Errors
    /// As [`Place::take_life`].
    pub async fn share_life(&self, context: &Context) -> Result<Lock> {
        self.hold_life(Mode::Shared, context).await
    }

    async fn hold_life(&self, mode: Mode, context: &Context) -> Result<Lock> {
        let path = self.path.join(directory::LIFE_LOCK);
        let taking = Lock::take(&path, mode, LIFE_DEADLINE);
        let life = context.unless_cancelled(async { Ok(taking.await) }).await?;
        let life = self.unless_gone(life)?;
        // Whom we waited for may have deleted it.
        if self.is_there() { Ok(life) } else { Err(self.gone()) }
    }

    /// The lock that a supervisor holds, once none does: the workspace does not
    /// run and will not while this is held.
    ///
    /// # Errors
    /// `Conflict` when a supervisor still has it at the deadline.
    pub async fn take_run(&self, deadline: Duration) -> Result<Lock> {
        let run = self.path.join(directory::LOCK_NAME);
        self.unless_gone(Lock::take(&run, Mode::Exclusive, deadline).await)
    }

    /// The same lock's file, whoever holds it.
    pub(super) fn open_run(&self) -> Result<File> {
        let path = self.path.join(directory::LOCK_NAME);
        File::open(&path)
            .map_err(|error| Error::io(format!("cannot open {}", path.display()), error))
    }

    /// Writes down what happened to it; and that it was active, if that is what
    /// it was. Nothing that happened is undone because that fails.
    pub fn note(&self, happening: Happening, active: bool) {
        drop(EventLog::within(&self.path).append(happening));
        if active {
            let touched = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(self.path.join(ACTIVITY_NAME))
                .and_then(|file| file.set_modified(SystemTime::now()));
            drop(touched);
        }
    }

    /// When it was last active, if ever.
    #[must_use]
    pub fn last_activity(&self) -> Option<Timestamp> {
        let meta = self.path.join(ACTIVITY_NAME).metadata().ok()?;
        Timestamp::try_from(meta.modified().ok()?).ok()
    }

    /// How many commands were run in it.
    #[must_use]
    pub fn command_count(&self) -> u64 {
        let sequences = History::within(&self.path).sequences().unwrap_or_default();
        sequences.into_iter().max().unwrap_or_default()
    }

    /// What it is doing at this moment.
    #[must_use]
    pub fn state(&self) -> State {
        // Shared: whoever else looks is not taken for a supervisor.
        match Lock::try_take(&self.path.join(directory::LOCK_NAME), Mode::Shared) {
            Ok(None) => match self.running() {
                Ok(Running { paused_at: None, .. }) => State::Running,
                Ok(Running { paused_at: Some(_), .. }) => State::Paused,
                Err(records::RecordError::Missing { .. }) => State::Changing,
                // That it is there says most of it.
                Err(
                    records::RecordError::Unreadable { .. }
                    | records::RecordError::Damaged { .. }
                    | records::RecordError::OtherVersion { .. },
                ) => State::Running,
            },
            Ok(Some(_)) if self.path.join(RUNNING_NAME).exists() => State::Crashed,
            Ok(Some(_)) => State::Stopped,
            Err(_) => State::Damaged,
        }
    }

    /// How its guest came up and what its supervisor tells of it, if it runs; or
    /// told of it before it went away unasked.
    pub(super) fn running(&self) -> Result<Running, records::RecordError> {
        records::read(&self.path.join(RUNNING_NAME))
    }
}
