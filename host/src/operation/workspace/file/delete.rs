use super::{GuestName, TREE_DEADLINE, call};
use crate::operation::argument::{PathInGuest, WorkspaceRef};
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::Live;
use crate::{ErrorKind, Pyro, Result};
use pyro_protocol::GuestPath;
use pyro_protocol::file;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Delete a file, symlink or directory of a workspace.
///
/// A directory with something in it only with `recursive`. Symlinks are deleted
/// themselves, never what they point to.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct FileDelete {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// What to delete.
    #[arg(value_name = "PATH")]
    #[schemars(with = "PathInGuest")]
    pub path: PathInGuest,
    /// Delete a directory with all that is in it.
    #[arg(short, long)]
    #[serde(default)]
    pub recursive: bool,
    /// Take it as done when it is not there.
    #[arg(long)]
    #[serde(default)]
    pub ignore_missing: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace file delete fix-parser notes.txt
  pyro workspace file delete fix-parser target --recursive --ignore-missing";

/// What was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileDeleteAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// What was to be deleted.
    #[serde(flatten)]
    pub name: GuestName,
    /// Whether it was there.
    pub deleted: bool,
}

impl Operation for FileDelete {
    const PATH: &'static [&'static str] = &["workspace", "file", "delete"];
    const TOOL: Option<&'static str> = Some("workspace_file_delete");
    const EFFECT: Effect = Effect::Destroys;
    const REPEATABLE: bool = true;
    type Output = FileDeleteAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.path.0.to_string())
    }

    fn guest_path(&self) -> Option<&GuestPath> {
        Some(&self.path.0)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<FileDeleteAnswer> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let name = GuestName::new(&self.path.0, live.redactor());
        let request = file::FileDelete { path: self.path.0, recursive: self.recursive };
        let deleted = match call(&live, &context, request, TREE_DEADLINE).await {
            Ok(file::FileDeleted) => true,
            Err(error) if self.ignore_missing && error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        Ok(FileDeleteAnswer { workspace_id: live.id().to_string(), name, deleted })
    }
}

impl Answer for FileDeleteAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        match self.deleted {
            true => writeln!(page, "Deleted {}", self.name.shown()),
            false => writeln!(page, "There was no {}", self.name.shown()),
        }
    }
}
