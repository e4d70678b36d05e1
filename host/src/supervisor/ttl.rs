//! How long a workspace lives, as its record says. Its supervisor reads that
//! there whenever it matters: others write it at any time, also while the
//! workspace comes up and nobody could be told.

use crate::error::Result;
use crate::store::lock::{Lock, Mode};
use crate::store::record;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// The record's file name in a workspace's directory.
pub const RECORD_NAME: &str = "record.json";

/// Held by one who changes the record.
pub const RECORD_LOCK: &str = "record.lock";

/// How long a change of a record may wait for another. None takes longer than
/// a write to the disk.
const CHANGE_DEADLINE: Duration = Duration::from_secs(10);

/// A workspace's time to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ttl {
    /// How long, from its creation, start or renewal.
    pub seconds: u32,
    /// What happens then.
    pub action: TtlAction,
    /// When that is. A call that is underway then is waited for.
    pub expires_at: Timestamp,
}

/// What happens to a workspace when its time is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TtlAction {
    /// It is stopped; its data stay.
    #[default]
    Stop,
    /// It is deleted.
    Delete,
}

/// A word that names no such action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the actions are `stop` and `delete`")]
pub struct UnknownAction;

impl FromStr for TtlAction {
    type Err = UnknownAction;

    fn from_str(word: &str) -> Result<Self, UnknownAction> {
        match word {
            "stop" => Ok(Self::Stop),
            "delete" => Ok(Self::Delete),
            _ => Err(UnknownAction),
        }
    }
}

impl fmt::Display for TtlAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "stop",
            Self::Delete => "delete",
        })
    }
}

impl Ttl {
    /// One that begins now.
    #[must_use]
    pub fn from_now(seconds: u32, action: TtlAction) -> Self {
        let expires_at = Timestamp::now() + SignedDuration::from_secs(seconds.into());
        Self { seconds, action, expires_at }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.expires_at <= Timestamp::now()
    }
}

/// What a supervisor reads of a record.
#[derive(Deserialize)]
struct Timed {
    ttl: Option<Ttl>,
}

/// What the record in a workspace's directory says.
///
/// # Errors
/// When it cannot be read.
pub fn read(directory: &Path) -> Result<Option<Ttl>> {
    let Timed { ttl } = record::read_part(&directory.join(RECORD_NAME))?;
    Ok(ttl)
}

/// The right to change the record, once nobody else does.
///
/// # Errors
/// `Conflict` when another's change is not done in time.
pub async fn lock_record(directory: &Path) -> Result<Lock> {
    Lock::take(&directory.join(RECORD_LOCK), Mode::Exclusive, CHANGE_DEADLINE).await
}
