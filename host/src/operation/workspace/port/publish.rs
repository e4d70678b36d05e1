use super::PortsAnswer;
use crate::operation::argument::{PortMapping, WorkspaceRef};
use crate::operation::{Context, Effect, Operation};
use crate::workspace::find::find;
use crate::workspace::port;
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Publish TCP ports of a workspace on 127.0.0.1 of the host.
///
/// Programs of the host, and nobody else, then reach servers in the guest that
/// listen on its loopback or on all addresses, now or later; the guest gets no
/// network by it. Lasts until it is taken back, or the workspace stops.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct PortPublish {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// Each a port of the guest, at any free port of the host, or `HOST:GUEST`.
    #[arg(value_name = "[HOST:]GUEST", required = true, num_args = 1..)]
    #[schemars(length(min = 1))]
    pub ports: Vec<PortMapping>,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace port publish fix-parser 8000
  pyro workspace port publish fix-parser 8080:80 5432";

impl Operation for PortPublish {
    const PATH: &'static [&'static str] = &["workspace", "port", "publish"];
    const TOOL: Option<&'static str> = Some("port_publish");
    const EFFECT: Effect = Effect::Changes;
    const REPEATABLE: bool = true;
    type Output = PortsAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<PortsAnswer> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let mappings: Vec<_> = self.ports.iter().map(|PortMapping(mapping)| *mapping).collect();
        let ports = port::publish(&place, &mappings, &context).await?;
        Ok(PortsAnswer::of(place.id(), ports))
    }
}
