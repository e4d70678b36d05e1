use super::WorkspaceSummary;
use crate::event::Event;
use crate::operation::argument::WorkspaceRef;
use crate::operation::{Context, Effect, Operation};
use crate::workspace::find::find;
use crate::workspace::pause;
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Let a paused workspace go on.
///
/// Its programs go on where they were, and its clock is set to the host's.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct WorkspaceResume {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace resume fix-parser";

impl Operation for WorkspaceResume {
    const PATH: &'static [&'static str] = &["workspace", "resume"];
    const TOOL: Option<&'static str> = Some("workspace_resume");
    const EFFECT: Effect = Effect::Changes;
    const REPEATABLE: bool = true;
    type Output = WorkspaceSummary;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<WorkspaceSummary> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        if pause::resume(&place, &context).await? {
            let warning = format!("workspace {} was not paused", place.id());
            context.events.emit(Event::Warning(warning)).await;
        }
        WorkspaceSummary::of(&place)
    }
}
