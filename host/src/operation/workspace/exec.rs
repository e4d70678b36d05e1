use crate::event::Stream;
use crate::operation::argument::{
    CommandLine, OutputLimit, PathInGuest, Patience, SecretVariables, TimeoutSeconds, Variable,
    Variables, WorkspaceRef,
};
use crate::operation::output::{Collector, HEADINGS, Output, ending};
use crate::operation::{Answer, Context, Creates, Effect, Operation, Page, Streams};
use crate::secret::SecretVariable;
use crate::workspace::exec::{ExecRequest, Execed, Input, Progress, Stay, exec};
use crate::workspace::history::exit_code;
use crate::workspace::{Live, Program};
use crate::{Error, ErrorKind, Pyro, Result};
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
    /// Where to run it in the guest; the environment says if not given.
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
    /// The guest's user to run it as, `USER[:GROUP]`; as the environment says if not given.
    #[arg(long, value_name = "USER")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub user: Option<String>,
    /// Kill everything the program started after so many seconds, also when the
    /// caller has left it; 0 is no limit. 600 if not given, no limit if detached.
    #[arg(long, value_name = "N")]
    #[serde(default)]
    #[schemars(with = "TimeoutSeconds")]
    pub timeout_seconds: Option<TimeoutSeconds>,
    /// Start it and answer at once with its process id.
    #[arg(long, conflicts_with = "yield_seconds")]
    #[serde(default)]
    pub detach: bool,
    /// Answer after so many seconds, with its process id if it still runs; in
    /// JSON 45 if not given, on the command line never.
    #[arg(long, value_name = "N")]
    #[serde(default = "Patience::in_json")]
    #[schemars(with = "Patience")]
    pub yield_seconds: Option<Patience>,
    /// Secrets of the workspace for the program, each as a variable; on the command
    /// line NAME alone gives it its own name.
    #[arg(long, value_name = "NAME[=VARIABLE]")]
    #[serde(default, deserialize_with = "SecretVariables::deserialize")]
    #[schemars(with = "SecretVariables")]
    pub secret_env: Vec<SecretVariable>,
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
       pyro workspace exec [OPTIONS] <WORKSPACE> --shell <LINE>
       pyro workspace exec -it [OPTIONS] <WORKSPACE> [-- <ARG>...]";

