use super::WorkspaceSummary;
use super::snapshot::SnapshotKind;
use crate::operation::argument::WorkspaceRef;
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::find::find;
use crate::workspace::reset;
use crate::workspace::snapshot::{SnapshotName, SnapshotRef};
use crate::workspace::template::Start;
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Take a workspace back to its baseline, or to a snapshot.
///
/// All that was changed in it since is lost, outside `/workspace` as well; its
/// processes end. It keeps id, name, labels, history and snapshots. The old disk is
/// dropped only once the machine answers on the new one.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct WorkspaceReset {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// The snapshot; `baseline`, what it was seeded with, if not given.
    #[arg(long, value_name = "NAME")]
    #[serde(default)]
    #[schemars(with = "SnapshotName")]
    pub snapshot: Option<SnapshotRef>,
    /// Boot instead of restoring a template.
    #[arg(long)]
    #[serde(default)]
    pub cold: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace reset fix-parser
  pyro workspace reset fix-parser --snapshot before-upgrade";

/// The workspace, and what it was taken back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WorkspaceResetAnswer {
    /// The workspace.
    #[serde(flatten)]
    pub workspace: WorkspaceSummary,
    /// What it was taken back to.
    pub workspace_reset: ResetTo,
}

/// What a workspace was taken back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ResetTo {
    /// Its name.
    pub snapshot_name: String,
    /// What it is.
    pub kind: SnapshotKind,
    /// Where the seed is in the guest.
    pub destination: String,
    /// How many entries the seed has.
    pub entry_count: u64,
    /// How many bytes the seed's files have.
    pub bytes_written: u64,
}

impl WorkspaceReset {
    /// Back to the baseline.
    pub fn new(workspace: impl Into<WorkspaceRef>) -> Self {
        Self { workspace_id: workspace.into(), snapshot: None, cold: false }
    }
}

impl Operation for WorkspaceReset {
    const PATH: &'static [&'static str] = &["workspace", "reset"];
    const TOOL: Option<&'static str> = Some("workspace_reset");
    const EFFECT: Effect = Effect::Destroys;
    type Output = WorkspaceResetAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        self.snapshot.as_ref().map(ToString::to_string)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<WorkspaceResetAnswer> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let to = self.snapshot.unwrap_or(SnapshotRef::Baseline);
        let record = reset::reset(pyro, &place, &to, Start::unless(self.cold), &context).await?;
        let workspace = WorkspaceSummary::new(&place, record);
        let seed = &workspace.workspace_seed;
        let workspace_reset = ResetTo {
            snapshot_name: to.to_string(),
            kind: match to {
                SnapshotRef::Baseline => SnapshotKind::Baseline,
                SnapshotRef::Named(_) => SnapshotKind::Named,
            },
            destination: workspace.workspace_path.clone(),
            entry_count: seed.entry_count,
            bytes_written: seed.bytes_written,
        };
        Ok(WorkspaceResetAnswer { workspace, workspace_reset })
    }
}

impl Answer for WorkspaceResetAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let ResetTo { snapshot_name, kind, entry_count, bytes_written, .. } = &self.workspace_reset;
        match kind {
            SnapshotKind::Baseline => writeln!(
                page,
                "Reset to {snapshot_name}: {entry_count} entries, {bytes_written} bytes"
            )?,
            SnapshotKind::Named => writeln!(page, "Reset to snapshot {snapshot_name}")?,
        }
        self.workspace.render(page)
    }
}
