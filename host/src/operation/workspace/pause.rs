use super::WorkspaceSummary;
use crate::event::Event;
use crate::operation::argument::WorkspaceRef;
use crate::operation::{Context, Effect, Operation};
use crate::workspace::find::find;
use crate::workspace::pause;
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Pause a workspace: its machine stands still.
///
/// It uses no processor time and keeps its memory. Running calls stand still
/// with it, while their callers' time limits go on; new ones are refused until
/// `resume`.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct WorkspacePause {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace pause fix-parser";

impl Operation for WorkspacePause {
    const PATH: &'static [&'static str] = &["workspace", "pause"];
    const TOOL: Option<&'static str> = Some("workspace_pause");
    const EFFECT: Effect = Effect::Changes;
    const REPEATABLE: bool = true;
    type Output = WorkspaceSummary;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<WorkspaceSummary> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        if pause::pause(&place, &context).await? {
            let warning = format!("workspace {} was paused already", place.id());
            context.events.emit(Event::Warning(warning)).await;
        }
        WorkspaceSummary::of(&place)
    }
}
