//! What is written down of a workspace.

use super::shape::Shape;
use crate::digest::Digest;
use crate::id::WorkspaceId;
use crate::store::record;
use crate::supervisor::keep::Expiry;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The record's file name in a workspace's directory.
pub const NAME: &str = "record.json";

/// A workspace as its record has it: everything but whether it runs, which its
/// lock tells. Read-only requests never write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Whose record it is.
    pub workspace_id: WorkspaceId,
    /// What its owner calls it.
    pub name: Option<String>,
    /// What else its owner says of it.
    pub labels: BTreeMap<String, String>,
    /// The environment it was made from.
    pub environment: String,
    /// The environment's image, pinned for life.
    pub root_digest: Digest,
    /// Virtual processors.
    pub vcpu_count: u32,
    /// Memory, in MiB.
    pub mem_mib: u32,
    /// The size of its file system, in MiB.
    pub disk_mib: u64,
    /// What its network may do.
    pub network_policy: NetworkPolicy,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is stopped by itself, if ever.
    pub ttl: Option<Ttl>,
    /// What it was seeded with: its baseline.
    pub seed: Seed,
    /// The file name of its writable disk. A reset makes another and names it
    /// here; any other disk in the directory is a leftover.
    pub disk: String,
    /// How often it was reset.
    pub reset_count: u32,
    /// When it was last reset.
    pub last_reset_at: Option<Timestamp>,
}

impl record::Record for Record {
    const VERSION: u32 = 1;
}

/// What a workspace's network may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkPolicy {
    /// Nothing: the guest has no network at all.
    Off,
}

/// A workspace's time to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ttl {
    /// How long, from its creation, start or renewal.
    pub seconds: u32,
    /// What happens then.
    pub action: TtlAction,
    /// When that is.
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
}

/// What a workspace was seeded with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seed {
    /// From what kind of source.
    pub mode: SeedMode,
    /// The source on the host; null when there was none.
    pub seed_path: Option<String>,
    /// Where it is in the guest.
    pub destination: String,
    /// Files, directories and links.
    pub entry_count: u64,
    /// Bytes of all files.
    pub bytes_written: u64,
    /// The digest of its image; equal trees have equal images.
    #[schemars(with = "String")]
    pub digest: Digest,
}

/// What a seed was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SeedMode {
    /// Nothing: the workspace began empty.
    Empty,
    /// A directory, as it was.
    Directory,
    /// An archive.
    TarArchive,
    /// A git work tree: what is tracked, and what is neither tracked nor ignored.
    Git,
}

impl Record {
    /// When its time is over, for its supervisor.
    #[must_use]
    pub fn expiry(&self) -> Option<Expiry> {
        self.ttl.map(|ttl| Expiry { at: ttl.expires_at, delete: ttl.action == TtlAction::Delete })
    }

    /// How large its guest is.
    #[must_use]
    pub fn shape(&self) -> Shape {
        Shape { vcpu_count: self.vcpu_count, mem_mib: self.mem_mib, disk_mib: self.disk_mib }
    }
}
