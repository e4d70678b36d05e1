use super::summary::shown_time;
use crate::agent::transfer::blocking;
use crate::error::{Error, ErrorKind};
use crate::event::Stream;
use crate::operation::argument::{Number, WorkspaceRef, maybe_count};
use crate::operation::output::{Output, ending};
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::secret::Redactor;
use crate::workspace::Place;
use crate::workspace::find::find;
use crate::workspace::history::{Ending, Ends, Found, History, Range};
use crate::{Pyro, Result};
use anstyle::Style;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// How many commands an answer has.
pub type EntryLimit = Number<1, 20, 1000>;

/// How much of a command's output an answer has, in bytes for each stream. The
/// default lets twenty commands not flood a model.
pub type LogLimit = Number<0, { 4 * 1024 }, { 16 * 1024 * 1024 }>;

/// The most output of one answer, whatever is asked for: what a JSON document can
/// bear.
const OUTPUT_MAX: usize = 32 << 20;

/// Room for what stands around a command's output.
const ENTRY_HEADINGS: usize = 256;

/// Show what was run in a workspace, and what it wrote.
///
/// The newest commands, oldest first, each with the beginning and the end of
/// its output; page with `before` and `after`. `sequence` shows one, with
/// `offset_bytes` from a byte on.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct WorkspaceLogs {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// Only this command, by its number.
    #[arg(long, value_name = "N")]
    #[serde(default, deserialize_with = "maybe_count")]
    #[schemars(with = "u64")]
    pub sequence: Option<u64>,
    /// Only commands before this number.
    #[arg(long, value_name = "N")]
    #[serde(default, deserialize_with = "maybe_count")]
    #[schemars(with = "u64")]
    pub before: Option<u64>,
    /// Only commands after this number; then the oldest of them.
    #[arg(long, value_name = "N")]
    #[serde(default, deserialize_with = "maybe_count")]
    #[schemars(with = "u64")]
    pub after: Option<u64>,
    /// How many commands to show, 1 to 1000.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub limit: EntryLimit,
    /// How many bytes of each command's stdout, and of its stderr, to show; all
    /// together at most 32 MiB.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub output_limit_bytes: LogLimit,
    /// Show the output from this byte on, instead of both its ends.
    #[arg(long, value_name = "N", requires = "sequence")]
    #[serde(default, deserialize_with = "maybe_count")]
    #[schemars(with = "u64")]
    pub offset_bytes: Option<u64>,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace logs fix-parser
  pyro workspace logs fix-parser --before 40 --limit 10
  pyro workspace logs fix-parser --sequence 7 --output-limit-bytes 1000000";

/// Commands that were run in a workspace, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WorkspaceLogsAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// How many commands are in this answer.
    pub count: usize,
    /// Each of them.
    pub entries: Vec<LogEntry>,
}

/// A command that was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LogEntry {
    /// Its number.
    pub sequence: u64,
    /// The command as one line.
    pub command: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Where it ran.
    pub cwd: String,
    /// As whom.
    pub user: String,
    /// When it was asked for, RFC 3339 in UTC; null when its record is damaged.
    #[schemars(with = "Option<String>")]
    pub started_at: Option<Timestamp>,
    /// How far it came.
    pub state: LogState,
    /// Its id, when it outlives its caller; process_poll tells how it is.
    pub process_id: Option<String>,
    /// Its exit code; 124 after a time-out, 128+N after signal N.
    pub exit_code: Option<u8>,
    /// The number of the signal that ended it.
    pub signal: Option<u8>,
    /// Whether it was killed because its time was over.
    pub timed_out: bool,
    /// How long it ran, in milliseconds.
    pub duration_ms: Option<u64>,
    /// Why there is no exit code or no record; null when all is well.
    pub problem: Option<String>,
    /// What it wrote.
    #[serde(flatten)]
    pub output: Output,
    /// How many bytes it wrote to its standard output.
    pub stdout_bytes: u64,
    /// How many bytes it wrote to its standard error.
    pub stderr_bytes: u64,
    /// Where the standard output shown begins.
    pub stdout_offset_bytes: u64,
    /// Where the standard error shown begins.
    pub stderr_offset_bytes: u64,
}

/// How far a command came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogState {
    /// Its caller waits for it.
    Running,
    /// It has ended.
    Exited,
    /// It went on without its caller, and nobody has asked for its end since.
    Detached,
    /// Its caller was killed before it could say how it ended.
    Unfinished,
    /// The machine was lost, or the caller broke off.
    Lost,
    /// Its record cannot be read.
    Damaged,
}

