use super::{SnapshotReport, table};
use crate::operation::argument::WorkspaceRef;
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::find::find;
use crate::workspace::snapshot;
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// List what a workspace can be taken back to.
///
/// The baseline comes first, then its snapshots, the newest before the others.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct SnapshotList {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace snapshot list fix-parser
  pyro workspace snapshot list fix-parser --json | jq '.snapshots[].snapshot_name'";

/// What a workspace can be taken back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SnapshotListAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// How many there are, the baseline included.
    pub count: usize,
    /// Each of them.
    pub snapshots: Vec<SnapshotReport>,
}

impl Operation for SnapshotList {
    const PATH: &'static [&'static str] = &["workspace", "snapshot", "list"];
    const TOOL: Option<&'static str> = Some("snapshot_list");
    const EFFECT: Effect = Effect::Reads;
    type Output = SnapshotListAnswer;

    async fn run(self, pyro: &Pyro, _: Context) -> Result<SnapshotListAnswer> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let named = snapshot::list(&place).await?.into_iter().map(SnapshotReport::of);
        let baseline = SnapshotReport::baseline(&place.record()?);
        let snapshots: Vec<_> = std::iter::once(baseline).chain(named).collect();
        let (workspace_id, count) = (place.id().to_string(), snapshots.len());
        Ok(SnapshotListAnswer { workspace_id, count, snapshots })
    }
}

impl Answer for SnapshotListAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        table(&self.snapshots, page)
    }
}
