use super::SnapshotAnswer;
use crate::operation::argument::WorkspaceRef;
use crate::operation::{Context, Effect, Operation};
use crate::workspace::find::find;
use crate::workspace::snapshot::{self, SnapshotName};
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Call a snapshot of a workspace otherwise.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct SnapshotRename {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// What the snapshot is called.
    #[arg(value_name = "NAME")]
    pub snapshot_name: SnapshotName,
    /// What to call it from now on; no other is called so.
    #[arg(value_name = "NEW_NAME")]
    pub new_name: SnapshotName,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace snapshot rename fix-parser before-upgrade works";

impl Operation for SnapshotRename {
    const PATH: &'static [&'static str] = &["workspace", "snapshot", "rename"];
    const TOOL: Option<&'static str> = Some("snapshot_rename");
    const EFFECT: Effect = Effect::Changes;
    type Output = SnapshotAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(format!("{} {}", self.snapshot_name, self.new_name))
    }

    async fn run(self, pyro: &Pyro, _: Context) -> Result<SnapshotAnswer> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let renamed = snapshot::rename(&place, &self.snapshot_name, &self.new_name).await?;
        Ok(SnapshotAnswer::of(place.id(), renamed))
    }
}
