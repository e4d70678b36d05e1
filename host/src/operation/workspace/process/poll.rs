use super::{Condition, ConditionState};
use crate::operation::argument::{Number, ProcessRef, WorkspaceRef, whole};
use crate::operation::output::{Encoding, HEADINGS, shares, text_or_base64};
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::secret::redact::{Marks, Told};
use crate::workspace::seen::SeenSlice;
use crate::workspace::{Live, process};
use crate::{Pyro, Result};
use anstyle::Style;
use pyro_protocol::kept::{PollProcess, PollUntil, SLICE_MAX};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// How many bytes of each stream an answer has.
pub type SliceLimit = Number<1, { 32 * 1024 }, SLICE_MAX>;

/// How long to wait for something new: long enough that polling costs nothing,
/// short enough for every client.
pub type PollSeconds = Number<0, 10, 300>;

/// Read what a process has written, waiting for news.
///
/// Answers as soon as there are bytes beyond a cursor, or the process has ended,
/// or the wait is over. Give the next cursors of one answer to the next call:
/// they count bytes from the start and never skip or repeat any.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ProcessPoll {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// The process.
    #[arg(value_name = "PROCESS")]
    #[schemars(with = "ProcessRef")]
    pub process_id: ProcessRef,
    /// The first byte wanted of its standard output.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default, deserialize_with = "whole")]
    pub stdout_cursor: u64,
    /// The first byte wanted of its standard error.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default, deserialize_with = "whole")]
    pub stderr_cursor: u64,
    /// How many bytes of each to answer with at most.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub limit_bytes: SliceLimit,
    /// How many seconds to wait for news, 0 to 300.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub wait_seconds: PollSeconds,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace process poll fix-parser 3f2a9c0d1e4b
  pyro workspace process poll fix-parser 3f2a9c0d1e4b --stdout-cursor 4096 --json";

/// How a process is, and the next bytes of what it wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ProcessPollAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// The process.
    pub process_id: String,
    /// How it is.
    #[serde(flatten)]
    pub condition: Condition,
    /// What it wrote to its standard output from `stdout_start` on.
    pub stdout: String,
    /// How `stdout` spells bytes.
    pub stdout_encoding: Encoding,
    /// The cursor of the first byte here; later than what was asked for when
    /// those before are gone.
    pub stdout_start: u64,
    /// The cursor to go on from.
    pub stdout_next_cursor: u64,
    /// How many bytes there are so far.
    pub stdout_bytes: u64,
    /// What it wrote to its standard error from `stderr_start` on.
    pub stderr: String,
    /// How `stderr` spells bytes.
    pub stderr_encoding: Encoding,
    /// The cursor of the first byte here; later than what was asked for when
    /// those before are gone.
    pub stderr_start: u64,
    /// The cursor to go on from.
    pub stderr_next_cursor: u64,
    /// How many bytes there are so far.
    pub stderr_bytes: u64,
    /// Whether there is more to read now, beyond the next cursors.
    pub more: bool,
    /// What in `stdout` stands for how many bytes that are not told.
    #[serde(skip)]
    pub stdout_marks: Marks,
    /// What in `stderr` stands for how many bytes that are not told.
    #[serde(skip)]
    pub stderr_marks: Marks,
}

impl Operation for ProcessPoll {
    const PATH: &'static [&'static str] = &["workspace", "process", "poll"];
    const TOOL: Option<&'static str> = Some("process_poll");
    const EFFECT: Effect = Effect::Reads;
    type Output = ProcessPollAnswer;

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ProcessPollAnswer> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let ProcessRef(id) = self.process_id;
        let call = PollProcess {
            id,
            stdout_cursor: self.stdout_cursor,
            stderr_cursor: self.stderr_cursor,
            max_bytes: self.limit_bytes.get(),
            wait_ms: self.wait_seconds.get() * 1000,
            until: PollUntil::Output,
        };
        let polled = process::look(&live, call, &context).await?;
        let condition = Condition::of(polled.state);
        let is_running = condition.state == ConditionState::Running;
        let stdout = Piece::of(polled.stdout, is_running);
        let stderr = Piece::of(polled.stderr, is_running);
        Ok(ProcessPollAnswer {
            workspace_id: live.id().to_string(),
            process_id: id.to_string(),
            condition,
            more: stdout.next < stdout.end || stderr.next < stderr.end,
            stdout: stdout.text,
            stdout_encoding: stdout.encoding,
            stdout_start: stdout.start,
            stdout_next_cursor: stdout.next,
            stdout_bytes: stdout.end,
            stdout_marks: stdout.marks,
            stderr: stderr.text,
            stderr_encoding: stderr.encoding,
            stderr_start: stderr.start,
            stderr_next_cursor: stderr.next,
            stderr_bytes: stderr.end,
            stderr_marks: stderr.marks,
        })
    }
}

/// A slice as a string.
pub(in crate::operation::workspace) struct Piece {
    pub(in crate::operation::workspace) text: String,
    pub(in crate::operation::workspace) encoding: Encoding,
    pub(in crate::operation::workspace) marks: Marks,
    pub(in crate::operation::workspace) start: u64,
    pub(in crate::operation::workspace) next: u64,
    pub(in crate::operation::workspace) end: u64,
}

