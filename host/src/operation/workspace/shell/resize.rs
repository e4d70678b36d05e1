use super::ShellFacts;
use crate::operation::argument::{Cols, Rows, ShellRef, WorkspaceRef, terminal_size};
use crate::operation::{Context, Effect, Operation};
use crate::workspace::Live;
use crate::workspace::shell::known;
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Make the terminal of a shell larger or smaller.
///
/// What runs in its foreground hears of it.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ShellResize {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// The shell.
    #[arg(value_name = "SHELL")]
    #[schemars(with = "ShellRef")]
    pub shell_id: ShellRef,
    /// How many columns it is to have, 1 to 500.
    #[arg(long, value_name = "N")]
    pub cols: Cols,
    /// How many rows it is to have, 1 to 500.
    #[arg(long, value_name = "N")]
    pub rows: Rows,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace shell resize fix-parser 3f2a9c0d1e4b --cols 200 --rows 50";

impl Operation for ShellResize {
    const PATH: &'static [&'static str] = &["workspace", "shell", "resize"];
    const TOOL: Option<&'static str> = Some("shell_resize");
    const EFFECT: Effect = Effect::Changes;
    const REPEATABLE: bool = true;
    type Output = ShellFacts;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.shell_id.0.to_string())
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ShellFacts> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let size = terminal_size(self.cols, self.rows);
        let resizing = live.agent().resize_shell(self.shell_id.0, size);
        let shell = known(&live, context.unless_cancelled(resizing).await)?;
        Ok(ShellFacts::of(&live, &shell))
    }
}
