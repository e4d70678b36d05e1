use super::{GraceSeconds, grace};
use crate::operation::argument::{ServiceRef, WorkspaceRef};
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::{Live, service};
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Remove a service and its log, stopping it first if it is not over.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ServiceRemove {
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
  pyro workspace service remove fix-parser web";

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ServiceRemoved {
    /// The workspace.
    pub workspace_id: String,
    /// What the service was called.
    pub service_name: String,
    /// That it is gone.
    pub removed: bool,
}

impl Operation for ServiceRemove {
    const PATH: &'static [&'static str] = &["workspace", "service", "remove"];
    const TOOL: Option<&'static str> = Some("service_remove");
    const EFFECT: Effect = Effect::Destroys;
    type Output = ServiceRemoved;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.service_name.0.to_string())
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ServiceRemoved> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let ServiceRef(name) = self.service_name;
        service::remove(&live, &name, grace(self.grace_seconds), &context).await?;
        let (workspace_id, service_name) = (live.id().to_string(), name.into());
        Ok(ServiceRemoved { workspace_id, service_name, removed: true })
    }
}

impl Answer for ServiceRemoved {
    fn render(&self, page: &mut Page) -> fmt::Result {
        writeln!(page, "Removed service: {}", self.service_name)
    }
}
