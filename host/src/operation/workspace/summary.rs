use super::LastCommand;
use crate::operation::{Answer, Page};
use crate::workspace::fork::ForkedFrom;
use crate::workspace::record::{NetworkPolicy, Seed, SeedMode, TtlAction};
use crate::workspace::{Place, Record, State};
use crate::{Result, workspace};
use anstyle::Style;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;

/// A workspace: what it is, and what it is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WorkspaceSummary {
    /// Its id: twelve hexadecimal digits.
    pub workspace_id: String,
    /// What its owner calls it.
    pub name: Option<String>,
    /// What else its owner says of it.
    pub labels: BTreeMap<String, String>,
    /// The environment it was made from.
    pub environment: String,
    /// The digest of the environment's image, pinned for life.
    pub environment_digest: String,
    /// What it is doing.
    pub state: State,
    /// Virtual CPUs.
    pub vcpu_count: u32,
    /// Memory, in MiB.
    pub mem_mib: u32,
    /// The size of its file system, in MiB.
    pub disk_mib: u64,
    /// How many MiB it may read and write there in a second; null is no limit.
    pub disk_mib_per_second: Option<u32>,
    /// How many reads and writes it may do there in a second; null is no limit.
    pub disk_ops_per_second: Option<u32>,
    /// What its network may do.
    pub network_policy: NetworkPolicy,
    /// Where the workspace is in the guest.
    pub workspace_path: String,
    /// What it was seeded with.
    pub workspace_seed: Seed,
    /// The workspace that it was made from; null for none.
    pub forked_from: Option<ForkedFrom>,
    /// When it was made, RFC 3339 in UTC.
    #[schemars(with = "String")]
    pub created_at: Timestamp,
    /// When it was last changed or used, RFC 3339 in UTC.
    #[schemars(with = "String")]
    pub last_activity_at: Timestamp,
    /// How long it lives unless renewed; null is for ever.
    pub ttl_seconds: Option<u32>,
    /// What happens then.
    pub ttl_action: Option<TtlAction>,
    /// When its time is over, RFC 3339 in UTC.
    #[schemars(with = "Option<String>")]
    pub expires_at: Option<Timestamp>,
    /// How many commands were run in it.
    pub command_count: u64,
    /// The one that was run last; null when none was.
    pub last_command: Option<LastCommand>,
    /// How often it was reset.
    pub reset_count: u32,
    /// When it was last reset, RFC 3339 in UTC.
    #[schemars(with = "Option<String>")]
    pub last_reset_at: Option<Timestamp>,
}

impl WorkspaceSummary {
    /// Of the workspace there.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn of(place: &Place) -> Result<Self> {
        Ok(Self::new(place, place.record()?))
    }

    /// From its record.
    #[must_use]
    pub fn new(place: &Place, record: Record) -> Self {
        Self {
            workspace_id: record.workspace_id.to_string(),
            name: record.name,
            labels: record.labels,
            environment: record.environment,
            environment_digest: record.root_digest.to_string(),
            state: place.state(),
            vcpu_count: record.vcpu_count,
            mem_mib: record.mem_mib,
            disk_mib: record.disk_mib,
            disk_mib_per_second: record.disk_limit.mib_per_second.map(NonZeroU32::get),
            disk_ops_per_second: record.disk_limit.operations_per_second.map(NonZeroU32::get),
            network_policy: record.network_policy,
            workspace_path: workspace::GUEST_PATH.into(),
            workspace_seed: record.seed,
            forked_from: record.forked_from,
            created_at: record.created_at,
            last_activity_at: place.last_activity().unwrap_or(record.created_at),
            ttl_seconds: record.ttl.map(|ttl| ttl.seconds),
            ttl_action: record.ttl.map(|ttl| ttl.action),
            expires_at: record.ttl.map(|ttl| ttl.expires_at),
            command_count: place.command_count(),
            last_command: LastCommand::of(place),
            reset_count: record.reset_count,
            last_reset_at: record.last_reset_at,
        }
    }
}

/// The labels as they are typed.
pub(super) fn shown_labels(labels: &BTreeMap<String, String>) -> String {
    let words: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    words.join(", ")
}

/// Times as people read them: to the second.
pub(super) fn shown_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl WorkspaceSummary {
    /// What people read of it, line by line.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![("Workspace", self.workspace_id.clone())];
        rows.extend(self.name.clone().map(|name| ("Name", name)));
        if !self.labels.is_empty() {
            rows.push(("Labels", shown_labels(&self.labels)));
        }
        rows.push(("Environment", self.environment.clone()));
        rows.push(("State", self.state.as_str().into()));
        let Self { vcpu_count, mem_mib, disk_mib, .. } = self;
        let plural = if *vcpu_count == 1 { "" } else { "s" };
        let size = format!("{vcpu_count} vCPU{plural}, {mem_mib} MiB memory, {disk_mib} MiB disk");
        rows.push(("Size", size));
        let limits = [(self.disk_mib_per_second, "MiB"), (self.disk_ops_per_second, "operations")];
        let limits = limits.into_iter().filter_map(|(limit, of)| Some(format!("{} {of}", limit?)));
        let limits: Vec<_> = limits.collect();
        if !limits.is_empty() {
            rows.push(("Disk limit", format!("{} in a second", limits.join(" and "))));
        }
        rows.push(("Network", self.network_policy.to_string()));
        let seed = &self.workspace_seed;
        let from = seed.seed_path.as_deref().map(|path| format!(" from {path}"));
        let from = from.unwrap_or_default();
        rows.push((
            "Seed",
            match seed.mode {
                SeedMode::Empty => "none".into(),
                SeedMode::Directory | SeedMode::TarArchive | SeedMode::Git => {
                    format!("{} entries, {} bytes{from}", seed.entry_count, seed.bytes_written)
                }
            },
        ));
        rows.extend(self.forked_from.as_ref().map(|from| {
            let at = from.snapshot_name.as_ref().map(|name| format!("@{name}"));
            ("Made from", format!("{}{}", from.workspace_id, at.unwrap_or_default()))
        }));
        rows.push(("Created", shown_time(self.created_at)));
        rows.push(("Last activity", shown_time(self.last_activity_at)));
        if let (Some(at), Some(action)) = (self.expires_at, self.ttl_action) {
            let then = match action {
                TtlAction::Stop => "stops",
                TtlAction::Delete => "is deleted",
            };
            rows.push(("Expires", format!("{then} {}", shown_time(at))));
        }
        rows.push(("Commands", self.command_count.to_string()));
        rows.extend(self.last_command.as_ref().map(|last| ("Last command", last.shown())));
        if let Some(at) = self.last_reset_at {
            rows.push(("Resets", format!("{}, last {}", self.reset_count, shown_time(at))));
        }
        rows
    }
}

/// Lines, each with what it is about before it.
pub(super) fn table(rows: Vec<(&'static str, String)>, page: &mut Page) -> fmt::Result {
    let bold = Style::new().bold();
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(label, value)| [page.paint(bold, format!("{label}:")), value])
        .collect();
    page.table(&rows)
}

impl Answer for WorkspaceSummary {
    fn render(&self, page: &mut Page) -> fmt::Result {
        table(self.rows(), page)
    }

    fn id(&self) -> Option<String> {
        Some(self.workspace_id.clone())
    }
}
