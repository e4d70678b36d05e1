use crate::operation::argument::WorkspaceRef;
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::find::find;
use crate::workspace::power;
use crate::{ErrorKind, Pyro, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Delete a workspace with everything in it.
///
/// A running one is killed first. There is no way back.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct WorkspaceDelete {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// Take it as done when there is no such workspace.
    #[arg(long)]
    #[serde(default)]
    pub ignore_missing: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace delete fix-parser
  pyro workspace delete 4f2a --ignore-missing";

/// What was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WorkspaceDeleted {
    /// The workspace's id, or what it was called when there was none.
    pub workspace_id: String,
    /// Whether there was one.
    pub deleted: bool,
    /// Why: `explicit_delete`, or `not_found`.
    pub reason: String,
}

impl WorkspaceDelete {
    /// A workspace that must be there.
    pub fn new(workspace: impl Into<WorkspaceRef>) -> Self {
        Self { workspace_id: workspace.into(), ignore_missing: false }
    }
}

impl Operation for WorkspaceDelete {
    const PATH: &'static [&'static str] = &["workspace", "delete"];
    const TOOL: Option<&'static str> = Some("workspace_delete");
    const EFFECT: Effect = Effect::Destroys;
    const REPEATABLE: bool = true;
    type Output = WorkspaceDeleted;

    async fn run(self, pyro: &Pyro, context: Context) -> Result<WorkspaceDeleted> {
        let deleting = async {
            let place = find(&pyro.config, self.workspace_id.as_str())?;
            power::delete(&place, &context).await?;
            Ok(place.id().to_string())
        };
        let deleted: Result<String> = deleting.await;
        match deleted {
            Ok(workspace_id) => Ok(WorkspaceDeleted {
                workspace_id,
                deleted: true,
                reason: "explicit_delete".into(),
            }),
            Err(error) if self.ignore_missing && error.kind() == ErrorKind::NotFound => {
                Ok(WorkspaceDeleted {
                    workspace_id: self.workspace_id.to_string(),
                    deleted: false,
                    reason: "not_found".into(),
                })
            }
            Err(error) => Err(error),
        }
    }
}

impl Answer for WorkspaceDeleted {
    fn render(&self, page: &mut Page) -> fmt::Result {
        match self.deleted {
            true => writeln!(page, "Deleted workspace: {}", self.workspace_id),
            false => writeln!(page, "There was no workspace {}", self.workspace_id),
        }
    }
}
