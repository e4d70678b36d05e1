use super::{ServiceReport, ServiceReportState};
use crate::operation::argument::WorkspaceRef;
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::{Live, service};
use crate::{Pyro, Result};
use anstyle::Style;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// List the services of a workspace, also those that are over.
///
/// They are there until they are removed or the workspace is stopped.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ServiceList {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace service list fix-parser
  pyro workspace service list fix-parser --json | jq .running_count";

/// The services of a workspace, by their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ServiceListAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// How many there are.
    pub count: usize,
    /// How many of them run and are ready.
    pub running_count: usize,
    /// Each of them.
    pub services: Vec<ServiceReport>,
}

impl Operation for ServiceList {
    const PATH: &'static [&'static str] = &["workspace", "service", "list"];
    const TOOL: Option<&'static str> = Some("service_list");
    const EFFECT: Effect = Effect::Reads;
    type Output = ServiceListAnswer;

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ServiceListAnswer> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let services = service::list(&live, &context).await?;
        let services: Vec<_> =
            services.into_iter().map(|served| ServiceReport::of(&live, served)).collect();
        let is_running = |service: &&ServiceReport| service.state == ServiceReportState::Running;
        Ok(ServiceListAnswer {
            workspace_id: live.id().to_string(),
            count: services.len(),
            running_count: services.iter().filter(is_running).count(),
            services,
        })
    }
}

impl Answer for ServiceListAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        if self.services.is_empty() {
            return writeln!(page, "No services.");
        }
        let bold = Style::new().bold();
        let heading = ["SERVICE", "STATE", "PORTS", "COMMAND"].map(|cell| page.paint(bold, cell));
        let rows = self.services.iter().map(|service| {
            let command = service.command.chars().take(COMMAND_SHOWN).collect();
            let ports: Vec<_> = service.published_ports.iter().map(|p| p.connection()).collect();
            [service.service_name.clone(), service.condition(), ports.join(", "), command]
        });
        let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
        page.table(&rows)
    }
}

/// How much of a command a line of a list shows.
const COMMAND_SHOWN: usize = 200;
