use super::{GuestName, TREE_DEADLINE, cursor, from_cursor, lossy, no_cursor, or_workspace};
use crate::operation::argument::{Number, PathInGuest, WorkspaceRef};
use crate::operation::long::told;
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::secret::Redactor;
use crate::workspace::Live;
use crate::{Pyro, Result, guest_text};
use pyro_protocol::GuestPath;
use pyro_protocol::file::{self, LINE_MAX, Match, Pattern, SearchCursor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// How many matches an answer has.
pub type MatchLimit = Number<1, 200, 10_000>;

/// The longest file that is looked into.
pub type SearchedBytes = Number<1, { 8 << 20 }, { u32::MAX }>;

/// Search a workspace for lines, or for files by name.
///
/// A pattern is a regular expression that lines must match; without one, files
/// are found by the globs alone. Hidden files count, `.git` does not. Binary and
/// very long files are skipped and counted.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct FileSearch {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// What lines contain: a regular expression; files are found by name if not
    /// given.
    #[arg(value_name = "PATTERN")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub pattern: Option<String>,
    /// Where to search, `/workspace` if not given.
    #[arg(long, value_name = "PATH")]
    #[serde(default)]
    #[schemars(with = "PathInGuest")]
    pub path: Option<PathInGuest>,
    /// The pattern is a text, not a regular expression.
    #[arg(short = 'F', long)]
    #[serde(default)]
    pub literal: bool,
    /// Upper and lower case are the same.
    #[arg(short, long)]
    #[serde(default)]
    pub ignore_case: bool,
    /// Only files that match this glob, such as `*.rs` or `src/**/*.rs`; may be
    /// given more than once.
    #[arg(short = 'g', long, value_name = "GLOB")]
    #[serde(default)]
    pub include: Vec<String>,
    /// No files and directories that match this glob; may be given more than
    /// once.
    #[arg(long, value_name = "GLOB")]
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Search `.git` directories, too.
    #[arg(long)]
    #[serde(default)]
    pub git: bool,
    /// How many matches to answer with, 1 to 10000.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub limit: MatchLimit,
    /// Skip files that are longer.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub max_file_bytes: SearchedBytes,
    /// Go on where an earlier answer ended: its `next_cursor`.
    #[arg(long, value_name = "CURSOR")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub cursor: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace file search fix-parser 'fn \\w+_test' --include '*.rs'
  pyro workspace file search fix-parser --include '*.lock' --exclude node_modules";

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileSearchAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// What was found, in the order of the tree.
    pub matches: Vec<FoundMatch>,
    /// Where to go on, when there is more.
    pub next_cursor: Option<String>,
    /// How many files were looked at for this answer.
    pub files_searched: u64,
    /// How many were skipped because they are no text.
    pub binary_skipped: u64,
    /// How many were skipped because of their length.
    pub too_large_skipped: u64,
    /// How many could not be opened.
    pub unreadable: u64,
}

/// A file, or a line of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FoundMatch {
    /// The file.
    #[serde(flatten)]
    pub name: GuestName,
    /// The line's number; 1 is the first. Null when names were searched.
    pub line: Option<u64>,
    /// Where in the line the match begins, in bytes; 1 is the first.
    pub column: Option<u64>,
    /// The line, or the part of a long one around the match; what is not UTF-8
    /// in it is replaced.
    pub text: Option<String>,
}

impl FoundMatch {
    fn of(found: Match, redactor: &Redactor) -> Self {
        let name = GuestName::new(&found.path, redactor);
        match found.line {
            None => Self { name, line: None, column: None, text: None },
            Some(line) => Self {
                name,
                line: Some(line.number),
                column: Some(line.start.saturating_add(1)),
                text: Some(lossy(&redactor.bytes(line.text.0)).0),
            },
        }
    }
}

fn to_cursor(at: &SearchCursor) -> String {
    let line = at.line.map(|line| line.to_string()).unwrap_or_default();
    cursor(&[line.as_bytes(), b":", at.path.as_bytes()].concat())
}

fn search_cursor(text: &str) -> Result<SearchCursor> {
    let bytes = from_cursor(text)?;
    let at = bytes.iter().position(|byte| *byte == b':').ok_or_else(no_cursor)?;
    let line = std::str::from_utf8(&bytes[..at]).map_err(|_| no_cursor())?;
    let line = match line {
        "" => None,
        number => Some(number.parse().map_err(|_| no_cursor())?),
    };
    let path = GuestPath::new(&bytes[at + 1..]).map_err(|_| no_cursor())?;
    Ok(SearchCursor { path, line })
}

impl Operation for FileSearch {
    const PATH: &'static [&'static str] = &["workspace", "file", "search"];
    const TOOL: Option<&'static str> = Some("workspace_file_search");
    const EFFECT: Effect = Effect::Reads;
    type Output = FileSearchAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        self.path.as_ref().map(|path| path.0.to_string())
    }

    fn guest_path(&self) -> Option<&GuestPath> {
        self.path.as_ref().map(|path| &path.0)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<FileSearchAnswer> {
        let after = self.cursor.as_deref().map(search_cursor).transpose()?;
        let (literal, ignore_case) = (self.literal, self.ignore_case);
        let request = file::FileSearch {
            path: or_workspace(self.path)?,
            pattern: self.pattern.map(|text| Pattern { text, literal, ignore_case }),
            include: self.include,
            exclude: self.exclude,
            git: self.git,
            after,
            limit: self.limit.get(),
            max_file_bytes: self.max_file_bytes.get().into(),
        };
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let searching = live.agent().call(request, TREE_DEADLINE);
        let found = told("searching", &live, &context, searching).await?;
        Ok(FileSearchAnswer {
            workspace_id: live.id().to_string(),
            matches: found
                .matches
                .into_iter()
                .map(|found| FoundMatch::of(found, live.redactor()))
                .collect(),
            next_cursor: found.next.as_ref().map(to_cursor),
            files_searched: found.tally.files,
            binary_skipped: found.tally.binary,
            too_large_skipped: found.tally.too_large,
            unreadable: found.tally.unreadable,
        })
    }
}

impl Answer for FileSearchAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        for found in &self.matches {
            let path = found.name.shown();
            match (found.line, &found.text) {
                (Some(line), Some(text)) => {
                    let text = guest_text::escaped(text, LINE_MAX);
                    writeln!(page, "{path}:{line}:{text}")?;
                }
                (_, _) => writeln!(page, "{path}")?,
            }
        }
        let skipped = self.binary_skipped + self.too_large_skipped + self.unreadable;
        if self.matches.is_empty() {
            writeln!(page, "Nothing found in {} files", self.files_searched)?;
        }
        if skipped > 0 {
            let Self { binary_skipped, too_large_skipped, unreadable, .. } = self;
            writeln!(
                page,
                "[skipped: {binary_skipped} binary, {too_large_skipped} too large, {unreadable} unreadable]"
            )?;
        }
        match &self.next_cursor {
            None => Ok(()),
            Some(cursor) => writeln!(page, "[there is more; cursor {cursor}]"),
        }
    }
}