impl Piece {
    /// A character that is not complete yet is left for the next time, unless
    /// nothing more will come or there is nothing else.
    pub(in crate::operation::workspace) fn of(slice: SeenSlice, is_running: bool) -> Self {
        let SeenSlice { start, told, end } = slice;
        let Told { mut bytes, mut taken, marks } = told;
        let may_grow = is_running || start.saturating_add(taken as u64) < end;
        if let Err(error) = std::str::from_utf8(&bytes)
            && error.error_len().is_none()
            && error.valid_up_to() > 0
            && may_grow
        {
            bytes.truncate(error.valid_up_to());
            taken = marks.original(bytes.len());
        }
        let next = start.saturating_add(taken as u64);
        let (text, encoding) = text_or_base64(bytes);
        Self { text, encoding, marks, start, next, end }
    }
}

/// A part of a stream as it is shown.
struct Shown<'a> {
    text: &'a str,
    encoding: Encoding,
    start: u64,
    next: u64,
}

impl<'a> Shown<'a> {
    /// As much as there is room for.
    fn within(
        text: &'a str,
        encoding: Encoding,
        (start, next): (u64, u64),
        marks: &Marks,
        room: usize,
    ) -> Self {
        let head = encoding.head(text, room);
        let is_whole = head.len() == text.len();
        let shown = marks.original(encoding.bytes_of(head)) as u64;
        let next = if is_whole { next } else { start + shown };
        Self { text: head, encoding, start, next }
    }

    fn render(&self, page: &mut Page, name: &str) -> fmt::Result {
        if self.text.is_empty() {
            return Ok(());
        }
        let encoding = match self.encoding {
            Encoding::Utf8 => "",
            Encoding::Base64 => " (base64)",
        };
        let heading = format!("{name}{encoding}, bytes {} to {}:", self.start, self.next);
        writeln!(page, "{}", page.paint(Style::new().bold(), heading))?;
        writeln!(page, "{}", self.text.trim_end_matches('\n'))
    }
}

impl Answer for ProcessPollAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        writeln!(page, "{} {}", self.process_id, self.condition.shown())?;
        let room = page.room().saturating_sub(HEADINGS);
        let (for_stdout, for_stderr) = shares(room, self.stdout.len(), self.stderr.len());
        let (text, encoding, marks) = (&self.stdout, self.stdout_encoding, &self.stdout_marks);
        let cursors = (self.stdout_start, self.stdout_next_cursor);
        let stdout = Shown::within(text, encoding, cursors, marks, for_stdout);
        let (text, encoding, marks) = (&self.stderr, self.stderr_encoding, &self.stderr_marks);
        let cursors = (self.stderr_start, self.stderr_next_cursor);
        let stderr = Shown::within(text, encoding, cursors, marks, for_stderr);
        stdout.render(page, "stdout")?;
        stderr.render(page, "stderr")?;
        let is_all =
            (stdout.next, stderr.next) == (self.stdout_next_cursor, self.stderr_next_cursor);
        let more = if self.more || !is_all { "; there is more" } else { "" };
        writeln!(page, "next: stdout_cursor {}, stderr_cursor {}{more}", stdout.next, stderr.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Redactor;
    use proptest::prelude::*;

    fn slice(start: u64, data: &[u8], end: u64) -> SeenSlice {
        let told = Redactor::default().window(data, 0..data.len(), false);
        SeenSlice { start, told, end }
    }

    proptest! {
        /// However a text is cut: the pieces put together are the text, and no
        /// piece is base64 for the cut's sake unless it has to be.
        #[test]
        fn pieces_put_together_are_the_stream(text: String, cut in 4_usize..9) {
            let all = text.as_bytes();
            let (mut cursor, mut seen) = (0, String::new());
            while cursor < all.len() {
                let data = &all[cursor..all.len().min(cursor + cut)];
                let (start, end) = (cursor as u64, all.len() as u64);
                let piece = Piece::of(slice(start, data, end), true);
                prop_assert_eq!(piece.encoding, Encoding::Utf8);
                prop_assert!(piece.next > start);
                cursor = piece.next as usize;
                seen.push_str(&piece.text);
            }
            prop_assert_eq!(seen, text);
        }
    }

    #[test]
    fn what_is_no_text_and_what_never_will_be_is_base64() {
        let piece =
            |data: &[u8], is_running| Piece::of(slice(0, data, data.len() as u64), is_running);
        assert_eq!(piece(b"a\xc3", true).next, 1);
        assert_eq!(
            (piece(b"a\xc3", false).next, piece(b"a\xc3", false).encoding),
            (2, Encoding::Base64)
        );
        assert_eq!(
            (piece(b"\xc3", true).next, piece(b"\xc3", true).encoding),
            (1, Encoding::Base64)
        );
        assert_eq!(piece(b"\xff", true).text, "/w==");
    }
}
