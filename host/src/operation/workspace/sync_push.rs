use crate::event::Event;
use crate::operation::argument::{HostPath, PathInGuest, WorkspaceRef};
use crate::operation::long::told;
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::seed::Source;
use crate::workspace::push::{Change, push};
use crate::workspace::record::SeedMode;
use crate::workspace::{GUEST_PATH, Live};
use crate::{Error, ErrorKind, Pyro, Result};
use pyro_protocol::GuestPath;
use pyro_protocol::push::{Push, PushAction};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Push files of the host into a workspace: all of them, or nothing.
///
/// Only what differs is sent: a file with the same length and time is taken as
/// the same. What is in the way, such as a directory where a file is to be,
/// fails with its path and changes nothing, unless `delete` replaces it.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct WorkspaceSyncPush {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// A directory of the host, or a `.tar`, `.tar.gz`, `.tar.zst` archive.
    #[arg(value_name = "SOURCE")]
    #[schemars(with = "HostPath")]
    pub source_path: HostPath,
    /// The directory of the workspace that becomes like it, `/workspace` if not
    /// given.
    #[arg(long, value_name = "PATH")]
    #[serde(default)]
    #[schemars(with = "PathInGuest")]
    pub dest: Option<PathInGuest>,
    /// Delete what the source does not have.
    #[arg(long)]
    #[serde(default)]
    pub delete: bool,
    /// Only say what would change.
    #[arg(long)]
    #[serde(default)]
    pub dry_run: bool,
    /// Compare contents also where length and time are the same.
    #[arg(long)]
    #[serde(default)]
    pub checksum: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace sync push fix-parser .
  pyro workspace sync push fix-parser ./assets --dest public --delete --dry-run";

/// What a push changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WorkspaceSyncPushAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// What came of it.
    pub workspace_sync: WorkspaceSync,
}

/// What a push changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WorkspaceSync {
    /// What the source is.
    pub mode: SeedMode,
    /// The source, on the host.
    pub source_path: String,
    /// The directory of the workspace.
    pub destination: String,
    /// How many entries the source has.
    pub entry_count: u64,
    /// How many bytes of contents were sent.
    pub bytes_written: u64,
    /// Whether this only tells what would change.
    pub dry_run: bool,
    /// Whether anything was changed, or would be.
    pub changed: bool,
    /// How many were not there before.
    pub created: u64,
    /// How many have another content, or became something else.
    pub updated: u64,
    /// How many have another mode.
    pub attributes: u64,
    /// How many were deleted; a directory counts once.
    pub deleted: u64,
    /// The first of the changes.
    pub changes: Vec<PushedChange>,
    /// How many changes are left out.
    pub changes_omitted: u64,
    /// What was odd about the source.
    pub warnings: Vec<String>,
}

/// What became of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PushedChange {
    /// Its path; what does not print is spelled out.
    pub path: String,
    /// What became of it.
    pub action: PushedAction,
}

/// What became of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PushedAction {
    /// It was not there.
    Created,
    /// It has another content, or is another thing.
    Updated,
    /// It has another mode.
    Attributes,
    /// It is gone, with all that was in it.
    Deleted,
}

impl From<Change> for PushedChange {
    fn from(change: Change) -> Self {
        let action = match change.action {
            PushAction::Created => PushedAction::Created,
            PushAction::Updated => PushedAction::Updated,
            PushAction::Attributes => PushedAction::Attributes,
            PushAction::Deleted => PushedAction::Deleted,
        };
        Self { path: change.path, action }
    }
}

impl WorkspaceSyncPush {
    /// A source for `/workspace`; nothing is deleted.
    pub fn new(workspace: impl Into<WorkspaceRef>, source: impl Into<HostPath>) -> Self {
        Self {
            workspace_id: workspace.into(),
            source_path: source.into(),
            dest: None,
            delete: false,
            dry_run: false,
            checksum: false,
        }
    }
}

impl Operation for WorkspaceSyncPush {
    const PATH: &'static [&'static str] = &["workspace", "sync", "push"];
    const TOOL: Option<&'static str> = Some("workspace_sync_push");
    const EFFECT: Effect = Effect::Destroys;
    const REPEATABLE: bool = true;
    type Output = WorkspaceSyncPushAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.source_path.as_path().display().to_string())
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<WorkspaceSyncPushAnswer> {
        let source_path = self.source_path.resolve(&context)?;
        let source = Source::from_path(source_path.clone())?;
        let mode = match &source {
            Source::Empty => SeedMode::Empty,
            Source::Directory(_) => SeedMode::Directory,
            Source::Archive(_) => SeedMode::TarArchive,
            Source::Git { .. } => SeedMode::Git,
        };
        let dest = match self.dest {
            Some(dest) => dest.0,
            None => GuestPath::new(GUEST_PATH).map_err(|bad| {
                Error::new(ErrorKind::Internal, "the workspace has no path").because(bad)
            })?,
        };
        let destination = dest.to_string();
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let (delete, dry_run, checksum) = (self.delete, self.dry_run, self.checksum);
        let call = Push { dest, delete, dry_run, checksum };
        let pushing = push(live.agent(), source, call, live.path(), &context.cancel);
        let pushed = told("pushing to", &live, &context, pushing).await?;
        for warning in &pushed.warnings {
            context.events.emit(Event::Warning(warning.clone())).await;
        }
        let end = pushed.end;
        let changed = end.created + end.updated + end.attributes + end.deleted;
        let told = pushed.changes.len() as u64;
        Ok(WorkspaceSyncPushAnswer {
            workspace_id: live.id().to_string(),
            workspace_sync: WorkspaceSync {
                mode,
                source_path: source_path.path().to_string_lossy().into_owned(),
                destination,
                entry_count: pushed.entry_count,
                bytes_written: end.bytes_written,
                dry_run,
                changed: changed > 0,
                created: end.created,
                updated: end.updated,
                attributes: end.attributes,
                deleted: end.deleted,
                changes: pushed.changes.into_iter().map(PushedChange::from).collect(),
                changes_omitted: changed.saturating_sub(told),
                warnings: pushed.warnings,
            },
        })
    }
}

impl Answer for WorkspaceSyncPushAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let sync = &self.workspace_sync;
        for change in &sync.changes {
            let letter = match change.action {
                PushedAction::Created => 'A',
                PushedAction::Updated | PushedAction::Attributes => 'M',
                PushedAction::Deleted => 'D',
            };
            writeln!(page, "{letter} {}", change.path)?;
        }
        if sync.changes_omitted > 0 {
            writeln!(page, "[{} more]", sync.changes_omitted)?;
        }
        let would = if sync.dry_run { "would be " } else { "" };
        writeln!(
            page,
            "{} of {} entries {would}changed: {} created, {} updated, {} with other attributes, \
             {} deleted; {} bytes sent",
            sync.created + sync.updated + sync.attributes,
            sync.entry_count,
            sync.created,
            sync.updated,
            sync.attributes,
            sync.deleted,
            sync.bytes_written
        )
    }
}
