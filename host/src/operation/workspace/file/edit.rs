use super::{FILE_DEADLINE, GuestName, call};
use crate::operation::argument::{Number, PathInGuest, WorkspaceRef};
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::Live;
use crate::{Pyro, Result};
use pyro_protocol::GuestPath;
use pyro_protocol::file::{self, Edit, Occurrences};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// How often the text to replace is there.
pub type OccurrenceCount = Number<1, 1, { u32::MAX }>;

/// Replace an exact text in a file of a workspace.
///
/// The text must be there as often as said, once by default; else nothing is
/// changed and the error says in which lines it is. Blanks and line endings
/// count. The file keeps its permissions.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct FileEdit {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// The file.
    #[arg(value_name = "PATH")]
    #[schemars(with = "PathInGuest")]
    pub path: PathInGuest,
    /// The text that is there.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub old: String,
    /// The text to put in its place; may be empty.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub new: String,
    /// How often it is there; all of them are replaced.
    #[arg(long, value_name = "N", default_value_t, conflicts_with = "all")]
    #[serde(default)]
    pub count: OccurrenceCount,
    /// Replace it however often it is there.
    #[arg(long)]
    #[serde(default)]
    pub all: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace file edit fix-parser src/main.rs --old 'foo(' --new 'bar('
  pyro workspace file edit fix-parser Makefile --old gcc --new clang --all";

/// What was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileEditAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// The file.
    #[serde(flatten)]
    pub name: GuestName,
    /// How many replacements were made.
    pub replacements: u64,
    /// The line in which the first of them begins.
    pub first_line: u64,
    /// How long the file is now.
    pub size_bytes: u64,
}

impl Operation for FileEdit {
    const PATH: &'static [&'static str] = &["workspace", "file", "edit"];
    const TOOL: Option<&'static str> = Some("workspace_file_edit");
    const EFFECT: Effect = Effect::Changes;
    type Output = FileEditAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.path.0.to_string())
    }

    fn guest_path(&self) -> Option<&GuestPath> {
        Some(&self.path.0)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<FileEditAnswer> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let occurrences = match self.all {
            true => Occurrences::All,
            false => Occurrences::Exactly(self.count.get()),
        };
        let edit = Edit {
            old: self.old.into_bytes().into(),
            new: self.new.into_bytes().into(),
            occurrences,
        };
        let name = GuestName::new(&self.path.0, live.redactor());
        let request = file::FileEdit { path: self.path.0, edits: vec![edit] };
        let edited = call(&live, &context, request, FILE_DEADLINE).await?;
        Ok(FileEditAnswer {
            workspace_id: live.id().to_string(),
            name,
            replacements: edited.replacements,
            first_line: edited.first_line,
            size_bytes: edited.size_bytes,
        })
    }
}

impl Answer for FileEditAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let Self { name, replacements, first_line, .. } = self;
        let plural = if *replacements == 1 { "" } else { "s" };
        let name = name.shown();
        writeln!(
            page,
            "Edited {name}: {replacements} replacement{plural} from line {first_line} on"
        )
    }
}
