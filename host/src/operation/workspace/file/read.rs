use super::{GuestName, unless_cancelled};
use crate::event::{Event, Stream};
use crate::operation::argument::{OutputLimit, PathInGuest, WorkspaceRef};
use crate::operation::output::{Encoding, text_or_base64};
use crate::operation::{Answer, Context, Effect, Operation, Page, Streams};
use crate::workspace::Live;
use crate::{Error, ErrorKind, Pyro, Result};
use pyro_protocol::GuestPath;
use pyro_protocol::file::{self, ReadRange};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Read a file of a workspace, or a part of it.
///
/// By bytes from an offset, or by lines. What is not UTF-8 comes as base64. An
/// answer that ends before the file has the offset to go on from.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct FileRead {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// The file.
    #[arg(value_name = "PATH")]
    #[schemars(with = "PathInGuest")]
    pub path: PathInGuest,
    /// Begin with this byte; 0 is the first.
    #[arg(long, value_name = "N", conflicts_with = "first_line")]
    #[serde(default)]
    #[schemars(with = "u64")]
    pub offset: Option<u64>,
    /// Begin with this line; 1 is the first.
    #[arg(long, value_name = "N")]
    #[serde(default)]
    #[schemars(with = "u64")]
    pub first_line: Option<u64>,
    /// So many lines, from the first line on.
    #[arg(long, value_name = "N", conflicts_with = "offset")]
    #[serde(default)]
    #[schemars(with = "u64")]
    pub line_count: Option<u64>,
    /// How many bytes to read at most.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub max_bytes: OutputLimit,
    /// Write all of the content to standard output, however much that is; an
    /// answer in JSON still holds no more than the bytes to read at most.
    #[arg(long)]
    #[serde(default)]
    pub content_only: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace file read fix-parser src/main.rs --first-line 10 --line-count 20
  pyro workspace file read fix-parser build/app --content-only > app";

/// A file, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileReadAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// The file.
    #[serde(flatten)]
    pub name: GuestName,
    /// How long the whole file is.
    pub size_bytes: u64,
    /// Where in the file `content` begins.
    pub offset: u64,
    /// What was read.
    pub content: String,
    /// How `content` spells bytes.
    pub encoding: Encoding,
    /// How many bytes were read at most.
    pub max_bytes: u32,
    /// Whether that cut off a part of what was asked for.
    pub truncated: bool,
    /// The offset to go on from; null at the end of the file.
    pub next_offset: Option<u64>,
    /// Whether all of it was written to standard output.
    #[serde(skip)]
    pub is_written: bool,
}

impl FileRead {
    fn range(&self) -> Result<ReadRange> {
        match (self.offset, self.first_line, self.line_count) {
            (offset, None, None) => Ok(ReadRange::From { offset: offset.unwrap_or(0) }),
            (None, first, count) => Ok(ReadRange::Lines { first: first.unwrap_or(1), count }),
            (Some(_), _, _) => {
                Err(Error::new(ErrorKind::InvalidInput, "a part is given by bytes or by lines")
                    .hint("give `offset`, or `first_line` and `line_count`"))
            }
        }
    }
}

impl Operation for FileRead {
    const PATH: &'static [&'static str] = &["workspace", "file", "read"];
    const TOOL: Option<&'static str> = Some("workspace_file_read");
    const EFFECT: Effect = Effect::Reads;
    const STREAMS: Streams = Streams::Answer;
    type Output = FileReadAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.path.0.to_string())
    }

    fn guest_path(&self) -> Option<&GuestPath> {
        Some(&self.path.0)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<FileReadAnswer> {
        let range = self.range()?;
        let max_bytes = self.max_bytes.get();
        let max = (!self.content_only).then_some(u64::from(max_bytes));
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let name = GuestName::new(&self.path.0);
        let request = file::FileRead { path: self.path.0, range, max_bytes: max };
        let collected = Mutex::new(Vec::new());
        let received = AtomicU64::new(0);
        let reading = live.agent().read_file(request, |bytes| {
            let mut kept = collected.lock().unwrap_or_else(PoisonError::into_inner);
            // An agent that sends more than it was asked for is cut short.
            let room = (max_bytes as usize).saturating_sub(kept.len());
            kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
            drop(kept);
            received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            async {
                context.events.emit(Event::Output { stream: Stream::Stdout, bytes }).await;
                Ok(())
            }
        });
        let (reading, end) = unless_cancelled(&context.cancel, reading).await?;
        let bytes = collected.into_inner().unwrap_or_else(PoisonError::into_inner);
        let kept = bytes.len() as u64;
        let is_cut = received.into_inner() > kept;
        let (content, encoding) = text_or_base64(bytes);
        Ok(FileReadAnswer {
            workspace_id: live.id().to_string(),
            name,
            size_bytes: reading.size_bytes,
            offset: end.offset,
            content,
            encoding,
            max_bytes,
            truncated: end.truncated || is_cut,
            next_offset: if is_cut { Some(end.offset + kept) } else { end.next_offset },
            is_written: self.content_only,
        })
    }
}

impl Answer for FileReadAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        match self.encoding {
            Encoding::Utf8 => write!(page, "{}", self.content)?,
            Encoding::Base64 => write!(page, "[base64] {}", self.content)?,
        }
        if !self.content.ends_with('\n') {
            writeln!(page)?;
        }
        match self.note() {
            Some(note) => writeln!(page, "[{note}]"),
            None => Ok(()),
        }
    }

    fn note(&self) -> Option<String> {
        let next = self.next_offset.filter(|_| self.truncated && !self.is_written)?;
        Some(format!("the file has {} bytes; go on from offset {next}", self.size_bytes))
    }
}
