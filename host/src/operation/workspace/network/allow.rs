use super::{NetworkStatusAnswer, put_first};
use crate::egress::policy::Effect;
use crate::operation::argument::{NetworkRule, WorkspaceRef};
use crate::operation::{Context, Effect as Does, Operation};
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Allow a workspace's network something, from now on.
///
/// The rule goes before all others; those of a set replace what there was of it.
/// A private, link-local or otherwise not public address needs a rule that names
/// it by its network.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct NetworkAllow {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// What: a name, `*.` and a name, an address, a network, or `*`; after it
    /// maybe `:` and ports, before it `tcp:` or `udp:`. Or `@NAME`: what your
    /// configuration says under that name.
    #[arg(value_name = "RULE")]
    pub rule: NetworkRule,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace network allow fix-parser pypi.org:443
  pyro workspace network allow fix-parser tcp:10.0.0.0/8:5432
  pyro workspace network allow fix-parser @python";

impl Operation for NetworkAllow {
    const PATH: &'static [&'static str] = &["workspace", "network", "allow"];
    const TOOL: Option<&'static str> = Some("network_allow");
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
        put_first(pyro, &self.workspace_id, Effect::Allow, self.rule).await
    }
}
