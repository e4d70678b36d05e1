use super::ShellFacts;
use crate::event::{Event, Stream};
use crate::operation::argument::{Number, ShellRef, WorkspaceRef, whole};
use crate::operation::output::{Encoding, HEADINGS};
use crate::operation::workspace::process::{Piece, PollSeconds};
use crate::operation::{Answer, Context, Effect, Operation, Page, Streams};
use crate::workspace::Live;
use crate::workspace::shell::{Looked, look, read};
use crate::{Pyro, Result};
use pyro_protocol::kept::SLICE_MAX;
use pyro_protocol::shell::{ReadShell, ReadUntil};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// How many bytes an answer has.
pub type ReadLimit = Number<1, { 64 * 1024 }, SLICE_MAX>;

/// How long is silence.
pub type IdleMs = Number<1, 500, 10_000>;

/// How long to wait for silence in all, unless the caller says otherwise: a
/// build that says something every second is not waited for longer than a
/// client waits for an answer.
const WAIT_SECONDS: u32 = 30;

/// Read what came out of a shell.
///
/// Give next_cursor of one answer as cursor of the next: it counts bytes and
/// never skips any. With `plain` you see what a person would see: the lines that
/// are new or changed since the cursor, or the screen of a full-screen program.
/// With `wait_for_idle_ms` it waits until the shell is silent.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ShellRead {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// The shell.
    #[arg(value_name = "SHELL")]
    #[schemars(with = "ShellRef")]
    pub shell_id: ShellRef,
    /// The first byte wanted.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default, deserialize_with = "whole")]
    pub cursor: u64,
    /// How many bytes to answer with at most, 1 to 262144.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub max_bytes: ReadLimit,
    /// Render it as a terminal would, without escape sequences.
    #[arg(long)]
    #[serde(default)]
    pub plain: bool,
    /// Wait until nothing has come out for so many milliseconds, 1 to 10000.
    #[arg(long, value_name = "N")]
    #[serde(default)]
    #[schemars(with = "IdleMs")]
    pub wait_for_idle_ms: Option<IdleMs>,
    /// How many seconds to wait in all: for silence, 30 if not given; without
    /// `wait_for_idle_ms` for anything to come out, 0 if not given.
    #[arg(long, value_name = "N")]
    #[serde(default)]
    #[schemars(with = "PollSeconds")]
    pub wait_seconds: Option<PollSeconds>,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace shell read fix-parser 3f2a9c0d1e4b --plain --wait-for-idle-ms 500
  pyro workspace shell read fix-parser 3f2a9c0d1e4b --cursor 4096 --json";

/// How a shell is, and what came out of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ShellReadAnswer {
    /// The shell.
    #[serde(flatten)]
    pub shell: ShellFacts,
    /// Where `output` begins; later than what was asked for when the bytes
    /// before are gone.
    pub cursor: u64,
    /// The cursor to go on from.
    pub next_cursor: u64,
    /// What came out: the bytes from `cursor` to `next_cursor`, or with `plain`
    /// what a person sees of them.
    pub output: String,
    /// How `output` spells bytes.
    pub encoding: Encoding,
    /// How many bytes before `cursor` were asked for and are gone.
    pub missed_bytes: u64,
    /// Whether there is more to read now, beyond `next_cursor`.
    pub truncated: bool,
    /// Whether it was rendered.
    pub plain: bool,
    /// How long was to be silence; null when that was not asked.
    pub wait_for_idle_ms: Option<IdleMs>,
    /// Whether it was silent for so long; if not, it exited, the wait was over,
    /// or there was as much as was wanted.
    pub idle: bool,
}

impl ShellRead {
    fn call(&self) -> ReadShell {
        let (until, default) = match self.wait_for_idle_ms {
            Some(ms) => (ReadUntil::Idle { ms: ms.get() }, WAIT_SECONDS),
            None => (ReadUntil::Output, 0),
        };
        ReadShell {
            id: self.shell_id.0,
            cursor: self.cursor,
            max_bytes: self.max_bytes.get(),
            wait_ms: self.wait_seconds.map_or(default, PollSeconds::get) * 1000,
            until,
        }
    }
}

impl Operation for ShellRead {
    const PATH: &'static [&'static str] = &["workspace", "shell", "read"];
    const TOOL: Option<&'static str> = Some("shell_read");
    const EFFECT: Effect = Effect::Reads;
    const STREAMS: Streams = Streams::Answer;
    type Output = ShellReadAnswer;

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ShellReadAnswer> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let answer = if self.plain {
            let looked = look(&live, self.call(), &context).await?;
            let Looked { shell, start, next, end, text, idle } = looked;
            ShellReadAnswer {
                shell: ShellFacts::of(&live, &shell),
                cursor: start,
                next_cursor: next,
                output: text,
                encoding: Encoding::Utf8,
                missed_bytes: start.saturating_sub(self.cursor),
                truncated: next < end,
                plain: true,
                wait_for_idle_ms: self.wait_for_idle_ms,
                idle,
            }
        } else {
            let read = read(&live, self.call(), &context).await?;
            let piece = Piece::of(read.output, read.shell.state.is_running());
            ShellReadAnswer {
                shell: ShellFacts::of(&live, &read.shell),
                cursor: piece.start,
                next_cursor: piece.next,
                output: piece.text,
                encoding: piece.encoding,
                missed_bytes: piece.start.saturating_sub(self.cursor),
                truncated: piece.next < piece.end,
                plain: false,
                wait_for_idle_ms: self.wait_for_idle_ms,
                idle: read.idle,
            }
        };
        let bytes = answer.encoding.bytes(&answer.output);
        context.events.emit(Event::Output { stream: Stream::Stdout, bytes }).await;
        Ok(answer)
    }
}

impl ShellReadAnswer {
    fn remark(&self, next: u64, is_all: bool) -> String {
        let more = if self.truncated || !is_all { "; there is more" } else { "" };
        let missed = match self.missed_bytes {
            0 => String::new(),
            missed => format!("{missed} bytes before this are gone; "),
        };
        format!("{missed}the shell is {}; next: cursor {next}{more}", self.shell.shown())
    }
}

impl Answer for ShellReadAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let shown = self.encoding.head(&self.output, page.room().saturating_sub(HEADINGS));
        let is_all = shown.len() == self.output.len();
        match self.encoding {
            Encoding::Utf8 => write!(page, "{shown}")?,
            Encoding::Base64 => write!(page, "[base64] {shown}")?,
        }
        if !shown.is_empty() && !shown.ends_with('\n') {
            writeln!(page)?;
        }
        if !is_all && self.plain {
            // Nobody can say which byte drew the last line that is shown.
            let less = "ask for fewer `max_bytes` from the same cursor to see the rest";
            return writeln!(
                page,
                "[{} of {} bytes shown; {less}]",
                shown.len(),
                self.output.len()
            );
        }
        let next = match is_all {
            true => self.next_cursor,
            false => self.cursor + self.encoding.bytes_of(shown) as u64,
        };
        writeln!(page, "[{}]", self.remark(next, is_all))
    }

    fn note(&self) -> Option<String> {
        Some(self.remark(self.next_cursor, true))
    }
}
