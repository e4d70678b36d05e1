use super::WorkspaceSummary;
use crate::operation::argument::WorkspaceRef;
use crate::operation::{Context, Effect, Operation};
use crate::workspace::find::find;
use crate::workspace::power;
use crate::workspace::template::Start;
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Start a workspace that was stopped.
///
/// Its disk is as it was. One that runs already is left alone.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct WorkspaceStart {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// Boot instead of restoring a template.
    #[arg(long)]
    #[serde(default)]
    pub cold: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace start fix-parser";

impl Operation for WorkspaceStart {
    const PATH: &'static [&'static str] = &["workspace", "start"];
    const TOOL: Option<&'static str> = Some("workspace_start");
    const EFFECT: Effect = Effect::Changes;
    const REPEATABLE: bool = true;
    type Output = WorkspaceSummary;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<WorkspaceSummary> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        power::start(pyro, &place, Start::unless(self.cold), &context).await?;
        WorkspaceSummary::of(&place)
    }
}
