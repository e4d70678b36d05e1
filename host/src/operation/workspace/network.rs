//! Operations on a workspace's network.

mod allow;
mod deny;
mod explain;
mod remove;
mod status;

pub use allow::NetworkAllow;
pub use deny::NetworkDeny;
pub use explain::{NetworkExplain, NetworkExplainAnswer};
pub use remove::NetworkRemove;
pub use status::{NetworkRuleEntry, NetworkStatus, NetworkStatusAnswer};

use crate::egress::policy::Effect;
use crate::operation::argument::{NetworkRule, WorkspaceRef};
use crate::workspace::find::find;
use crate::workspace::network;
use crate::{Pyro, Result};

/// Puts what a rule says before all others.
async fn put_first(
    pyro: &Pyro,
    workspace: &WorkspaceRef,
    effect: Effect,
    rule: NetworkRule,
) -> Result<NetworkStatusAnswer> {
    let place = find(&pyro.config, workspace.as_str())?;
    let said = rule.said(effect, &pyro.config)?;
    let (record, added) = network::add(&place, said).await?;
    let added = added.iter().map(ToString::to_string).collect();
    Ok(NetworkStatusAnswer { added, ..NetworkStatusAnswer::of(&record) })
}
