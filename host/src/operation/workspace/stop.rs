use super::WorkspaceSummary;
use crate::event::Event;
use crate::operation::argument::{Number, WorkspaceRef};
use crate::operation::{Context, Effect, Operation};
use crate::workspace::find::find;
use crate::workspace::power::{self, Stopped};
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// How long processes may take to end by themselves.
pub type GraceSeconds = Number<0, 5, 600>;

/// Stop a workspace; its files stay.
///
/// Its processes get SIGTERM, then SIGKILL; everything is written to its disk;
/// the machine goes off. Running calls end with an error.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct WorkspaceStop {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// How many seconds its processes may take to obey SIGTERM, 0 to 600.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub grace_seconds: GraceSeconds,
    /// Kill its machine at once, and its supervisor if that does not obey. What
    /// is not written to its disk is lost.
    #[arg(short, long, conflicts_with = "grace_seconds")]
    #[serde(default)]
    pub force: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace stop fix-parser
  pyro workspace stop fix-parser --grace-seconds 60
  pyro workspace stop fix-parser --force";

impl Operation for WorkspaceStop {
    const PATH: &'static [&'static str] = &["workspace", "stop"];
    const TOOL: Option<&'static str> = Some("workspace_stop");
    const EFFECT: Effect = Effect::Changes;
    const REPEATABLE: bool = true;
    type Output = WorkspaceSummary;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<WorkspaceSummary> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let grace = Duration::from_secs(self.grace_seconds.get().into());
        let stopped = match self.force {
            true => power::stop_by_force(&place, &context).await?,
            false => power::stop(&place, grace, &context).await?,
        };
        match stopped {
            Stopped::Already | Stopped::Cleanly => {}
            // That is what was asked for.
            Stopped::Killed if self.force => {}
            Stopped::Killed => {
                let warning = format!(
                    "the guest of workspace {} did not go off in time and was killed; \
                     what it had not written to its disk is lost",
                    place.id()
                );
                context.events.emit(Event::Warning(warning)).await;
            }
        }
        WorkspaceSummary::of(&place)
    }
}
