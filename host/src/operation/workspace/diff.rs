mod answer;
mod stat;

pub use answer::{ChangeStatus, ChangeSummary, ChangedEntry, ChangedType, WorkspaceDiffAnswer};

use crate::event::{Event, Stream};
use crate::operation::argument::{OutputLimit, PathInGuest, WorkspaceRef};
use crate::operation::long::told;
use crate::operation::output::Ends;
use crate::operation::{Context, Effect, Operation, Streams};
use crate::workspace::Live;
use crate::{Pyro, Result};
use answer::Entries;
use pyro_protocol::diff::{Diff, DiffDetail, DiffEntry, DiffRecord, DiffScope};
use schemars::JsonSchema;
use serde::Deserialize;
use stat::Stat;

/// Show what has changed in a workspace since it was made.
///
/// The patch is git's, with modes, renames and binary contents: `git apply`
/// takes it. Empty directories and special files are entries without a patch;
/// what is in `.git` is left out unless it is named.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct WorkspaceDiff {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// Only these paths and what is below them.
    #[arg(value_name = "PATH")]
    #[serde(default)]
    pub paths: Vec<PathInGuest>,
    /// Compare everything outside /workspace with the environment instead.
    #[arg(long)]
    #[serde(default)]
    pub system: bool,
    /// No patch, only how many lines changed in each file.
    #[arg(long)]
    #[serde(default)]
    pub stat: bool,
    /// No patch, only the names of what changed.
    #[arg(long, conflicts_with = "stat")]
    #[serde(default)]
    pub name_only: bool,
    /// End names with a NUL byte and leave them unquoted.
    #[arg(short = 'z', long, requires = "name_only")]
    #[serde(default)]
    pub null: bool,
    /// How many bytes of the patch an answer in JSON holds: its first half and
    /// its last half.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub output_limit_bytes: OutputLimit,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace diff fix-parser
  pyro workspace diff fix-parser --stat src
  pyro workspace diff fix-parser | git apply";

impl WorkspaceDiff {
    /// The whole patch of a workspace.
    pub fn new(workspace: impl Into<WorkspaceRef>) -> Self {
        Self {
            workspace_id: workspace.into(),
            paths: Vec::new(),
            system: false,
            stat: false,
            name_only: false,
            null: false,
            output_limit_bytes: OutputLimit::default(),
        }
    }

    fn request(&self) -> Diff {
        Diff {
            scope: if self.system { DiffScope::System } else { DiffScope::Workspace },
            paths: self.paths.iter().map(|path| path.0.clone()).collect(),
            detail: match (self.name_only, self.stat) {
                (true, _) => DiffDetail::Names,
                (false, true) => DiffDetail::Counts,
                (false, false) => DiffDetail::Patch,
            },
        }
    }
}

impl Operation for WorkspaceDiff {
    const PATH: &'static [&'static str] = &["workspace", "diff"];
    const TOOL: Option<&'static str> = Some("workspace_diff");
    const EFFECT: Effect = Effect::Reads;
    const STREAMS: Streams = Streams::Answer;
    type Output = WorkspaceDiffAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<WorkspaceDiffAnswer> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let request = self.request();
        let detail = request.detail;
        let mut entries = Entries::default();
        let mut patch = Ends::new(self.output_limit_bytes.get());
        let mut stat = Stat::default();
        let redactor = live.redactor();
        let mut discreet = redactor.stream();
        let tell = |bytes: Vec<u8>| {
            let told = Event::Output { stream: Stream::Stdout, bytes };
            let events = context.events.clone();
            async move { events.emit(told).await }
        };
        let hear = |record: DiffRecord| {
            let bytes = match record {
                DiffRecord::Patch(piece) => {
                    let piece = discreet.push(piece.0);
                    patch.push(&piece);
                    piece
                }
                DiffRecord::Entry(entry) => {
                    let old_path = entry.old_path.map(|path| redactor.path(&path));
                    let entry = DiffEntry { path: redactor.path(&entry.path), old_path, ..entry };
                    let name = match detail {
                        DiffDetail::Names => stat::name(&entry, self.null),
                        DiffDetail::Counts | DiffDetail::Patch => Vec::new(),
                    };
                    stat.add(&entry);
                    entries.add(&entry);
                    name
                }
            };
            let told = (!bytes.is_empty()).then(|| tell(bytes));
            async move {
                if let Some(told) = told {
                    told.await;
                }
            }
        };
        let comparing = live.agent().diff(request, hear);
        let summary = told("comparing", &live, &context, comparing).await?;
        let rest = discreet.finish();
        if !rest.is_empty() {
            patch.push(&rest);
            tell(rest).await;
        }
        if detail == DiffDetail::Counts {
            tell(stat.table().into_bytes()).await;
        }
        for warning in answer::warnings(&summary) {
            context.events.emit(Event::Warning(warning)).await;
        }
        Ok(WorkspaceDiffAnswer::new(live.id(), summary, entries, patch.finish()))
    }
}
