//! What is written down of a workspace.

use super::fork::ForkedFrom;
use super::shape::Shape;
use crate::digest::Digest;
pub use crate::egress::NetworkPolicy;
use crate::egress::policy::Policy;
use crate::egress::{Network, NetworkLimits};
use crate::id::WorkspaceId;
use crate::store::record;
pub use crate::supervisor::ttl::{RECORD_NAME as NAME, Ttl, TtlAction};
use crate::vmm::{RateLimit, Rung};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    /// How fast it may use that.
    #[serde(default)]
    pub disk_limit: RateLimit,
    /// How to run it, always; the best way of the moment if its owner did not say.
    #[serde(default)]
    pub vmm: Option<Rung>,
    /// What its network may do.
    pub network_policy: NetworkPolicy,
    /// Where it may go, with a policy other than `off`.
    #[serde(default)]
    pub network_rules: Policy,
    /// How much of it.
    #[serde(default)]
    pub network_limits: NetworkLimits,
    /// The workspace that it was made from, if any.
    #[serde(default)]
    pub forked_from: Option<ForkedFrom>,
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
    /// Begins its time anew if it is over, for it is started.
    pub fn renew_expired(&mut self) {
        if let Some(ttl) = &mut self.ttl
            && ttl.is_over()
        {
            *ttl = Ttl::from_now(ttl.seconds, ttl.action);
        }
    }

    /// Its network.
    #[must_use]
    pub fn network(&self) -> Network {
        Network {
            policy: self.network_policy,
            rules: self.network_rules.clone(),
            limits: self.network_limits,
        }
    }

    /// How large its guest is.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let Self { vcpu_count, mem_mib, disk_mib, disk_limit, .. } = *self;
        Shape { vcpu_count, mem_mib, disk_mib, disk_limit }
    }
}