impl LogState {
    /// Of an entry that could be read.
    pub(super) fn of(found: &Found) -> Self {
        match found.record.ending {
            Ending::Open if found.is_being_recorded => Self::Running,
            Ending::Open if found.record.process_id.is_some() => Self::Detached,
            Ending::Open => Self::Unfinished,
            Ending::Ended { .. } => Self::Exited,
            Ending::Lost { .. } => Self::Lost,
        }
    }

    /// As JSON has it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Detached => "detached",
            Self::Unfinished => "unfinished",
            Self::Lost => "lost",
            Self::Damaged => "damaged",
        }
    }
}

impl Operation for WorkspaceLogs {
    const PATH: &'static [&'static str] = &["workspace", "logs"];
    const TOOL: Option<&'static str> = Some("workspace_logs");
    const EFFECT: Effect = Effect::Reads;
    type Output = WorkspaceLogsAnswer;

    async fn run(self, pyro: &Pyro, context: Context) -> Result<WorkspaceLogsAnswer> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let workspace_id = place.id().to_string();
        let entries = context.unless_cancelled(blocking(move || self.entries(&place))).await?;
        Ok(WorkspaceLogsAnswer { workspace_id, count: entries.len(), entries })
    }
}

impl WorkspaceLogs {
    fn entries(&self, place: &Place) -> Result<Vec<LogEntry>> {
        let history = History::within(place.path());
        let found = match self.sequence {
            Some(sequence) if history.sequences()?.contains(&sequence) => {
                vec![(sequence, history.entry(sequence))]
            }
            Some(sequence) => {
                let message = format!("there is no command {sequence}");
                return Err(Error::new(ErrorKind::NotFound, message)
                    .hint(format!("`pyro workspace logs {}` shows those there are", place.id())));
            }
            None => {
                let limit = self.limit.get() as usize;
                history.entries(Range { before: self.before, after: self.after, limit })?
            }
        };
        // Written down without secrets; some may have been set since.
        let redactor = place.redactor()?;
        let look = Look {
            redactor: &redactor,
            limit: share(self.output_limit_bytes, found.len()),
            offset: self.offset_bytes.filter(|_| self.sequence.is_some()),
        };
        let entries = found.into_iter().map(|(sequence, found)| match found {
            Ok(found) => look.at(found),
            // It is in nobody else's way.
            Err(error) => LogEntry::damaged(sequence, &error),
        });
        Ok(entries.collect())
    }
}

/// How much of each stream there is room for in an answer of so many commands.
fn share(wanted: LogLimit, commands: usize) -> usize {
    (wanted.get() as usize).min(OUTPUT_MAX / (2 * commands.max(1)))
}

/// What of an entry's output is wanted.
#[derive(Clone, Copy)]
struct Look<'a> {
    redactor: &'a Redactor,
    limit: usize,
    offset: Option<u64>,
}

/// A part of a stream, and where it begins.
type Part = (Ends, u64);

impl Look<'_> {
    fn at(self, found: Found) -> LogEntry {
        let streams = self
            .part(&found, Stream::Stdout)
            .and_then(|stdout| Ok((stdout, self.part(&found, Stream::Stderr)?)));
        let sequence = found.record.sequence;
        match streams {
            Ok((stdout, stderr)) => LogEntry::of(found, stdout, stderr, self.redactor),
            Err(error) => LogEntry::damaged(sequence, &error),
        }
    }

    fn part(self, found: &Found, stream: Stream) -> Result<Part> {
        let recorded = found.output(stream)?;
        let unreadable = |error| Error::io(format!("cannot read the {stream} of a command"), error);
        let Some(offset) = self.offset else {
            return Ok((self.told(recorded.ends(self.limit).map_err(unreadable)?), 0));
        };
        let (from, head) = recorded.slice(offset, self.limit).map_err(unreadable)?;
        let total = head.len() as u64;
        Ok((self.told(Ends { head, tail: Vec::new(), total }), from))
    }

    /// What is left out of the middle stays as much as it was.
    fn told(self, ends: Ends) -> Ends {
        let before = (ends.head.len() + ends.tail.len()) as u64;
        let (head, tail) = (self.redactor.bytes(ends.head), self.redactor.bytes(ends.tail));
        let total = ends.total.saturating_sub(before) + (head.len() + tail.len()) as u64;
        Ends { head, tail, total }
    }
}

