use super::{FILE_DEADLINE, GuestName, call};
use crate::operation::argument::{PathInGuest, WorkspaceRef};
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::Live;
use crate::{Pyro, Result, guest_text};
use pyro_protocol::GuestPath;
use pyro_protocol::file;
use pyro_protocol::guest_path::PATH_MAX;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Rename a file or directory of a workspace.
///
/// Directories on the way to the new name are made. What has the new name stays,
/// unless `force` lets a file, or an empty directory, be replaced.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct FileMove {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// What to move.
    #[arg(value_name = "PATH")]
    #[schemars(with = "PathInGuest")]
    pub path: PathInGuest,
    /// Its new name, not a directory to move it into.
    #[arg(value_name = "NEW_PATH")]
    #[schemars(with = "PathInGuest")]
    pub new_path: PathInGuest,
    /// Replace what has the new name.
    #[arg(short, long)]
    #[serde(default)]
    pub force: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace file move fix-parser src/old.rs src/new.rs";

/// What was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileMoveAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// Where it was.
    #[serde(flatten)]
    pub name: GuestName,
    /// Where it is now.
    pub new_path: String,
}

impl Operation for FileMove {
    const PATH: &'static [&'static str] = &["workspace", "file", "move"];
    const TOOL: Option<&'static str> = Some("workspace_file_move");
    const EFFECT: Effect = Effect::Destroys;
    type Output = FileMoveAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(format!("{} to {}", self.path.0, self.new_path.0))
    }

    fn guest_path(&self) -> Option<&GuestPath> {
        Some(&self.path.0)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<FileMoveAnswer> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let name = GuestName::new(&self.path.0, live.redactor());
        let new_path = live.redactor().path(&self.new_path.0).to_string();
        let request =
            file::FileMove { from: self.path.0, to: self.new_path.0, replace: self.force };
        call(&live, &context, request, FILE_DEADLINE).await?;
        Ok(FileMoveAnswer { workspace_id: live.id().to_string(), name, new_path })
    }
}

impl Answer for FileMoveAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let new_path = guest_text::escaped(&self.new_path, PATH_MAX);
        writeln!(page, "Moved {} to {new_path}", self.name.shown())
    }
}
