mod around;

use super::{GuestName, View};
use crate::event::{Event, Stream};
use crate::operation::argument::{Number, PathInGuest, WorkspaceRef, maybe_count};
use crate::operation::output::{Encoding, text_or_base64};
use crate::operation::{Answer, Context, Effect, Operation, Page, Streams};
use crate::secret::redact::{Marks, Told};
use crate::workspace::Live;
use crate::{Error, ErrorKind, Pyro, Result};
use around::Around;
use pyro_protocol::GuestPath;
use pyro_protocol::file::{self, ReadRange};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How much of a file an answer has.
pub type ReadLimit = Number<1, { 64 * 1024 }, { 16 * 1024 * 1024 }>;

/// Room for what is said of a part.
const REMARK: usize = 256;

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
    #[serde(default, deserialize_with = "maybe_count")]
    #[schemars(with = "u64")]
    pub offset: Option<u64>,
    /// Begin with this line; 1 is the first.
    #[arg(long, value_name = "N")]
    #[serde(default, deserialize_with = "maybe_count")]
    #[schemars(with = "u64")]
    pub first_line: Option<u64>,
    /// So many lines, from the first line on.
    #[arg(long, value_name = "N", conflicts_with = "offset")]
    #[serde(default, deserialize_with = "maybe_count")]
    #[schemars(with = "u64")]
    pub line_count: Option<u64>,
    /// How many bytes to read at most.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub max_bytes: ReadLimit,
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
    /// What in `content` stands for how many bytes that are not told.
    #[serde(skip)]
    pub marks: Marks,
}

impl FileRead {
    /// A file from its beginning, everything else by default.
    pub fn new(workspace: impl Into<WorkspaceRef>, path: PathInGuest) -> Self {
        Self {
            workspace_id: workspace.into(),
            path,
            offset: None,
            first_line: None,
            line_count: None,
            max_bytes: ReadLimit::default(),
            content_only: false,
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
        let reading = Reading::new(
            self.path,
            (self.offset, self.first_line, self.line_count),
            self.max_bytes,
            self.content_only,
        )?;
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        reading.answer((&live).into(), &context).await
    }
}

/// A file, or a part of it, that is wanted.
pub(in crate::operation::workspace) struct Reading {
    path: GuestPath,
    range: ReadRange,
    max_bytes: u32,
    content_only: bool,
}

impl Reading {
    /// A part is given by an offset, or by a first line and a number of lines.
    pub(in crate::operation::workspace) fn new(
        path: PathInGuest,
        part: (Option<u64>, Option<u64>, Option<u64>),
        max_bytes: ReadLimit,
        content_only: bool,
    ) -> Result<Self> {
        let range = match part {
            (offset, None, None) => ReadRange::From { offset: offset.unwrap_or(0) },
            (None, first, count) => ReadRange::Lines { first: first.unwrap_or(1), count },
            (Some(_), _, _) => {
                let message = "a part is given by bytes or by lines";
                return Err(Error::new(ErrorKind::InvalidInput, message)
                    .hint("give `offset`, or `first_line` and `line_count`"));
            }
        };
        Ok(Self { path: path.0, range, max_bytes: max_bytes.get(), content_only })
    }

