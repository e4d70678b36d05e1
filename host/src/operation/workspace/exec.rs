use crate::operation::argument::{
    CommandLine, OutputLimit, PathInGuest, Patience, TimeoutSeconds, Variable, Variables,
    WorkspaceRef,
};
use crate::operation::output::{Collector, Output, ending};
use crate::operation::{Answer, Context, Effect, Operation, Page, Streams};
use crate::workspace::exec::{ExecRequest, Execed, Input, Progress, Stay, exec};
use crate::workspace::history::exit_code;
use crate::workspace::{Live, Program};
use crate::{Pyro, Result};
use pyro_protocol::GuestPath;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use std::time::Duration;

/// Run a command in a workspace.
///
/// A program that fails is an answer: look at its exit code (124 timed out,
/// 128+N signal N). One that takes longer than `yield_seconds` goes on as a
/// process; poll it with process_poll. An error means it never ran, or says
/// that it may have. It is never run twice.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(override_usage = USAGE, after_help = EXAMPLES)]
pub struct WorkspaceExec {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// What to run: a string is a line for the guest's shell, an array is a
    /// program and its arguments.
    #[command(flatten)]
    pub command: CommandLine,
    /// Where to run it in the guest, `/workspace` if not given.
    #[arg(long, value_name = "DIR")]
    #[serde(default)]
    #[schemars(with = "PathInGuest")]
    pub cwd: Option<PathInGuest>,
    /// Variables for the program, on top of the guest's own; on the command line
    /// NAME alone passes on the caller's value.
    #[arg(long, value_name = "NAME[=VALUE]")]
    #[serde(default, deserialize_with = "Variables::deserialize")]
    #[schemars(with = "Variables")]
    pub env: Vec<Variable>,
    /// The guest's user to run it as, `USER[:GROUP]`; root if not given.
    #[arg(long, value_name = "USER")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub user: Option<String>,
    /// Kill everything the program started after so many seconds; 0 is no limit.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub timeout_seconds: TimeoutSeconds,
    /// Start it and answer at once with its process id.
    #[arg(long)]
    #[serde(default)]
    pub detach: bool,
    /// Answer after so many seconds, with its process id if it still runs; in
    /// JSON 45 if not given, on the command line never.
    #[arg(long, value_name = "N")]
    #[serde(default = "Patience::in_json")]
    #[schemars(with = "Patience")]
    pub yield_seconds: Option<Patience>,
    /// Keep its input open for `process write`; only for a program that is
    /// detached or yields. Else it reads nothing.
    #[arg(long)]
    #[serde(default)]
    pub keep_stdin: bool,
    /// How many bytes of stdout, and of stderr, an answer in JSON holds: the
    /// first half and the last half of what was written.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub output_limit_bytes: OutputLimit,
}

const USAGE: &str = "\
pyro workspace exec [OPTIONS] <WORKSPACE> -- <ARG>...
       pyro workspace exec [OPTIONS] <WORKSPACE> --shell <LINE>";

const EXAMPLES: &str = "\
Examples:
  pyro workspace exec fix-parser -- make test
  pyro workspace exec fix-parser --shell 'grep -rn TODO | wc -l'
  pyro workspace exec fix-parser --detach -- python3 -m http.server
  tar c . | pyro workspace exec fix-parser -- tar x

Exit codes: the program's own; 124 timed out, 125 pyro failed, 126 not
executable, 127 not found, 128+N killed by signal N, 2 wrong usage.";

impl WorkspaceExec {
    /// A program and its arguments in a workspace, everything else by default;
    /// the caller stays to its end.
    pub fn new(workspace: impl Into<WorkspaceRef>, command: impl Into<CommandLine>) -> Self {
        Self {
            workspace_id: workspace.into(),
            command: command.into(),
            cwd: None,
            env: Vec::new(),
            user: None,
            timeout_seconds: TimeoutSeconds::default(),
            detach: false,
            yield_seconds: None,
            keep_stdin: false,
            output_limit_bytes: OutputLimit::default(),
        }
    }

    fn stay(&self) -> Stay {
        let input = if self.keep_stdin { Input::Open } else { Input::Empty };
        match self.yield_seconds {
            _ if self.detach => Stay::Leave(input),
            Some(patience) => Stay::Until(patience.duration(), input),
            None => Stay::ToTheEnd,
        }
    }
}