impl LogEntry {
    fn of(found: Found, stdout: Part, stderr: Part, redactor: &Redactor) -> Self {
        let bytes = |stream| found.output(stream).map_or(0, |recorded| recorded.extent().bytes);
        let (stdout_bytes, stderr_bytes) = (bytes(Stream::Stdout), bytes(Stream::Stderr));
        let (state, record) = (LogState::of(&found), found.record);
        let entry = Self {
            sequence: record.sequence,
            command: redactor.string(record.command),
            argv: record.argv.into_iter().map(|word| redactor.string(word)).collect(),
            cwd: redactor.string(record.cwd),
            user: record.user,
            started_at: Some(record.started_at),
            state,
            process_id: record.process_id,
            exit_code: None,
            signal: None,
            timed_out: false,
            duration_ms: None,
            problem: None,
            output: Output::of_recorded(stdout.0, stderr.0),
            stdout_bytes,
            stderr_bytes,
            stdout_offset_bytes: stdout.1,
            stderr_offset_bytes: stderr.1,
        };
        match record.ending {
            Ending::Open if state != LogState::Unfinished => entry,
            Ending::Open => Self {
                problem: Some("its caller was killed before it could say how it ended".into()),
                ..entry
            },
            Ending::Ended { exit_code, signal, timed_out, duration_ms } => Self {
                exit_code: Some(exit_code),
                signal,
                timed_out,
                duration_ms: Some(duration_ms),
                ..entry
            },
            Ending::Lost { kind: _, reason } => {
                Self { problem: Some(redactor.string(reason)), ..entry }
            }
        }
    }

    fn damaged(sequence: u64, error: &Error) -> Self {
        Self {
            sequence,
            command: String::new(),
            argv: Vec::new(),
            cwd: String::new(),
            user: String::new(),
            started_at: None,
            state: LogState::Damaged,
            process_id: None,
            exit_code: None,
            signal: None,
            timed_out: false,
            duration_ms: None,
            problem: Some(error.chain()),
            output: Output::of_recorded(Ends::default(), Ends::default()),
            stdout_bytes: 0,
            stderr_bytes: 0,
            stdout_offset_bytes: 0,
            stderr_offset_bytes: 0,
        }
    }

    /// Whether its output goes on after what is here.
    fn is_part(&self) -> bool {
        let (stdout, stderr) = self.output.lengths();
        self.stdout_offset_bytes.saturating_add(stdout) < self.stdout_bytes
            || self.stderr_offset_bytes.saturating_add(stderr) < self.stderr_bytes
    }

    fn ending(&self) -> String {
        match (self.state, self.exit_code, self.duration_ms) {
            (LogState::Exited, Some(code), Some(duration_ms)) => {
                format!("{} after {duration_ms} ms", ending(code, self.signal, self.timed_out))
            }
            (LogState::Running | LogState::Exited, ..) => "running".into(),
            (LogState::Detached, ..) => {
                format!("detached as process {}", self.process_id.as_deref().unwrap_or_default())
            }
            (LogState::Unfinished | LogState::Lost | LogState::Damaged, ..) => {
                self.problem.clone().unwrap_or_default()
            }
        }
    }
}

impl Answer for WorkspaceLogsAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        if self.entries.is_empty() {
            return writeln!(page, "No commands.");
        }
        let share = page.room() / self.entries.len();
        for entry in &self.entries {
            let when = entry.started_at.map(shown_time).unwrap_or_default();
            let heading = format!("#{} {when} {}", entry.sequence, entry.cwd);
            writeln!(page, "{}", page.paint(Style::new().bold(), heading.trim_end()))?;
            let command = &entry.command[..entry.command.floor_char_boundary(share / 4)];
            let cut = if command.len() < entry.command.len() { " [...]" } else { "" };
            writeln!(page, "$ {command}{cut}")?;
            let room = (share - command.len()).saturating_sub(ENTRY_HEADINGS);
            let is_whole = entry.output.render(page, room)?;
            if !is_whole || entry.is_part() {
                let LogEntry { sequence, stdout_bytes, stderr_bytes, .. } = entry;
                writeln!(
                    page,
                    "[stdout {stdout_bytes} bytes, stderr {stderr_bytes} bytes in all: ask for \
                     sequence {sequence} by offset_bytes]"
                )?;
            }
            writeln!(page, "{}", entry.ending())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_the_output_of_an_answer_is_bounded() {
        let most: LogLimit = "16777216".parse().expect("in bounds");
        for commands in [1, 2, 20, 1000] {
            assert!(share(most, commands) * 2 * commands <= OUTPUT_MAX, "{commands}");
        }
        assert_eq!(share(most, 1), 16 << 20);
        assert_eq!(share(LogLimit::default(), 1000), 4 << 10);
    }
}
