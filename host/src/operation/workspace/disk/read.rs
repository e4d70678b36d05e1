use super::close;
use crate::operation::argument::{PathInGuest, WorkspaceRef, maybe_count};
use crate::operation::workspace::file::{FileReadAnswer, ReadLimit, Reading, View};
use crate::operation::{Context, Effect, Operation, Streams};
use crate::workspace::inspect::AtRest;
use crate::{Pyro, Result};
use pyro_protocol::GuestPath;
use schemars::JsonSchema;
use serde::Deserialize;

/// Read a file on the disk of a stopped workspace, or a part of it.
///
/// A throw-away machine reads the disk, which stays as it is. Relative paths are
/// below `/workspace`, absolute ones anywhere. What is not UTF-8 comes as base64.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct DiskRead {
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
  pyro workspace disk read fix-parser src/main.rs
  pyro workspace disk read fix-parser /var/log/dpkg.log --content-only > dpkg.log";

impl Operation for DiskRead {
    const PATH: &'static [&'static str] = &["workspace", "disk", "read"];
    const TOOL: Option<&'static str> = Some("workspace_disk_read");
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
        let part = (self.offset, self.first_line, self.line_count);
        let path = Some(self.path.0.clone());
        let reading = Reading::new(self.path, part, self.max_bytes, self.content_only)?;
        let at_rest = AtRest::open(pyro, self.workspace_id.as_str(), &context).await?;
        let inspection = at_rest.inspect(pyro, &context).await?;
        let answer = reading.answer(View::of(&at_rest, &inspection), &context).await;
        close(answer, inspection, &at_rest, path.as_ref(), pyro).await
    }
}
