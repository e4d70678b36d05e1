use super::ShellFacts;
use crate::operation::argument::{ShellRef, WorkspaceRef};
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::Live;
use crate::workspace::shell::known;
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Close a shell, and end what runs in it.
///
/// It is hung up as a terminal that is closed; what does not end within two
/// seconds is killed, also what runs in its background. What came out of it is
/// forgotten.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ShellClose {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// The shell.
    #[arg(value_name = "SHELL")]
    #[schemars(with = "ShellRef")]
    pub shell_id: ShellRef,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace shell close fix-parser 3f2a9c0d1e4b";

/// The shell is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ShellCloseAnswer {
    /// The shell, as it ended.
    #[serde(flatten)]
    pub shell: ShellFacts,
    /// Always true.
    pub closed: bool,
}

impl Operation for ShellClose {
    const PATH: &'static [&'static str] = &["workspace", "shell", "close"];
    const TOOL: Option<&'static str> = Some("shell_close");
    const EFFECT: Effect = Effect::Destroys;
    type Output = ShellCloseAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.shell_id.0.to_string())
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ShellCloseAnswer> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let closing = live.agent().close_shell(self.shell_id.0);
        let shell = known(&live, context.unless_cancelled(closing).await)?;
        let shell = ShellFacts::of(&live, &shell);
        Ok(ShellCloseAnswer { shell, closed: true })
    }
}

impl Answer for ShellCloseAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        writeln!(page, "closed shell {} ({})", self.shell.shell_id, self.shell.shown())
    }
}