const EXAMPLES: &str = "\
Examples:
  pyro workspace exec fix-parser -- ./run-tests --fast
  pyro workspace exec fix-parser --shell 'grep -rn TODO | wc -l'
  id=$(pyro workspace exec fix-parser --detach -- python3 -m http.server)
  tar c . | pyro workspace exec fix-parser -- tar x
  pyro workspace exec -it fix-parser -- vim src/parser.rs

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
            timeout_seconds: None,
            detach: false,
            yield_seconds: None,
            secret_env: Vec::new(),
            keep_stdin: false,
            output_limit_bytes: OutputLimit::default(),
        }
    }

    /// # Errors
    /// When the arguments contradict each other.
    fn stay(&self) -> Result<Stay> {
        let input = if self.keep_stdin { Input::Open } else { Input::Empty };
        let contradiction = |message: &str, hint: &str| {
            Err(Error::new(ErrorKind::InvalidInput, message).hint(hint))
        };
        match self.yield_seconds {
            // In JSON it may be there though nobody gave it.
            patience if self.detach && patience.is_some() && patience != Patience::in_json() => {
                contradiction(
                    "a detached program is not waited for",
                    "leave out one of `detach` and `yield_seconds`",
                )
            }
            _ if self.detach => Ok(Stay::Leave(input)),
            Some(patience) => Ok(Stay::Until(patience.duration(), input)),
            None if self.keep_stdin => contradiction(
                "a program that is waited for to its end reads the caller's input",
                "keep an input open with `--detach` or `--yield-seconds`",
            ),
            None => Ok(Stay::ToTheEnd),
        }
    }

    /// What is started to go on, such as a server, goes on; and whoever sits at its
    /// terminal ends the rest.
    fn timeout(&self, at_terminal: bool) -> Option<Duration> {
        match self.timeout_seconds {
            None if self.detach || at_terminal => None,
            given => given.unwrap_or_default().duration(),
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
    /// Whether nobody stayed with it, and its id is the answer.
    #[serde(skip)]
    pub is_detached: bool,
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
    const EFFECT: Effect = Effect::Destroys;
    const CREATES: Creates = Creates::With("detach");
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
        let (stay, is_detached) = (self.stay()?, self.detach);
        let timeout = self.timeout(context.terminal.is_some());
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let mut env = Variables::resolve(self.env, &pyro.config);
        live.add_secrets(&mut env, &self.secret_env)?;
        let collector = Collector::tap(&mut context.events, self.output_limit_bytes.get());
        let request = ExecRequest {
            line: self.command.line(),
            stay,
            program: Program {
                argv: self.command.clone().into_argv(),
                cwd: self.cwd.map(|PathInGuest(path)| path),
                env,
                user: self.user,
                timeout,
            },
        };
        let command = self.command.without(live.redactor());
        let execed = exec(pyro, &live, request, context).await?;
        let answer = WorkspaceExecAnswer::new(&live, command, execed, collector.finish());
        Ok(WorkspaceExecAnswer { is_detached, ..answer })
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
            is_detached: false,
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
        let room = page.room().saturating_sub(HEADINGS);
        let is_whole = self.output.render(page, room)?;
        match self.sequence.filter(|_| !is_whole) {
            Some(sequence) => writeln!(
                page,
                "all of it: workspace_logs with sequence {sequence}, by offset_bytes"
            ),
            None => Ok(()),
        }
    }

    fn note(&self) -> Option<String> {
        let duration_ms = self.duration_ms.filter(|_| self.timed_out)?;
        Some(format!("the time was over after {duration_ms} ms; everything was killed"))
    }

    fn after_streams(&self) -> Option<(Stream, String)> {
        let id = self.process_id.as_ref()?;
        // Standard output is the program's, unless nobody stayed to hear it.
        Some(match self.is_detached {
            true => (Stream::Stdout, format!("{id}\n")),
            false => (Stream::Stderr, format!("pyro: process {id} runs on\n")),
        })
    }

    fn id(&self) -> Option<String> {
        self.process_id.clone()
    }

    fn exit_code(&self) -> u8 {
        self.exit_code.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::output::Collected;
    use crate::operation::{AnyAnswer as _, Ink};
    use serde_json::{Value, json};

    fn asked(more: Value) -> WorkspaceExec {
        let mut arguments = json!({ "workspace_id": "w", "command": "true" });
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(arguments).unwrap()
    }

    #[test]
    fn what_is_detached_goes_on_unless_a_time_is_given() {
        let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
        assert_eq!(asked(json!({})).timeout(false), minutes(10));
        assert_eq!(asked(json!({ "yield_seconds": 1 })).timeout(false), minutes(10));
        assert_eq!(asked(json!({ "detach": true })).timeout(false), None);
        assert_eq!(
            asked(json!({ "detach": true, "timeout_seconds": 60 })).timeout(false),
            minutes(1)
        );
        assert_eq!(asked(json!({ "timeout_seconds": 0 })).timeout(false), None);
        assert_eq!(asked(json!({})).timeout(true), None);
        assert_eq!(asked(json!({ "timeout_seconds": 60 })).timeout(true), minutes(1));
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(asked(json!({ "detach": true, "yield_seconds": 3 })).stay().is_err());
        assert_eq!(asked(json!({ "detach": true })).stay().unwrap(), Stay::Leave(Input::Empty));
        let mut kept = WorkspaceExec::new("w", ["true"]);
        kept.keep_stdin = true;
        assert!(kept.stay().is_err());
        kept.detach = true;
        assert_eq!(kept.stay().unwrap(), Stay::Leave(Input::Open));
    }

    fn answer(stdout: &[u8], process_id: Option<String>) -> WorkspaceExecAnswer {
        let mut collected = Collected::new(1 << 20);
        collected.push(Stream::Stdout, stdout);
        WorkspaceExecAnswer {
            workspace_id: "0123456789ab".into(),
            environment: "debian:12".into(),
            command: ["true"].into(),
            cwd: "/workspace".into(),
            sequence: Some(7),
            state: ExecState::Running,
            process_id,
            exit_code: Some(0),
            signal: None,
            timed_out: false,
            duration_ms: Some(1),
            output: collected.finish(),
            stdout_cursor: None,
            stderr_cursor: None,
            is_detached: false,
        }
    }

    /// What is between the sizes of an answer and of a text for a model is left
    /// out once, and the text says where it is.
    #[test]
    fn output_that_a_model_is_not_shown_is_pointed_to() {
        let answer = answer(&b"0123456789abcde\n".repeat(3 << 10), None);
        assert!(!answer.to_text(Ink::Plain).contains("workspace_logs"));
        let text = answer.to_text_within(32 << 10);
        assert!(text.len() <= 32 << 10, "{}", text.len());
        let (_, rest) = text.split_once(" bytes left out]").expect("it is cut");
        assert!(rest.ends_with("workspace_logs with sequence 7, by offset_bytes\n"), "{rest}");
    }

    #[test]
    fn standard_output_is_the_programs_while_somebody_hears_it() {
        let yielded = answer(b"", Some("3f2a9c0d1e4b".into()));
        assert!(matches!(Answer::after_streams(&yielded), Some((Stream::Stderr, _))));
        let detached = WorkspaceExecAnswer { is_detached: true, ..yielded };
        let expected = Some((Stream::Stdout, "3f2a9c0d1e4b\n".into()));
        assert_eq!(Answer::after_streams(&detached), expected);
        assert_eq!(Answer::after_streams(&answer(b"", None)), None);
    }
}
