use super::close;
use crate::operation::argument::{Number, PathInGuest, WorkspaceRef};
use crate::operation::workspace::file::{FileListAnswer, Listing, View};
use crate::operation::{Context, Effect, Operation};
use crate::workspace::inspect::AtRest;
use crate::{Pyro, Result};
use pyro_protocol::GuestPath;
use schemars::JsonSchema;
use serde::Deserialize;

/// How many entries an answer has: each answer takes a machine.
pub type DiskEntryLimit = Number<1, 1000, 100_000>;

/// List files on the disk of a stopped workspace.
///
/// A throw-away machine reads the disk, which stays as it is. Relative paths are
/// below `/workspace`, absolute ones anywhere. An answer that does not have all
/// names has a cursor to go on with.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct DiskList {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// What to list, `/workspace` if not given.
    #[arg(value_name = "PATH")]
    #[serde(default)]
    #[schemars(with = "PathInGuest")]
    pub path: Option<PathInGuest>,
    /// List what is in directories below, too.
    #[arg(short, long)]
    #[serde(default)]
    pub recursive: bool,
    /// How many entries to answer with, 1 to 100000.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub limit: DiskEntryLimit,
    /// Go on where an earlier answer ended: its `next_cursor`.
    #[arg(long, value_name = "CURSOR")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub cursor: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace disk list fix-parser
  pyro workspace disk list fix-parser /etc --recursive --json | jq -r '.entries[].path'";

impl Operation for DiskList {
    const PATH: &'static [&'static str] = &["workspace", "disk", "list"];
    const TOOL: Option<&'static str> = Some("workspace_disk_list");
    const EFFECT: Effect = Effect::Reads;
    type Output = FileListAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        self.path.as_ref().map(|path| path.0.to_string())
    }

    fn guest_path(&self) -> Option<&GuestPath> {
        self.path.as_ref().map(|path| &path.0)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<FileListAnswer> {
        let path = self.path.as_ref().map(|path| path.0.clone());
        let listing =
            Listing::new(self.path, self.recursive, self.limit.get(), self.cursor.as_deref())?;
        let at_rest = AtRest::open(pyro, self.workspace_id.as_str(), &context).await?;
        let inspection = at_rest.inspect(pyro, &context).await?;
        let answer = listing.answer_in_full(View::of(&at_rest, &inspection), &context).await;
        close(answer, inspection, &at_rest, path.as_ref(), pyro).await
    }
}
