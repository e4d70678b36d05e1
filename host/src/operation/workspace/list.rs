use super::summary::{shown_labels, shown_time};
use crate::operation::argument::{Label, Labels};
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::service::{self, COUNT_PATIENCE};
use crate::workspace::{Place, State};
use crate::{Pyro, Result};
use anstyle::Style;
use futures::future::join_all;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use tokio::time::Instant;

/// List the workspaces of this host.
///
/// The most recently used come first.
#[derive(Debug, Clone, Default, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct WorkspaceList {
    /// Only those whose name contains this.
    #[arg(long, value_name = "TEXT")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub name: Option<String>,
    /// Only those that have this label; several must all be there.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    #[serde(default, deserialize_with = "Labels::deserialize")]
    #[schemars(with = "Labels")]
    pub labels: Vec<Label>,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace list
  pyro workspace list --label branch=main --json | jq -r '.workspaces[].workspace_id'";

/// The workspaces, the most recently used first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WorkspaceListAnswer {
    /// How many there are.
    pub count: usize,
    /// Each of them.
    pub workspaces: Vec<Listed>,
}

/// A workspace in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Listed {
    /// Its id.
    pub workspace_id: String,
    /// What its owner calls it.
    pub name: Option<String>,
    /// What else its owner says of it.
    pub labels: BTreeMap<String, String>,
    /// The environment it was made from; null when its record is damaged.
    pub environment: Option<String>,
    /// What it is doing.
    pub state: State,
    /// When it was made, RFC 3339 in UTC.
    #[schemars(with = "Option<String>")]
    pub created_at: Option<Timestamp>,
    /// When it was last changed or used, RFC 3339 in UTC.
    #[schemars(with = "Option<String>")]
    pub last_activity_at: Option<Timestamp>,
    /// When its time is over, RFC 3339 in UTC.
    #[schemars(with = "Option<String>")]
    pub expires_at: Option<Timestamp>,
    /// How many commands were run in it.
    pub command_count: u64,
    /// How many services it has, also those that are over; null when that cannot
    /// be said at once.
    pub service_count: Option<u32>,
    /// How many of them run and are ready; null as before.
    pub running_service_count: Option<u32>,
    /// What is wrong with its record; null when nothing is.
    pub problem: Option<String>,
}

impl Listed {
    fn of(place: &Place) -> Self {
        match place.record() {
            Ok(record) => Self {
                workspace_id: record.workspace_id.to_string(),
                name: record.name,
                labels: record.labels,
                environment: Some(record.environment),
                state: place.state(),
                created_at: Some(record.created_at),
                last_activity_at: Some(place.last_activity().unwrap_or(record.created_at)),
                expires_at: record.ttl.map(|ttl| ttl.expires_at),
                command_count: place.command_count(),
                service_count: None,
                running_service_count: None,
                problem: None,
            },
            // It is in nobody else's way.
            Err(error) => Self {
                workspace_id: place.id().to_string(),
                name: None,
                labels: BTreeMap::new(),
                environment: None,
                state: State::Damaged,
                created_at: None,
                last_activity_at: place.last_activity(),
                expires_at: None,
                command_count: place.command_count(),
                service_count: None,
                running_service_count: None,
                problem: Some(error.chain()),
            },
        }
    }

    fn fits(&self, name: Option<&str>, labels: &[Label]) -> bool {
        let bears = |label: &Label| self.labels.get(&label.key) == Some(&label.value);
        name.is_none_or(|part| self.name.as_deref().is_some_and(|name| name.contains(part)))
            && labels.iter().all(bears)
    }
}

impl Operation for WorkspaceList {
    const PATH: &'static [&'static str] = &["workspace", "list"];
    const TOOL: Option<&'static str> = Some("workspace_list");
    const EFFECT: Effect = Effect::Reads;
    type Output = WorkspaceListAnswer;

    async fn run(self, pyro: &Pyro, _: Context) -> Result<WorkspaceListAnswer> {
        let places = Place::all(&pyro.config)?;
        let mut workspaces: Vec<_> = places
            .iter()
            .map(Listed::of)
            // Deleted between two looks.
            .filter(|listed| listed.problem.is_none() || is_there(&places, listed))
            .filter(|listed| listed.fits(self.name.as_deref(), &self.labels))
            .collect();
        workspaces.sort_by(|a, b| {
            let order = |w: &Listed| (Reverse(w.last_activity_at), Reverse(w.created_at));
            order(a).cmp(&order(b)).then_with(|| a.workspace_id.cmp(&b.workspace_id))
        });
        count_services(pyro, &places, &mut workspaces).await;
        Ok(WorkspaceListAnswer { count: workspaces.len(), workspaces })
    }
}

/// All guests are asked at the same time, and none is waited for longer.
async fn count_services(pyro: &Pyro, places: &[Place], workspaces: &mut [Listed]) {
    let deadline = Instant::now() + COUNT_PATIENCE;
    let counting = workspaces.iter_mut().map(|listed| async move {
        let place = places.iter().find(|place| place.id().to_string() == listed.workspace_id)?;
        let counts = service::count(pyro, place, deadline).await?;
        listed.service_count = Some(counts.services);
        listed.running_service_count = Some(counts.running);
        Some(())
    });
    join_all(counting).await;
}

fn is_there(places: &[Place], listed: &Listed) -> bool {
    places.iter().any(|place| place.id().to_string() == listed.workspace_id && place.is_there())
}

impl Answer for WorkspaceListAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        if self.workspaces.is_empty() {
            return writeln!(page, "No workspaces.");
        }
        let bold = Style::new().bold();
        let heading = ["WORKSPACE", "NAME", "STATE", "ENVIRONMENT", "LAST ACTIVITY", "LABELS"];
        let heading = heading.map(|cell| page.paint(bold, cell));
        let dash = || "-".to_owned();
        let rows = self.workspaces.iter().map(|workspace| {
            [
                workspace.workspace_id.clone(),
                workspace.name.clone().unwrap_or_else(dash),
                workspace.state.as_str().to_owned(),
                workspace.environment.clone().unwrap_or_else(dash),
                workspace.last_activity_at.map_or_else(dash, shown_time),
                shown_labels(&workspace.labels),
            ]
        });
        let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
        page.table(&rows)
    }
}
