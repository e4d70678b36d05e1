use super::ShellFacts;
use crate::operation::argument::{ShellRef, SignalRef, WorkspaceRef};
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::Live;
use crate::workspace::shell::known;
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Send a signal to what runs in the foreground of a shell.
///
/// It reaches the job that Ctrl-C would reach, and the shell itself only when
/// there is none.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ShellSignal {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// The shell.
    #[arg(value_name = "SHELL")]
    #[schemars(with = "ShellRef")]
    pub shell_id: ShellRef,
    /// The signal by its name or number: INT, TERM, KILL, HUP, 10.
    #[arg(long, value_name = "SIGNAL", default_value_t = SignalRef::INTERRUPT)]
    #[serde(default = "interrupt")]
    pub signal: SignalRef,
}

fn interrupt() -> SignalRef {
    SignalRef::INTERRUPT
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace shell signal fix-parser 3f2a9c0d1e4b
  pyro workspace shell signal fix-parser 3f2a9c0d1e4b --signal KILL";

/// The signal was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ShellSignalAnswer {
    /// The shell.
    #[serde(flatten)]
    pub shell: ShellFacts,
    /// The signal.
    #[schemars(with = "SignalRef")]
    pub signal: SignalRef,
}

impl Operation for ShellSignal {
    const PATH: &'static [&'static str] = &["workspace", "shell", "signal"];
    const TOOL: Option<&'static str> = Some("shell_signal");
    const EFFECT: Effect = Effect::Destroys;
    type Output = ShellSignalAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(format!("{} {}", self.shell_id.0, self.signal))
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ShellSignalAnswer> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let signalling = live.agent().signal_shell(self.shell_id.0, self.signal.number());
        let shell = known(&live, context.unless_cancelled(signalling).await)?;
        let shell = ShellFacts::of(&live, &shell);
        Ok(ShellSignalAnswer { shell, signal: self.signal })
    }
}

impl Answer for ShellSignalAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        writeln!(page, "sent {} to shell {}", self.signal, self.shell.shell_id)
    }
}
