use crate::operation::argument::{ProcessRef, SignalRef, WorkspaceRef};
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::{Live, process};
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Send a signal to a process and its group.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ProcessSignal {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// The process.
    #[arg(value_name = "PROCESS")]
    #[schemars(with = "ProcessRef")]
    pub process_id: ProcessRef,
    /// The signal by its name or number: TERM, INT, KILL, HUP, 10.
    #[arg(long, value_name = "SIGNAL", default_value_t)]
    #[serde(default)]
    pub signal: SignalRef,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace process signal fix-parser 3f2a9c0d1e4b
  pyro workspace process signal fix-parser 3f2a9c0d1e4b --signal KILL";

/// The signal was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ProcessSignalAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// The process.
    pub process_id: String,
    /// The signal.
    #[schemars(with = "SignalRef")]
    pub signal: SignalRef,
}

impl Operation for ProcessSignal {
    const PATH: &'static [&'static str] = &["workspace", "process", "signal"];
    const TOOL: Option<&'static str> = Some("process_signal");
    const EFFECT: Effect = Effect::Destroys;
    type Output = ProcessSignalAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(format!("{} {}", self.process_id.0, self.signal))
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ProcessSignalAnswer> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let ProcessRef(id) = self.process_id;
        let signalling = live.agent().signal(id, self.signal.number());
        let signalled = context.unless_cancelled(signalling).await;
        process::forgotten(&live, id, signalled)?;
        Ok(ProcessSignalAnswer {
            workspace_id: live.id().to_string(),
            process_id: id.to_string(),
            signal: self.signal,
        })
    }
}

impl Answer for ProcessSignalAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        writeln!(page, "sent {} to process {}", self.signal, self.process_id)
    }
}
