use super::{Condition, ConditionState};
use crate::operation::argument::{Patience, ProcessRef, WorkspaceRef};
use crate::operation::{Answer, Context, Effect, Operation, Page, Streams};
use crate::workspace::{Live, process};
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Wait for the end of a process.
///
/// On the command line the exit code is the process's. Leaving ends nothing.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ProcessWait {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// The process.
    #[arg(value_name = "PROCESS")]
    #[schemars(with = "ProcessRef")]
    pub process_id: ProcessRef,
    /// Meanwhile pass on all that it wrote and writes; in JSON this does nothing.
    #[arg(long)]
    #[serde(default)]
    pub follow: bool,
    /// How many seconds to wait; in JSON 45 if not given, on the command line
    /// for ever.
    #[arg(long, value_name = "N")]
    #[serde(default = "Patience::in_json")]
    #[schemars(with = "Patience")]
    pub wait_seconds: Option<Patience>,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace process wait fix-parser 3f2a9c0d1e4b
  pyro workspace process wait fix-parser 3f2a9c0d1e4b --follow";

/// How a process ended, or that it still runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ProcessWaitAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// The process.
    pub process_id: String,
    /// How it is.
    #[serde(flatten)]
    pub condition: Condition,
}

impl Operation for ProcessWait {
    const PATH: &'static [&'static str] = &["workspace", "process", "wait"];
    const TOOL: Option<&'static str> = Some("process_wait");
    const EFFECT: Effect = Effect::Reads;
    const STREAMS: Streams = Streams::Answer;
    type Output = ProcessWaitAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.process_id.0.to_string())
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ProcessWaitAnswer> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let ProcessRef(id) = self.process_id;
        let patience = self.wait_seconds.map(Patience::duration);
        let exit = match self.follow {
            true => process::follow(&live, id, patience, &context).await?,
            false => process::wait(&live, id, patience, &context).await?,
        };
        let running = || Condition::without_exit(ConditionState::Running);
        Ok(ProcessWaitAnswer {
            workspace_id: live.id().to_string(),
            process_id: id.to_string(),
            condition: exit.map_or_else(running, Condition::ended),
        })
    }
}

impl Answer for ProcessWaitAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        writeln!(page, "{} {}", self.process_id, self.condition.shown())
    }

    fn note(&self) -> Option<String> {
        let runs_on = self.condition.state == ConditionState::Running;
        runs_on.then(|| format!("process {} still runs", self.process_id))
    }

    fn exit_code(&self) -> u8 {
        // As `timeout` says that something took longer than was waited.
        self.condition.exit_code.unwrap_or(124)
    }
}
