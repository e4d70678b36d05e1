use super::NetworkStatusAnswer;
use crate::operation::argument::{NetworkRuleRef, WorkspaceRef};
use crate::operation::{Context, Effect as Does, Operation};
use crate::workspace::find::find;
use crate::workspace::network;
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Take back a rule of a workspace's network, or all of a set.
///
/// Connections that the others do not allow end at once.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct NetworkRemove {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// Which: its id such as `r2`, the rule as it was given, or `@NAME` for those
    /// of a set.
    #[arg(value_name = "RULE")]
    pub rule: NetworkRuleRef,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace network remove fix-parser r2
  pyro workspace network remove fix-parser @python";

impl Operation for NetworkRemove {
    const PATH: &'static [&'static str] = &["workspace", "network", "remove"];
    const TOOL: Option<&'static str> = Some("network_remove");
    const EFFECT: Does = Does::Changes;
    type Output = NetworkStatusAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.rule.0.to_string())
    }

    async fn run(self, pyro: &Pyro, _: Context) -> Result<NetworkStatusAnswer> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let (record, removed) = network::remove(&place, &self.rule.0).await?;
        let removed = removed.iter().map(ToString::to_string).collect();
        Ok(NetworkStatusAnswer { removed, ..NetworkStatusAnswer::of(&record) })
    }
}
