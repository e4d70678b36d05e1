use super::ServiceReport;
use crate::operation::argument::{ServiceRef, WorkspaceRef};
use crate::operation::{Context, Effect, Operation};
use crate::workspace::{Live, service};
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Show what a service is and how it is.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ServiceStatus {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// The service.
    #[arg(value_name = "SERVICE")]
    #[schemars(with = "ServiceRef")]
    pub service_name: ServiceRef,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace service status fix-parser web
  pyro workspace service status fix-parser web --json | jq -r .state";

impl Operation for ServiceStatus {
    const PATH: &'static [&'static str] = &["workspace", "service", "status"];
    const TOOL: Option<&'static str> = Some("service_status");
    const EFFECT: Effect = Effect::Reads;
    type Output = ServiceReport;

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ServiceReport> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let served = service::status(&live, &self.service_name.0, &context).await?;
        Ok(ServiceReport::of(&live, served))
    }
}
