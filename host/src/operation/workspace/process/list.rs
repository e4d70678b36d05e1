use super::Condition;
use crate::guest_text;
use crate::operation::argument::WorkspaceRef;
use crate::operation::workspace::summary::shown_time;
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::secret::Redactor;
use crate::workspace::Live;
use crate::workspace::history::quoted;
use crate::{Pyro, Result};
use anstyle::Style;
use jiff::Timestamp;
use pyro_protocol::kept::KeptProcess;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// How much of a command a list shows.
const COMMAND_SHOWN: usize = 200;

/// List the processes of a workspace that outlive their callers.
///
/// Those that have ended come first, then what runs. The guest remembers the
/// last 256 that ended.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ProcessList {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace process list fix-parser
  pyro workspace process list fix-parser --json | jq -r '.processes[].process_id'";

/// The processes of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ProcessListAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// How many there are.
    pub count: usize,
    /// Each of them.
    pub processes: Vec<ListedProcess>,
}

/// A process in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ListedProcess {
    /// Its id, for the other process tools.
    pub process_id: String,
    /// The beginning of its command.
    pub command: String,
    /// When it was started by the guest's clock, RFC 3339 in UTC.
    #[schemars(with = "Option<String>")]
    pub started_at: Option<Timestamp>,
    /// How it is.
    #[serde(flatten)]
    pub condition: Condition,
    /// How many bytes it has written to its standard output.
    pub stdout_bytes: u64,
    /// How many bytes it has written to its standard error.
    pub stderr_bytes: u64,
}

impl ListedProcess {
    fn of(process: KeptProcess, redactor: &Redactor) -> Self {
        let argv = process.argv.into_iter().map(|word| redactor.bytes(word.0));
        let argv: Vec<_> = argv.collect();
        Self {
            process_id: process.id.to_string(),
            command: guest_text::escaped(&quoted(argv.iter().map(Vec::as_slice)), COMMAND_SHOWN),
            started_at: Timestamp::from_nanosecond(process.started_at_ns.into()).ok(),
            condition: Condition::of(process.state),
            stdout_bytes: process.stdout_bytes,
            stderr_bytes: process.stderr_bytes,
        }
    }
}

impl Operation for ProcessList {
    const PATH: &'static [&'static str] = &["workspace", "process", "list"];
    const TOOL: Option<&'static str> = Some("process_list");
    const EFFECT: Effect = Effect::Reads;
    type Output = ProcessListAnswer;

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ProcessListAnswer> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let processes = context.unless_cancelled(live.agent().kept()).await?;
        let processes: Vec<_> = processes
            .into_iter()
            .map(|process| ListedProcess::of(process, live.redactor()))
            .collect();
        let (workspace_id, count) = (live.id().to_string(), processes.len());
        Ok(ProcessListAnswer { workspace_id, count, processes })
    }
}

impl Answer for ProcessListAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        if self.processes.is_empty() {
            return writeln!(page, "No processes.");
        }
        let bold = Style::new().bold();
        let heading = ["PROCESS", "STATE", "STARTED", "COMMAND"];
        let heading = heading.map(|cell| page.paint(bold, cell));
        let rows = self.processes.iter().map(|process| {
            [
                process.process_id.clone(),
                process.condition.shown(),
                process.started_at.map_or_else(|| "-".to_owned(), shown_time),
                process.command.clone(),
            ]
        });
        let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
        page.table(&rows)
    }
}
