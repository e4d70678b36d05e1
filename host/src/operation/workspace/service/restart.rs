use super::{GraceSeconds, ServiceStartAnswer, grace};
use crate::operation::argument::{ServiceRef, WorkspaceRef};
use crate::operation::{Context, Effect, Operation, Streams};
use crate::workspace::{Live, service};
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Stop a service and start it as it was started.
///
/// Also one that has ended or failed; with the same command, variables and
/// readiness. Its log goes on. Answers as service_start does.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ServiceRestart {
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
  pyro workspace service restart fix-parser web

Exit codes: as those of `pyro workspace service start`.";

impl Operation for ServiceRestart {
    const PATH: &'static [&'static str] = &["workspace", "service", "restart"];
    const TOOL: Option<&'static str> = Some("service_restart");
    const EFFECT: Effect = Effect::Destroys;
    const STREAMS: Streams = Streams::Answer;
    type Output = ServiceStartAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.service_name.0.to_string())
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ServiceStartAnswer> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let ServiceRef(name) = self.service_name;
        let served = service::restart(&live, &name, grace(self.grace_seconds), &context).await?;
        Ok(ServiceStartAnswer::new(&live, served, &context).await)
    }
}
