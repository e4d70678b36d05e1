use super::{GraceSeconds, ServiceReport, grace};
use crate::operation::argument::{ServiceRef, WorkspaceRef};
use crate::operation::{Context, Effect, Operation};
use crate::workspace::{Live, service};
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Stop a service.
///
/// TERM to all that it started, KILL to what is left after the grace. It stays
/// listed with its log. One that is over stays as it is.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ServiceStop {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// The service.
    #[arg(value_name = "SERVICE")]
    #[schemars(with = "ServiceRef")]
    pub service_name: ServiceRef,
    /// How many seconds it may take to obey TERM; then it gets KILL.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub grace_seconds: GraceSeconds,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace service stop fix-parser web
  pyro workspace service stop fix-parser db --grace-seconds 60";

impl Operation for ServiceStop {
    const PATH: &'static [&'static str] = &["workspace", "service", "stop"];
    const TOOL: Option<&'static str> = Some("service_stop");
    const EFFECT: Effect = Effect::Destroys;
    const REPEATABLE: bool = true;
    type Output = ServiceReport;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.service_name.0.to_string())
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ServiceReport> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let ServiceRef(name) = self.service_name;
        let served = service::stop(&live, &name, grace(self.grace_seconds), &context).await?;
        Ok(ServiceReport::of(&live, served))
    }
}
