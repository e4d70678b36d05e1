use super::{
    GuestName, ListedFile, TREE_DEADLINE, View, call, cursor, from_cursor, no_cursor, or_workspace,
};
use crate::operation::argument::{Number, PathInGuest, WorkspaceRef};
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::Live;
use crate::{Pyro, Result};
use pyro_protocol::{GuestPath, file};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// How many entries an answer has.
pub type EntryLimit = Number<1, 1000, 10_000>;

/// List files of a workspace.
///
/// One directory, or all below it. Names are in the order of their bytes; an
/// answer that does not have them all has a cursor to go on with.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct FileList {
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
    /// How many entries to answer with, 1 to 10000.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub limit: EntryLimit,
    /// Go on where an earlier answer ended: its `next_cursor`.
    #[arg(long, value_name = "CURSOR")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub cursor: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace file list fix-parser
  pyro workspace file list fix-parser src --recursive --json | jq -r '.entries[].path'";

/// Files of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileListAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// What was listed.
    #[serde(flatten)]
    pub name: GuestName,
    /// Whether what is in directories below is listed, too.
    pub recursive: bool,
    /// What is there.
    pub entries: Vec<ListedFile>,
    /// Where to go on, when there is more.
    pub next_cursor: Option<String>,
}

impl Operation for FileList {
    const PATH: &'static [&'static str] = &["workspace", "file", "list"];
    const TOOL: Option<&'static str> = Some("workspace_file_list");
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
        let listing =
            Listing::new(self.path, self.recursive, self.limit.get(), self.cursor.as_deref())?;
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        listing.answer((&live).into(), &context).await
    }
}

/// A page of a listing that is wanted.
pub(in crate::operation::workspace) struct Listing(file::FileList);

impl Listing {
    pub(in crate::operation::workspace) fn new(
        path: Option<PathInGuest>,
        recursive: bool,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Self> {
        let path = or_workspace(path)?;
        let after = cursor.map(from_cursor).transpose()?;
        let after = after.map(GuestPath::new).transpose().map_err(|_| no_cursor())?;
        Ok(Self(file::FileList { path, recursive, after, limit }))
    }

    /// As much as the guest says at once.
    pub(in crate::operation::workspace) async fn answer(
        self,
        view: View<'_>,
        context: &Context,
    ) -> Result<FileListAnswer> {
        let mut answer = self.begun(view);
        self.page(view, context, &mut answer).await?;
        Ok(answer)
    }

    /// As much as is wanted, however often the guest has to be asked: to ask it
    /// later takes another guest.
    pub(in crate::operation::workspace) async fn answer_in_full(
        mut self,
        view: View<'_>,
        context: &Context,
    ) -> Result<FileListAnswer> {
        let mut answer = self.begun(view);
        let wanted = self.0.limit;
        loop {
            let before = answer.entries.len();
            let next = self.page(view, context, &mut answer).await?;
            let there = answer.entries.len();
            let left = u32::try_from(there).ok().and_then(|there| wanted.checked_sub(there));
            match (next, left) {
                (Some(next), Some(left @ 1..)) if there > before => {
                    self.0.after = Some(next);
                    self.0.limit = left;
                }
                _ => return Ok(answer),
            }
        }
    }

    fn begun(&self, view: View<'_>) -> FileListAnswer {
        FileListAnswer {
            workspace_id: view.id.to_string(),
            name: GuestName::new(&self.0.path, view.redactor),
            recursive: self.0.recursive,
            entries: Vec::new(),
            next_cursor: None,
        }
    }

    async fn page(
        &self,
        view: View<'_>,
        context: &Context,
        answer: &mut FileListAnswer,
    ) -> Result<Option<GuestPath>> {
        let listed = call(view, context, self.0.clone(), TREE_DEADLINE).await?;
        let entries = listed.entries.iter().map(|entry| ListedFile::of(entry, view.redactor));
        answer.entries.extend(entries);
        answer.next_cursor = listed.next.as_ref().map(|next| cursor(next.as_bytes()));
        Ok(listed.next)
    }
}

impl Answer for FileListAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        if self.entries.is_empty() {
            return writeln!(page, "{} is empty", self.name.shown());
        }
        let rows: Vec<_> = self.entries.iter().map(ListedFile::row).collect();
        page.table(&rows)?;
        match &self.next_cursor {
            None => Ok(()),
            Some(cursor) => writeln!(page, "[there is more; cursor {cursor}]"),
        }
    }
}
