use super::SnapshotAnswer;
use crate::operation::argument::WorkspaceRef;
use crate::operation::{Context, Effect, Operation};
use crate::workspace::find::find;
use crate::workspace::snapshot::{SnapshotName, take};
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Take a snapshot of a workspace's whole disk, running or stopped.
///
/// All that programs have written by now is in it, outside `/workspace` as well;
/// processes and secrets are not. A running machine stands still for the copy:
/// milliseconds where the host's file system copies by reference, else as long as
/// copying takes.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct SnapshotCreate {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// What to call the snapshot.
    #[arg(value_name = "NAME")]
    pub snapshot_name: SnapshotName,
    /// Start a guest on it that only looks, and answer once that has come up: the
    /// snapshot is then `good`. Without this it is `unverified` until it is used.
    #[arg(long)]
    #[serde(default)]
    pub verify: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace snapshot create fix-parser before-upgrade
  pyro workspace reset fix-parser --snapshot before-upgrade";

impl Operation for SnapshotCreate {
    const PATH: &'static [&'static str] = &["workspace", "snapshot", "create"];
    const TOOL: Option<&'static str> = Some("snapshot_create");
    const EFFECT: Effect = Effect::Changes;
    type Output = SnapshotAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.snapshot_name.to_string())
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<SnapshotAnswer> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let mut snapshot = take::create(pyro, &place, &self.snapshot_name, &context).await?;
        if self.verify {
            snapshot = take::verify(pyro, &place, &self.snapshot_name, &context).await?;
        }
        Ok(SnapshotAnswer::of(place.id(), snapshot))
    }
}
