use super::{FILE_DEADLINE, ListedFile, call};
use crate::operation::argument::{PathInGuest, WorkspaceRef};
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::Live;
use crate::{Pyro, Result};
use anstyle::Style;
use pyro_protocol::GuestPath;
use pyro_protocol::file;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Show what a file of a workspace is.
///
/// Type, length, permissions, owner, time. A symlink is shown itself.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct FileStat {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// What to look at.
    #[arg(value_name = "PATH")]
    #[schemars(with = "PathInGuest")]
    pub path: PathInGuest,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace file stat fix-parser build/app";

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileStatAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// What it is.
    #[serde(flatten)]
    pub file: ListedFile,
    /// How many names it has.
    pub link_count: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

impl Operation for FileStat {
    const PATH: &'static [&'static str] = &["workspace", "file", "stat"];
    const TOOL: Option<&'static str> = Some("workspace_file_stat");
    const EFFECT: Effect = Effect::Reads;
    type Output = FileStatAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.path.0.to_string())
    }

    fn guest_path(&self) -> Option<&GuestPath> {
        Some(&self.path.0)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<FileStatAnswer> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let request = file::FileStat { path: self.path.0 };
        let entry = call(&live, &context, request, FILE_DEADLINE).await?;
        Ok(FileStatAnswer {
            workspace_id: live.id().to_string(),
            file: ListedFile::of(&entry, live.redactor()),
            link_count: entry.links,
            uid: entry.uid,
            gid: entry.gid,
        })
    }
}

impl Answer for FileStatAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let [kind, mode, size, modified, path] = self.file.row();
        let bold = Style::new().bold();
        let rows = [
            ("Path", path),
            ("Type", kind),
            ("Size", format!("{size} bytes")),
            ("Mode", mode),
            ("Modified", modified),
            ("Owner", format!("{}:{}", self.uid, self.gid)),
            ("Links", self.link_count.to_string()),
        ];
        let rows = rows.map(|(label, value)| [page.paint(bold, format!("{label}:")), value]);
        page.table(&rows)
    }
}
