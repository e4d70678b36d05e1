use super::WorkspaceSummary;
use crate::operation::argument::{Label, Labels, TtlSeconds, WorkspaceRef};
use crate::operation::{Context, Effect, Operation};
use crate::workspace::find::find;
use crate::workspace::record::TtlAction;
use crate::workspace::update::{self, Changes};
use crate::{Error, ErrorKind, Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Change a workspace's name, labels or time to live.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct WorkspaceUpdate {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// What to call it from now on.
    #[arg(long, value_name = "NAME", conflicts_with = "clear_name")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub name: Option<String>,
    /// Take its name away.
    #[arg(long)]
    #[serde(default)]
    pub clear_name: bool,
    /// Set a label; others stay.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    #[serde(default, deserialize_with = "Labels::deserialize")]
    #[schemars(with = "Labels")]
    pub labels: Vec<Label>,
    /// Take a label away.
    #[arg(long = "clear-label", value_name = "KEY")]
    #[serde(default)]
    pub clear_labels: Vec<String>,
    /// Let it live so many seconds from now.
    #[arg(long, value_name = "N", conflicts_with = "clear_ttl")]
    #[serde(default)]
    #[schemars(with = "TtlSeconds")]
    pub ttl_seconds: Option<TtlSeconds>,
    /// What happens when that time is over; as before if not given.
    #[arg(long, value_name = "stop|delete")]
    #[serde(default)]
    #[schemars(with = "TtlAction")]
    pub ttl_action: Option<TtlAction>,
    /// Let it live until it is deleted.
    #[arg(long)]
    #[serde(default)]
    pub clear_ttl: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace update fix-parser --label owner=ada --clear-label draft
  pyro workspace update fix-parser --ttl-seconds 7200";

impl Operation for WorkspaceUpdate {
    const PATH: &'static [&'static str] = &["workspace", "update"];
    const TOOL: Option<&'static str> = Some("workspace_update");
    const EFFECT: Effect = Effect::Changes;
    const REPEATABLE: bool = true;
    type Output = WorkspaceSummary;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    async fn run(self, pyro: &Pyro, _: Context) -> Result<WorkspaceSummary> {
        let both = |one: &str, other: &str| {
            Error::new(ErrorKind::InvalidInput, format!("{one} and {other} exclude each other"))
                .hint("give one of them")
        };
        let name = match (self.name, self.clear_name) {
            (Some(_), true) => return Err(both("name", "clear_name")),
            (Some(name), false) => Some(Some(name)),
            (None, true) => Some(None),
            (None, false) => None,
        };
        let ttl = match (self.ttl_seconds, self.clear_ttl) {
            (Some(_), true) => return Err(both("ttl_seconds", "clear_ttl")),
            (Some(seconds), false) => Some(Some(seconds.get())),
            (None, true) => Some(None),
            (None, false) => None,
        };
        let changes = Changes {
            name,
            labels: Labels::collect(self.labels),
            clear_labels: self.clear_labels,
            ttl,
            ttl_action: self.ttl_action,
        };
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let record = update::update(pyro, &place, changes).await?;
        Ok(WorkspaceSummary::new(&place, record))
    }
}
