use super::{NetworkConnections, NetworkKibPerSecond, NetworkRule, Number};
use crate::Result;
use crate::config::Config;
use crate::egress::policy::{Effect, Policy};
use crate::egress::{Network, NetworkLimits, NetworkPolicy};
use crate::error::{Error, ErrorKind};

/// What is said of a new machine's network.
#[derive(Debug)]
pub struct WantedNetwork {
    /// What it may do.
    pub policy: NetworkPolicy,
    /// Where it may go.
    pub allow: Vec<NetworkRule>,
    /// At the same time.
    pub connections: NetworkConnections,
    /// From the guest.
    pub up: Option<NetworkKibPerSecond>,
    /// To it.
    pub down: Option<NetworkKibPerSecond>,
}

impl WantedNetwork {
    /// All of it, with the user's sets of rules. Once something is allowed, the
    /// rest is not.
    ///
    /// # Errors
    /// `InvalidInput` when it makes no sense.
    pub fn resolve(self, config: &Config) -> Result<Network> {
        let Self { policy, allow, connections, up, down } = self;
        let invalid = |message: String| Error::new(ErrorKind::InvalidInput, message);
        if policy == NetworkPolicy::Off && !allow.is_empty() {
            let message = "rules allow nothing without a network";
            return Err(invalid(message.into()).hint("add `--network-policy egress`"));
        }
        let mut rules = if allow.is_empty() { Policy::open() } else { Policy::closed() };
        for rule in allow {
            let said = rule.said(Effect::Allow, config)?;
            rules.append(said).map_err(|error| invalid(error.to_string()))?;
        }
        let limits = NetworkLimits {
            connections: Some(connections.positive()),
            up_kib_per_second: up.map(Number::positive),
            down_kib_per_second: down.map(Number::positive),
        };
        Ok(Network { policy, rules, limits })
    }
}
