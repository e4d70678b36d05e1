use super::PortsAnswer;
use crate::operation::argument::WorkspaceRef;
use crate::operation::{Context, Effect, Operation};
use crate::workspace::find::find;
use crate::workspace::port;
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// List the published TCP ports of a workspace.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct PortList {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace port list fix-parser
  pyro workspace port list fix-parser --json | jq '.published_ports[].host_port'";

impl Operation for PortList {
    const PATH: &'static [&'static str] = &["workspace", "port", "list"];
    const TOOL: Option<&'static str> = Some("port_list");
    const EFFECT: Effect = Effect::Reads;
    type Output = PortsAnswer;

    async fn run(self, pyro: &Pyro, context: Context) -> Result<PortsAnswer> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let ports = port::list(&place, &context).await?;
        Ok(PortsAnswer::of(place.id(), ports))
    }
}