/// How far the program came, what it wrote, what it took.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct WorkspaceExecAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// The environment it was made from.
    pub environment: String,
    /// The command as it was asked for.
    #[schemars(with = "CommandLine")]
    pub command: CommandLine,
    /// Where it runs.
    pub cwd: String,
    /// Its number in the history, for workspace_logs; null when that could not
    /// be written.
    pub sequence: Option<u64>,
    /// Whether it has ended.
    pub state: ExecState,
    /// Its id while it goes on, for process_poll.
    pub process_id: Option<String>,
    /// The program's exit code; 124 after a time-out, 128+N after signal N; null
    /// while it runs.
    pub exit_code: Option<u8>,
    /// The number of the signal that ended the program.
    pub signal: Option<u8>,
    /// Whether the program was killed because its time was over.
    pub timed_out: bool,
    /// How long the program ran, in milliseconds; null while it runs.
    pub duration_ms: Option<u64>,
    /// What the program wrote so far.
    #[serde(flatten)]
    pub output: Output,
    /// Where process_poll goes on in its standard output.
    pub stdout_cursor: Option<u64>,
    /// Where process_poll goes on in its standard error.
    pub stderr_cursor: Option<u64>,
}

/// Whether a program has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecState {
    /// It goes on.
    Running,
    /// It has.
    Exited,
}

impl Operation for WorkspaceExec {
    const PATH: &'static [&'static str] = &["workspace", "exec"];
    const TOOL: Option<&'static str> = Some("workspace_exec");
    const EFFECT: Effect = Effect::Changes;
    const STREAMS: Streams = Streams::Program;
    type Output = WorkspaceExecAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.command.line())
    }

    fn guest_path(&self) -> Option<&GuestPath> {
        self.cwd.as_ref().map(|path| &path.0)
    }

    async fn run(self, pyro: &Pyro, mut context: Context) -> Result<WorkspaceExecAnswer> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let collector = Collector::tap(&mut context.events, self.output_limit_bytes.get());
        let request = ExecRequest {
            line: self.command.line(),
            stay: self.stay(),
            program: Program {
                argv: self.command.clone().into_argv(),
                cwd: self.cwd.map(|PathInGuest(path)| path),
                env: self.env.into_iter().filter_map(|v| v.resolve(&pyro.config)).collect(),
                user: self.user,
                timeout: match self.timeout_seconds.get() {
                    0 => None,
                    seconds => Some(Duration::from_secs(seconds.into())),
                },
            },
        };
        let execed = exec(pyro, &live, request, context).await?;
        Ok(WorkspaceExecAnswer::new(&live, self.command, execed, collector.finish()))
    }
}

impl WorkspaceExecAnswer {
    fn new(live: &Live, command: CommandLine, execed: Execed, output: Output) -> Self {
        let answer = Self {
            workspace_id: live.id().to_string(),
            environment: live.record().environment.clone(),
            command,
            cwd: execed.cwd,
            sequence: execed.sequence,
            state: ExecState::Running,
            process_id: None,
            exit_code: None,
            signal: None,
            timed_out: false,
            duration_ms: None,
            output,
            stdout_cursor: None,
            stderr_cursor: None,
        };
        match execed.progress {
            Progress::Running { id, stdout_cursor, stderr_cursor } => Self {
                process_id: Some(id.to_string()),
                stdout_cursor: Some(stdout_cursor),
                stderr_cursor: Some(stderr_cursor),
                ..answer
            },
            Progress::Ended(exit) => {
                let (exit_code, signal, timed_out) = exit_code(exit.outcome);
                Self {
                    state: ExecState::Exited,
                    exit_code: Some(exit_code),
                    signal,
                    timed_out,
                    duration_ms: Some(exit.took_us / 1000),
                    ..answer
                }
            }
        }
    }
}

impl Answer for WorkspaceExecAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        match (&self.process_id, self.exit_code, self.duration_ms) {
            (_, Some(code), Some(duration_ms)) => {
                let ending = ending(code, self.signal, self.timed_out);
                writeln!(page, "{ending} after {duration_ms} ms")?;
            }
            (id, ..) => {
                let id = id.as_deref().unwrap_or_default();
                writeln!(page, "process {id} runs on")?;
                if let (Some(stdout), Some(stderr)) = (self.stdout_cursor, self.stderr_cursor) {
                    writeln!(page, "poll it from stdout_cursor {stdout}, stderr_cursor {stderr}")?;
                }
            }
        }
        self.output.render(page)?;
        let is_cut = self.output.stdout_omitted_bytes + self.output.stderr_omitted_bytes > 0;
        match self.sequence.filter(|_| is_cut) {
            Some(sequence) => writeln!(page, "all of it: workspace_logs, sequence {sequence}"),
            None => Ok(()),
        }
    }

    fn note(&self) -> Option<String> {
        let duration_ms = self.duration_ms.filter(|_| self.timed_out)?;
        Some(format!("the time was over after {duration_ms} ms; everything was killed"))
    }

    fn after_streams(&self) -> Option<String> {
        self.process_id.as_ref().map(|id| format!("{id}\n"))
    }

    fn id(&self) -> Option<String> {
        self.process_id.clone()
    }

    fn exit_code(&self) -> u8 {
        self.exit_code.unwrap_or(0)
    }
}
