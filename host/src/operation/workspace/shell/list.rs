use super::ShellFacts;
use crate::operation::argument::WorkspaceRef;
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::Live;
use crate::{Pyro, Result};
use anstyle::Style;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// List the shells of a workspace.
///
/// Those that have exited come first, then what runs. Up to 32 run at a time; of
/// those that exited the last 16 stay until they are closed.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ShellList {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace shell list fix-parser
  pyro workspace shell list fix-parser --json | jq -r '.shells[].shell_id'";

/// The shells of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ShellListAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// How many there are.
    pub count: usize,
    /// Each of them.
    pub shells: Vec<ShellFacts>,
}

impl Operation for ShellList {
    const PATH: &'static [&'static str] = &["workspace", "shell", "list"];
    const TOOL: Option<&'static str> = Some("shell_list");
    const EFFECT: Effect = Effect::Reads;
    type Output = ShellListAnswer;

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ShellListAnswer> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let shells = context.unless_cancelled(live.agent().shells()).await?;
        let workspace_id = live.id().to_string();
        let facts = |shell| ShellFacts::of(&live, shell);
        let shells: Vec<_> = shells.iter().map(facts).collect();
        Ok(ShellListAnswer { count: shells.len(), shells, workspace_id })
    }
}

impl Answer for ShellListAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        if self.shells.is_empty() {
            return writeln!(page, "No shells.");
        }
        let bold = Style::new().bold();
        let heading = ["SHELL", "STATE", "OPENED", "SIZE", "DIRECTORY"];
        let heading = heading.map(|cell| page.paint(bold, cell));
        let rows = self.shells.iter().map(|shell| {
            [
                shell.shell_id.clone(),
                shell.shown(),
                shell.shown_start(),
                format!("{}x{}", shell.cols, shell.rows),
                shell.cwd.clone(),
            ]
        });
        let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
        page.table(&rows)
    }
}
