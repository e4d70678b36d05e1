use super::WorkspaceSummary;
use crate::operation::argument::WorkspaceRef;
use crate::operation::{Context, Effect, Operation};
use crate::workspace::find::find;
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Show what a workspace is and what it is doing.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct WorkspaceStatus {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace status fix-parser
  pyro workspace status 4f2a --json | jq -r .state";

impl Operation for WorkspaceStatus {
    const PATH: &'static [&'static str] = &["workspace", "status"];
    const TOOL: Option<&'static str> = Some("workspace_status");
    const EFFECT: Effect = Effect::Reads;
    type Output = WorkspaceSummary;

    async fn run(self, pyro: &Pyro, _: Context) -> Result<WorkspaceSummary> {
        WorkspaceSummary::of(&find(&pyro.config, self.workspace_id.as_str())?)
    }
}
