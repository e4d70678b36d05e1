use crate::egress::NetworkPolicy;
use crate::egress::policy::{Effect, Protocol};
use crate::operation::argument::WorkspaceRef;
use crate::operation::{Answer, Context, Effect as Does, Operation, Page};
use crate::workspace::find::find;
use crate::workspace::network;
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Say whether a workspace's network may reach a host, and which rule decides.
///
/// Nothing is sent. A name is taken to lead to a public address.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct NetworkExplain {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// A name or an address.
    #[arg(value_name = "HOST")]
    pub host: String,
    /// The TCP or UDP port there.
    #[arg(long, value_name = "N", default_value_t = default_port())]
    #[serde(default = "default_port")]
    pub port: u16,
    /// Datagrams, not a connection.
    #[arg(long)]
    #[serde(default)]
    pub udp: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace network explain fix-parser pypi.org
  pyro workspace network explain fix-parser 169.254.169.254 --port 80";

const fn default_port() -> u16 {
    443
}

/// What decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NetworkExplainAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// The host that was asked about.
    pub host: String,
    /// Whether it may be reached.
    pub effect: Effect,
    /// What decides, as in events: a rule's id, `otherwise`, or `built-in:` and a
    /// word.
    pub rule: String,
    /// The same in words.
    pub reason: String,
}

impl Operation for NetworkExplain {
    const PATH: &'static [&'static str] = &["workspace", "network", "explain"];
    const TOOL: Option<&'static str> = Some("network_explain");
    const EFFECT: Does = Does::Reads;
    type Output = NetworkExplainAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.host.clone())
    }

    async fn run(self, pyro: &Pyro, _: Context) -> Result<NetworkExplainAnswer> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let record = place.record()?;
        let protocol = if self.udp { Protocol::Udp } else { Protocol::Tcp };
        let verdict = network::explain(&record, &self.host, self.port, protocol)?;
        let workspace_id = record.workspace_id.to_string();
        Ok(match record.network_policy {
            NetworkPolicy::Off => NetworkExplainAnswer {
                workspace_id,
                host: self.host,
                effect: Effect::Deny,
                rule: "off".into(),
                reason: "the workspace has no network".into(),
            },
            NetworkPolicy::Egress | NetworkPolicy::EgressAndPublishedPorts => {
                NetworkExplainAnswer {
                    workspace_id,
                    host: self.host,
                    effect: verdict.effect,
                    rule: verdict.reason.to_string(),
                    reason: network::reason(&record, &verdict),
                }
            }
        })
    }
}

impl Answer for NetworkExplainAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let Self { host, effect, rule, reason, .. } = self;
        writeln!(page, "{effect} {host} by {rule}: {reason}")
    }
}
