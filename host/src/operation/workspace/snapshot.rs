//! Operations on a workspace's snapshots.

mod create;
mod delete;
mod list;
mod rename;

pub use create::SnapshotCreate;
pub use delete::{SnapshotDelete, SnapshotDeleted};
pub use list::{SnapshotList, SnapshotListAnswer};
pub use rename::SnapshotRename;

use super::summary::shown_time;
use crate::id::WorkspaceId;
use crate::operation::{Answer, Page};
use crate::workspace::Record;
use crate::workspace::snapshot::{Snapshot, SnapshotRef};
use anstyle::Style;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt::{self, Write};

/// What a workspace can be taken back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SnapshotReport {
    /// What it is called.
    pub snapshot_name: String,
    /// What it is.
    pub kind: SnapshotKind,
    /// Whether it can be relied on.
    pub state: SnapshotState,
    /// When it was taken, RFC 3339 in UTC; null when that is not known.
    #[schemars(with = "Option<String>")]
    pub created_at: Option<Timestamp>,
    /// When a guest first answered on it, RFC 3339 in UTC; null for never.
    #[schemars(with = "Option<String>")]
    pub verified_at: Option<Timestamp>,
    /// How long the guest stood still for it, in milliseconds; null for the
    /// baseline.
    pub still_ms: Option<u64>,
    /// What its disk takes on the host, in bytes, shared with others or not.
    pub size_bytes: u64,
    /// What its end would free, in bytes.
    pub exclusive_bytes: u64,
    /// Whether it can be deleted; the baseline cannot.
    pub deletable: bool,
}

/// What a workspace can be taken back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotKind {
    /// What it was seeded with, on a fresh disk.
    Baseline,
    /// What its disk was.
    Named,
}

/// Whether a snapshot can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// A guest has answered on it.
    Good,
    /// It is whole, and no guest was started on it yet.
    Unverified,
    /// What is written down of it cannot be read.
    Damaged,
}

impl SnapshotReport {
    fn of(Snapshot { name, record, space }: Snapshot) -> Self {
        let state = match &record {
            None => SnapshotState::Damaged,
            Some(record) if record.verified_at.is_none() => SnapshotState::Unverified,
            Some(_) => SnapshotState::Good,
        };
        Self {
            snapshot_name: name.to_string(),
            kind: SnapshotKind::Named,
            state,
            created_at: record.as_ref().map(|record| record.created_at),
            verified_at: record.as_ref().and_then(|record| record.verified_at),
            still_ms: record.map(|record| record.still_ms),
            size_bytes: space.allocated,
            exclusive_bytes: space.exclusive,
            deletable: true,
        }
    }

    fn baseline(record: &Record) -> Self {
        Self {
            snapshot_name: SnapshotRef::Baseline.to_string(),
            kind: SnapshotKind::Baseline,
            // The workspace came up on it.
            state: SnapshotState::Good,
            created_at: Some(record.created_at),
            verified_at: Some(record.created_at),
            still_ms: None,
            size_bytes: record.seed.bytes_written,
            exclusive_bytes: 0,
            deletable: false,
        }
    }
}

impl SnapshotState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Unverified => "unverified",
            Self::Damaged => "damaged",
        }
    }
}

/// A snapshot of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SnapshotAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// The snapshot.
    pub snapshot: SnapshotReport,
}

impl SnapshotAnswer {
    fn of(workspace: WorkspaceId, snapshot: Snapshot) -> Self {
        let snapshot = SnapshotReport::of(snapshot);
        Self { workspace_id: workspace.to_string(), snapshot }
    }
}

impl Answer for SnapshotAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let SnapshotReport { snapshot_name, still_ms, exclusive_bytes, .. } = &self.snapshot;
        let still = match still_ms {
            Some(ms) if *ms > 0 => format!(", stood still for {ms} ms"),
            Some(_) | None => String::new(),
        };
        let own = mib(*exclusive_bytes);
        writeln!(page, "Snapshot {snapshot_name}: {own} of its own{still}")
    }
}

/// Bytes as people read them.
fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn table(snapshots: &[SnapshotReport], page: &mut Page) -> fmt::Result {
    let bold = Style::new().bold();
    let heading =
        ["NAME", "STATE", "CREATED", "SIZE", "ITS OWN"].map(|cell| page.paint(bold, cell));
    let rows = snapshots.iter().map(|snapshot| {
        [
            snapshot.snapshot_name.clone(),
            snapshot.state.as_str().to_owned(),
            snapshot.created_at.map(shown_time).unwrap_or_default(),
            mib(snapshot.size_bytes),
            mib(snapshot.exclusive_bytes),
        ]
    });
    let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
    page.table(&rows)
}
