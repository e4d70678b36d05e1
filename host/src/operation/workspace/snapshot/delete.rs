use crate::operation::argument::WorkspaceRef;
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::find::find;
use crate::workspace::snapshot::{self, SnapshotName};
use crate::{ErrorKind, Pyro, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Delete a snapshot of a workspace. The workspace and its other snapshots lose
/// nothing.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct SnapshotDelete {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// What the snapshot is called.
    #[arg(value_name = "NAME")]
    pub snapshot_name: SnapshotName,
    /// It is fine if there is no such snapshot.
    #[arg(long)]
    #[serde(default)]
    pub ignore_missing: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace snapshot delete fix-parser before-upgrade";

/// A snapshot that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SnapshotDeleted {
    /// The workspace.
    pub workspace_id: String,
    /// What the snapshot was called.
    pub snapshot_name: String,
    /// Whether it was there.
    pub deleted: bool,
}

impl Operation for SnapshotDelete {
    const PATH: &'static [&'static str] = &["workspace", "snapshot", "delete"];
    const TOOL: Option<&'static str> = Some("snapshot_delete");
    const EFFECT: Effect = Effect::Destroys;
    type Output = SnapshotDeleted;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.snapshot_name.to_string())
    }

    async fn run(self, pyro: &Pyro, _: Context) -> Result<SnapshotDeleted> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let deleted = match snapshot::delete(&place, &self.snapshot_name).await {
            Err(error) if self.ignore_missing && error.kind() == ErrorKind::NotFound => false,
            done => done.map(|()| true)?,
        };
        let (workspace_id, snapshot_name) =
            (place.id().to_string(), self.snapshot_name.to_string());
        Ok(SnapshotDeleted { workspace_id, snapshot_name, deleted })
    }
}

impl Answer for SnapshotDeleted {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let Self { snapshot_name, deleted, .. } = self;
        match deleted {
            true => writeln!(page, "Deleted workspace snapshot: {snapshot_name}"),
            false => writeln!(page, "There was no snapshot {snapshot_name}"),
        }
    }
}
