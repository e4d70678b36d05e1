use super::{NetworkStatusAnswer, put_first};
use crate::egress::policy::Effect;
use crate::operation::argument::{NetworkRule, WorkspaceRef};
use crate::operation::{Context, Effect as Does, Operation};
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Deny a workspace's network something, from now on.
///
/// The rule goes before all others. Connections that it matches end at once.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct NetworkDeny {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// What: a name, `*.` and a name, an address, a network, or `*`; after it
    /// maybe `:` and ports, before it `tcp:` or `udp:`.
    #[arg(value_name = "RULE")]
    pub rule: NetworkRule,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace network deny fix-parser '*.example.org'
  pyro workspace network deny fix-parser '*'";

impl Operation for NetworkDeny {
    const PATH: &'static [&'static str] = &["workspace", "network", "deny"];
    const TOOL: Option<&'static str> = Some("network_deny");
    const EFFECT: Does = Does::Changes;
    const REPEATABLE: bool = true;
    type Output = NetworkStatusAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.rule.to_string())
    }

    async fn run(self, pyro: &Pyro, _: Context) -> Result<NetworkStatusAnswer> {
        put_first(pyro, &self.workspace_id, Effect::Deny, self.rule).await
    }
}
