use super::WorkspaceSummary;
use crate::operation::argument::WorkspaceRef;
use crate::operation::{Context, Effect, Operation};
use crate::workspace::find::find;
use crate::workspace::reset;
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Take a workspace back to its baseline.
///
/// All that was changed in it is lost, outside `/workspace` as well; its
/// processes end. It keeps id, name, labels and history. The old disk is dropped
/// only once the machine answers on the new one.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct WorkspaceReset {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace reset fix-parser";

impl Operation for WorkspaceReset {
    const PATH: &'static [&'static str] = &["workspace", "reset"];
    const TOOL: Option<&'static str> = Some("workspace_reset");
    const EFFECT: Effect = Effect::Destroys;
    type Output = WorkspaceSummary;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<WorkspaceSummary> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let record = reset::reset(pyro, &place, &context).await?;
        Ok(WorkspaceSummary::new(&place, record))
    }
}
