use super::PortsAnswer;
use crate::operation::argument::{PortMapping, WorkspaceRef};
use crate::operation::{Context, Effect, Operation};
use crate::workspace::find::find;
use crate::workspace::port;
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Take published TCP ports of a workspace back, and end their connections.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct PortUnpublish {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// Each a port of the guest, wherever it is published, or `HOST:GUEST`.
    #[arg(value_name = "[HOST:]GUEST", required = true, num_args = 1..)]
    #[schemars(length(min = 1))]
    pub ports: Vec<PortMapping>,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace port unpublish fix-parser 8000
  pyro workspace port unpublish fix-parser 8080:80";

impl Operation for PortUnpublish {
    const PATH: &'static [&'static str] = &["workspace", "port", "unpublish"];
    const TOOL: Option<&'static str> = Some("port_unpublish");
    const EFFECT: Effect = Effect::Changes;
    type Output = PortsAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<PortsAnswer> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let mappings: Vec<_> = self.ports.iter().map(|PortMapping(mapping)| *mapping).collect();
        let ports = port::unpublish(&place, &mappings, &context).await?;
        Ok(PortsAnswer::of(place.id(), ports))
    }
}