    pub(in crate::operation::workspace) async fn answer(
        self,
        view: View<'_>,
        context: &Context,
    ) -> Result<FileReadAnswer> {
        let Self { path, range, max_bytes, content_only } = self;
        let redactor = view.redactor;
        let max = (!content_only).then_some(u64::from(max_bytes));
        let name = GuestName::new(&path, redactor);
        let around = Around::of(view, context, &path, range).await?;
        // More than is told, to see secrets that go on.
        let reach = redactor.reach();
        let over = max.map(|max| max.saturating_add(reach as u64));
        let request = file::FileRead { path: path.clone(), range, max_bytes: over };
        let kept_max = (max_bytes as usize).saturating_add(reach);
        let collected = Mutex::new(Vec::new());
        let received = AtomicU64::new(0);
        let told = Mutex::new(redactor.stream_after(around.before.len() as u64));
        let pass = |bytes: Vec<u8>| told.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        drop(pass(around.before.clone()));
        let tells_at_once = content_only || redactor.is_empty();
        let reading = view.agent.read_file(request, |bytes| {
            let mut kept = collected.lock().unwrap_or_else(PoisonError::into_inner);
            // An agent that sends more than it was asked for is cut short.
            let room = kept_max.saturating_sub(kept.len());
            kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
            drop(kept);
            received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            let bytes = if tells_at_once { pass(bytes) } else { Vec::new() };
            tell(context, bytes)
        });
        let (reading, end) = context.unless_cancelled(reading).await?;
        let rest = told.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
        if tells_at_once {
            tell(context, rest).await?;
        }
        let bytes = collected.into_inner().unwrap_or_else(PoisonError::into_inner);
        let is_cut = received.into_inner() > bytes.len() as u64 || bytes.len() > max_bytes as usize;
        let after = match end.next_offset {
            Some(next) if !is_cut => around.after(view, context, &path, next).await?,
            Some(_) | None => Vec::new(),
        };
        let Told { mut bytes, mut taken, marks } =
            around.told(view, bytes, after, max_bytes as usize);
        if !tells_at_once {
            tell(context, bytes.clone()).await?;
        }
        let is_split = (is_cut || end.truncated) && !content_only && drop_split(&mut bytes);
        if is_split {
            taken = marks.original(bytes.len());
        }
        let (content, encoding) = text_or_base64(bytes);
        let next = end.offset.saturating_add(taken as u64);
        Ok(FileReadAnswer {
            workspace_id: view.id.to_string(),
            name,
            size_bytes: reading.size_bytes,
            offset: end.offset,
            content,
            encoding,
            max_bytes,
            truncated: end.truncated || is_cut,
            next_offset: match end.next_offset {
                _ if is_cut || is_split => Some(next).filter(|next| *next < reading.size_bytes),
                // Of a secret that goes on no part is left for later.
                end => end.map(|end| end.max(next)),
            },
            is_written: content_only,
            marks,
        })
    }
}

/// Tells bytes of the content, if there are any.
async fn tell(context: &Context, bytes: Vec<u8>) -> Result<()> {
    if !bytes.is_empty() {
        context.events.emit(Event::Output { stream: Stream::Stdout, bytes }).await;
    }
    Ok(())
}

/// Leaves a character that was cut in two to the next part, unless there is
/// nothing else.
fn drop_split(bytes: &mut Vec<u8>) -> bool {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
            bytes.truncate(error.valid_up_to());
            true
        }
        Ok(_) | Err(_) => false,
    }
}

impl FileReadAnswer {
    fn remark(&self, next: u64) -> String {
        format!("the file has {} bytes; go on from offset {next}", self.size_bytes)
    }
}

impl Answer for FileReadAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let shown = self.encoding.head(&self.content, page.room().saturating_sub(REMARK));
        match self.encoding {
            Encoding::Utf8 => write!(page, "{shown}")?,
            Encoding::Base64 => write!(page, "[base64] {shown}")?,
        }
        if !shown.ends_with('\n') {
            writeln!(page)?;
        }
        let next = match shown.len() < self.content.len() {
            true => {
                let shown = self.marks.original(self.encoding.bytes_of(shown));
                Some(self.offset + shown as u64)
            }
            false => self.next_offset.filter(|_| self.truncated),
        };
        match next {
            Some(next) => writeln!(page, "[{}]", self.remark(next)),
            None => Ok(()),
        }
    }

    fn note(&self) -> Option<String> {
        let next = self.next_offset.filter(|_| self.truncated && !self.is_written)?;
        Some(self.remark(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::AnyAnswer as _;

    fn answer(content: &str, encoding: Encoding) -> FileReadAnswer {
        FileReadAnswer {
            workspace_id: "0123456789ab".into(),
            name: GuestName { path: "f".into(), path_base64: None },
            size_bytes: 100_000,
            offset: 7,
            content: content.into(),
            encoding,
            max_bytes: 65536,
            truncated: false,
            next_offset: None,
            is_written: false,
            marks: Marks::default(),
        }
    }

    #[test]
    fn a_text_for_a_model_says_where_it_goes_on() {
        let all = answer(&"é".repeat(1000), Encoding::Utf8);
        let text = all.to_text_within(REMARK + 101);
        assert_eq!(text.matches('é').count(), 50);
        assert!(text.ends_with("[the file has 100000 bytes; go on from offset 107]\n"), "{text}");
        let text = answer(&"AAAA".repeat(100), Encoding::Base64).to_text_within(REMARK + 10);
        assert!(text.ends_with("go on from offset 13]\n"), "{text}");
        assert!(!answer("x", Encoding::Utf8).to_text_within(REMARK + 10).contains("go on"));
    }

    #[test]
    fn a_split_character_is_left_for_later() {
        for (bytes, kept) in [(&b"a\xc3"[..], 1), (b"\xc3", 1), (b"a\xff\xc3", 3), (b"ab", 2)] {
            let mut left = bytes.to_vec();
            assert_eq!(drop_split(&mut left), kept < bytes.len(), "{bytes:?}");
            assert_eq!(left.len(), kept, "{bytes:?}");
        }
    }
}
