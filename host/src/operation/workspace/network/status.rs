use crate::egress::NetworkPolicy;
use crate::egress::policy::Effect;
use crate::operation::argument::WorkspaceRef;
use crate::operation::{Answer, Context, Effect as Does, Operation, Page};
use crate::workspace::Record;
use crate::workspace::find::find;
use crate::{Pyro, Result};
use pyro_protocol::egress::{GATEWAY_V4, GATEWAY_V6};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use std::num::NonZeroU32;

/// Show a workspace's network policy and its rules.
///
/// The first rule that matches decides.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct NetworkStatus {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace network status fix-parser";

/// A network policy and its rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NetworkStatusAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// What its network may do.
    pub network_policy: NetworkPolicy,
    /// Its rules, in the order in which they are asked.
    pub rules: Vec<NetworkRuleEntry>,
    /// What becomes of what no rule matches. Addresses that are not public are
    /// denied then in any case.
    pub otherwise: Effect,
    /// Where the guest's names are resolved; none without a network.
    pub name_servers: Vec<String>,
    /// Connections and datagram flows at the same time, at most.
    pub connections: u32,
    /// KiB that may leave it in a second; null is no limit.
    pub up_kib_per_second: Option<u32>,
    /// KiB that may reach it in a second; null is no limit.
    pub down_kib_per_second: Option<u32>,
    /// The rules that were just added.
    pub added: Vec<String>,
    /// The ids of those that were just removed.
    pub removed: Vec<String>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NetworkRuleEntry {
    /// Its name in events.
    pub id: String,
    /// What it does.
    pub effect: Effect,
    /// With what.
    pub rule: String,
    /// The set that it came with; null for none.
    pub set: Option<String>,
}

impl NetworkStatusAnswer {
    pub(super) fn of(record: &Record) -> Self {
        let rules = record.network_rules.rules.iter().map(|rule| NetworkRuleEntry {
            id: rule.id.to_string(),
            effect: rule.effect,
            rule: rule.matcher.to_string(),
            set: rule.set.as_ref().map(ToString::to_string),
        });
        let limits = record.network_limits;
        Self {
            workspace_id: record.workspace_id.to_string(),
            network_policy: record.network_policy,
            rules: rules.collect(),
            otherwise: match record.network_policy {
                NetworkPolicy::Off => Effect::Deny,
                NetworkPolicy::Egress | NetworkPolicy::EgressAndPublishedPorts => {
                    record.network_rules.otherwise
                }
            },
            name_servers: match record.network_policy {
                NetworkPolicy::Off => Vec::new(),
                NetworkPolicy::Egress | NetworkPolicy::EgressAndPublishedPorts => {
                    vec![GATEWAY_V4.to_string(), GATEWAY_V6.to_string()]
                }
            },
            connections: limits.flows_max(),
            up_kib_per_second: limits.up_kib_per_second.map(NonZeroU32::get),
            down_kib_per_second: limits.down_kib_per_second.map(NonZeroU32::get),
            added: Vec::new(),
            removed: Vec::new(),
        }
    }
}

impl Operation for NetworkStatus {
    const PATH: &'static [&'static str] = &["workspace", "network", "status"];
    const TOOL: Option<&'static str> = Some("network_status");
    const EFFECT: Does = Does::Reads;
    type Output = NetworkStatusAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    async fn run(self, pyro: &Pyro, _: Context) -> Result<NetworkStatusAnswer> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        Ok(NetworkStatusAnswer::of(&place.record()?))
    }
}

impl Answer for NetworkStatusAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        writeln!(page, "policy {}", self.network_policy)?;
        for NetworkRuleEntry { id, effect, rule, set } in &self.rules {
            let of = set.as_deref().map(|name| format!(" of {name}")).unwrap_or_default();
            writeln!(page, "{id} {effect} {rule}{of}")?;
        }
        writeln!(page, "otherwise {}", self.otherwise)?;
        let limits = [(self.up_kib_per_second, "up"), (self.down_kib_per_second, "down")];
        for (limit, way) in limits {
            if let Some(kib) = limit {
                writeln!(page, "{way} at most {kib} KiB/s")?;
            }
        }
        Ok(())
    }
}
