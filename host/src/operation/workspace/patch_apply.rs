use super::diff::ChangeStatus;
use crate::agent::transfer::blocking;
use crate::event::{Event, Stream};
use crate::operation::AnyAnswer as _;
use crate::operation::argument::{HostPath, WorkspaceRef, maybe_count};
use crate::operation::long::told;
use crate::operation::{Answer, Context, Effect, Ink, Operation, Page, Streams};
use crate::workspace::Live;
use crate::{Error, ErrorKind, Pyro, Result};
use pyro_protocol::diff::{ApplyPatch, PATCH_MAX, PatchApplied, Patched};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use tokio::io::AsyncRead;

/// Apply a patch to a workspace: all of it, or nothing.
///
/// Takes what git and diff make: added, deleted, renamed and binary files,
/// modes, links. A hunk whose lines have moved goes to the nearest place that
/// has them. A patch that does not apply changes nothing; the error names file,
/// hunk and line.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct PatchApply {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// The patch itself.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    #[serde(default)]
    #[schemars(with = "String")]
    pub patch: Option<String>,
    /// A file of the host's with the patch; on the command line `-`, or neither,
    /// reads standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "patch")]
    #[serde(default)]
    #[schemars(with = "HostPath")]
    pub patch_file: Option<HostPath>,
    /// Drop so many leading names of each path; if not given, `a/` and `b/`.
    #[arg(short = 'p', long, value_name = "N")]
    #[serde(default, deserialize_with = "maybe_count")]
    #[schemars(with = "u32")]
    pub strip: Option<u32>,
    /// Only say what would change.
    #[arg(long)]
    #[serde(default)]
    pub dry_run: bool,
    /// Take the patch back.
    #[arg(short = 'R', long)]
    #[serde(default)]
    pub reverse: bool,
}

const EXAMPLES: &str = "\
Examples:
  git diff | pyro workspace patch apply fix-parser
  pyro workspace patch apply fix-parser --patch-file fix.patch --dry-run";

/// What a patch changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PatchApplyAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// Whether anything was changed, or would have been.
    pub changed: bool,
    /// Whether this only tells what would change.
    pub dry_run: bool,
    /// How much.
    pub summary: PatchSummary,
    /// The first files, by path.
    pub entries: Vec<PatchedEntry>,
    /// How many files are left out.
    pub entries_omitted: u64,
}

/// How much a patch changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PatchSummary {
    /// All files.
    pub total: u64,
    /// Those that are new.
    pub added: u64,
    /// Those with another content or mode.
    pub modified: u64,
    /// Those that are gone.
    pub deleted: u64,
    /// Those that were elsewhere.
    pub renamed: u64,
}

/// A file that a patch changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PatchedEntry {
    /// Where it is, or was.
    pub path: String,
    /// What happened to it.
    pub status: ChangeStatus,
}

impl PatchApply {
    /// A patch as git makes it.
    pub fn new(workspace: impl Into<WorkspaceRef>, patch: impl Into<String>) -> Self {
        Self {
            workspace_id: workspace.into(),
            patch: Some(patch.into()),
            patch_file: None,
            strip: None,
            dry_run: false,
            reverse: false,
        }
    }

    async fn open(
        &self,
        context: &mut Context,
    ) -> Result<Box<dyn AsyncRead + Send + Sync + Unpin>> {
        let from_stdin = || {
            Error::new(ErrorKind::InvalidInput, "there is no patch")
                .hint("give it by `patch` or `patch_file`, or on standard input")
        };
        match (&self.patch, &self.patch_file) {
            (Some(patch), _) => Ok(Box::new(std::io::Cursor::new(patch.clone().into_bytes()))),
            (None, Some(file)) if file.as_path().as_os_str() != "-" => {
                let (opened, path) = (file.open(context).await?, file.as_path().to_owned());
                let reading = blocking(move || read(opened, &path));
                let patch = context.unless_cancelled(reading).await?;
                Ok(Box::new(std::io::Cursor::new(patch)))
            }
            (None, Some(_) | None) => Ok(context.stdin.take().ok_or_else(from_stdin)?),
        }
    }
}

/// Reads a patch, no further than any may go.
fn read(file: File, path: &Path) -> Result<Vec<u8>> {
    let mut patch = Vec::new();
    let read = file.take(PATCH_MAX + 1).read_to_end(&mut patch);
    read.map_err(|error| Error::unreadable(path, error))?;
    if patch.len() as u64 > PATCH_MAX {
        let message = format!("{} is longer than {PATCH_MAX} bytes", path.display());
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    Ok(patch)
}

impl Operation for PatchApply {
    const PATH: &'static [&'static str] = &["workspace", "patch", "apply"];
    const TOOL: Option<&'static str> = Some("workspace_patch_apply");
    const EFFECT: Effect = Effect::Destroys;
    const STREAMS: Streams = Streams::Answer;
    type Output = PatchApplyAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    async fn run(self, pyro: &Pyro, mut context: Context) -> Result<PatchApplyAnswer> {
        let patch = self.open(&mut context).await?;
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let Self { strip, dry_run, reverse, .. } = self;
        let applying = live.agent().apply_patch(ApplyPatch { strip, dry_run, reverse }, patch);
        let applied = told("patching", &live, &context, applying).await?;
        let answer = PatchApplyAnswer::new(&live, dry_run, applied);
        let bytes = answer.to_text(Ink::Plain).into_bytes();
        context.events.emit(Event::Output { stream: Stream::Stdout, bytes }).await;
        Ok(answer)
    }
}

impl PatchApplyAnswer {
    fn new(live: &Live, dry_run: bool, applied: PatchApplied) -> Self {
        let PatchApplied { entries, total, added, modified, deleted, renamed } = applied;
        let entry = |patched: &Patched| PatchedEntry {
            path: live.redactor().path(&patched.path).to_string(),
            status: patched.status.into(),
        };
        let entries: Vec<_> = entries.iter().map(entry).collect();
        Self {
            workspace_id: live.id().to_string(),
            changed: total > 0,
            dry_run,
            summary: PatchSummary { total, added, modified, deleted, renamed },
            entries_omitted: total.saturating_sub(entries.len() as u64),
            entries,
        }
    }
}

impl Answer for PatchApplyAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        for entry in &self.entries {
            let path = crate::guest_text::escaped(&entry.path, usize::MAX);
            writeln!(page, "{} {path}", entry.status.letter())?;
        }
        if self.entries_omitted > 0 {
            writeln!(page, "[{} files left out]", self.entries_omitted)?;
        }
        let PatchSummary { total, added, modified, deleted, renamed } = self.summary;
        let plural = if total == 1 { "" } else { "s" };
        let would = if self.dry_run { "would be " } else { "" };
        writeln!(
            page,
            "{total} file{plural} {would}changed: {added} added, {modified} modified, \
             {deleted} deleted, {renamed} renamed"
        )
    }
}
