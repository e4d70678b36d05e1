//! One rule, and how it is written.
//!
//! ```text
//! [tcp:|udp:] TARGET [:PORT[-PORT][,..]]
//! TARGET  *  NAME  *.NAME  IPV4[/LEN]  IPV6[/LEN]  [IPV6[/LEN]]
//! ```

use super::name::{DomainName, NamePattern};
use super::{Destination, Protocol};
use crate::egress::set::SetName;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The most ports and ranges of ports of a rule.
const PORTS_MAX: usize = 16;

/// The longest rule: a name, its protocol, and its ports.
const TEXT_MAX: usize = 1200;

/// Names a rule in events and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleId(pub u32);

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It may be reached.
    Allow,
    /// It may not.
    Deny,
}

/// One rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name in events.
    pub id: RuleId,
    /// What it does.
    pub effect: Effect,
    /// With what.
    pub matcher: Matcher,
    /// The set that it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<SetName>,
}

/// A rule that is to be one of a policy's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// What it is to do.
    pub effect: Effect,
    /// With what.
    pub matcher: Matcher,
    /// The set that it comes with.
    pub set: Option<SetName>,
}

/// Which rules of a policy are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleRef {
    /// The one of this id.
    Id(RuleId),
    /// Those that speak of the very same.
    Matcher(Matcher),
    /// Those that came with a set.
    Set(SetName),
}

/// What a rule speaks of; written down as its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Matcher {
    target: Target,
    /// Both if not said.
    protocol: Option<Protocol>,
    /// First and last of each range; all ports if there is none.
    ports: Vec<(u16, u16)>,
}

/// Which hosts a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All of them.
    Any,
    /// Those that the gateway's DNS has told under such names.
    Names(NamePattern),
    /// Those of a network.
    Network(IpNet),
}

/// How much of what there may be at a name a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Every port of both protocols.
    All,
    /// Some of them.
    Some,
    /// Nothing.
    None,
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRule {
    /// Whom it speaks of cannot be told.
    #[error("{0:?} is neither a host name, nor an IP address, nor a network")]
    Target(String),
    /// A network has more bits than its length says.
    #[error("{given} has bits beyond its length; the network is {network}")]
    HostBits {
        /// As it was written.
        given: String,
        /// As it would be right.
        network: IpNet,
    },
    /// The ports cannot be told.
    #[error("{0:?} are no ports: write `443`, `80,443` or `8000-8999`")]
    Ports(String),
    /// Nobody needs so many.
    #[error("a rule has at most {PORTS_MAX} ports or ranges of them")]
    TooManyPorts,
    /// It is far too long.
    #[error("a rule has at most {TEXT_MAX} bytes")]
    TooLong,
}

impl Matcher {
    /// Whether it speaks of a destination.
    #[must_use]
    pub fn matches(&self, to: &Destination<'_>) -> bool {
        let host = match &self.target {
            Target::Any => true,
            Target::Names(pattern) => to.names.iter().any(|name| pattern.matches(name)),
            Target::Network(network) => network.contains(&to.address),
        };
        let port = self.ports.is_empty()
            || self.ports.iter().any(|(first, last)| (*first..=*last).contains(&to.port));
        host && port && self.protocol.is_none_or(|protocol| protocol == to.protocol)
    }

    /// Whether it names an address by a network.
    #[must_use]
    pub fn names(&self, address: IpAddr) -> bool {
        match &self.target {
            Target::Any | Target::Names(_) => false,
            Target::Network(network) => network.contains(&address),
        }
    }

    /// Whether it names addresses by a network that lies within another.
    #[must_use]
    pub fn names_within(&self, range: IpNet) -> bool {
        match &self.target {
            Target::Any | Target::Names(_) => false,
            Target::Network(network) => range.contains(network),
        }
    }

    /// How much of what there may be at a name it matches.
    pub(super) fn takes_name(&self, name: &DomainName) -> Takes {
        let matches = match &self.target {
            Target::Any => true,
            Target::Names(pattern) => pattern.matches(name),
            Target::Network(_) => false,
        };
        match (matches, self.protocol.is_none() && self.ports.is_empty()) {
            (false, _) => Takes::None,
            (true, true) => Takes::All,
            (true, false) => Takes::Some,
        }
    }

    /// Whom it speaks of.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }
}

impl FromStr for Matcher {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        if text.len() > TEXT_MAX {
            return Err(BadRule::TooLong);
        }
        let (protocol, rest) = match (text.strip_prefix("tcp:"), text.strip_prefix("udp:")) {
            (Some(rest), _) => (Some(Protocol::Tcp), rest),
            (None, Some(rest)) => (Some(Protocol::Udp), rest),
            (None, None) => (None, text),
        };
        let (target, ports) = split_ports(rest);
        Ok(Self {
            target: parse_target(target)?,
            protocol,
            ports: ports.map(parse_ports).transpose()?.unwrap_or_default(),
        })
    }
}

/// Parts the target from its ports. An IPv6 address with neither brackets nor a
/// length has none: its last group would be one.
fn split_ports(text: &str) -> (&str, Option<&str>) {
    if let Some((inside, after)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        match after.strip_prefix(':') {
            Some(ports) => return (inside, Some(ports)),
            None if after.is_empty() => return (inside, None),
            // No target at all.
            None => return (text, None),
        }
    }
    if text.parse::<IpAddr>().is_ok() {
        return (text, None);
    }
    text.rsplit_once(':').map_or((text, None), |(target, ports)| match target.contains(':') {
        // Of `fd00::/8` the colons are the network's own.
        true if !target.contains('/') => (text, None),
        _ => (target, Some(ports)),
    })
}

fn parse_target(text: &str) -> Result<Target, BadRule> {
    if text == "*" {
        return Ok(Target::Any);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Target::Network(address.into()));
    }
    if let Ok(network) = text.parse::<IpNet>() {
        return match network.trunc() == network {
            true => Ok(Target::Network(network)),
            false => Err(BadRule::HostBits { given: text.into(), network: network.trunc() }),
        };
    }
    let bad = || BadRule::Target(text.into());
    // Networks that are none would be no names either, but for the slash.
    let (below, name) = match text.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, text),
    };
    let name = DomainName::parse(name).map_err(|_| bad())?;
    Ok(Target::Names(match below {
        true => NamePattern::Below(name),
        false => NamePattern::Exact(name),
    }))
}

fn parse_ports(text: &str) -> Result<Vec<(u16, u16)>, BadRule> {
    let bad = || BadRule::Ports(text.into());
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        Ok(_) | Err(_) => Err(bad()),
    };
    let mut ports = Vec::new();
    for part in text.split(',') {
        if ports.len() == PORTS_MAX {
            return Err(BadRule::TooManyPorts);
        }
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(bad());
        }
        ports.push((first, last));
    }
    Ok(ports)
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(protocol) = self.protocol {
            write!(f, "{protocol}:")?;
        }
        match &self.target {
            Target::Any => f.write_str("*")?,
            Target::Names(pattern) => write!(f, "{pattern}")?,
            Target::Network(IpNet::V6(network)) if !self.ports.is_empty() => {
                write!(f, "[{network}]")?;
            }
            Target::Network(network) => write!(f, "{network}")?,
        }
        for (index, (first, last)) in self.ports.iter().enumerate() {
            f.write_str(if index == 0 { ":" } else { "," })?;
            match first == last {
                true => write!(f, "{first}")?,
                false => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Matcher {
    type Error = BadRule;

    fn try_from(text: String) -> Result<Self, BadRule> {
        text.parse()
    }
}

impl From<Matcher> for String {
    fn from(matcher: Matcher) -> Self {
        matcher.to_string()
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Matcher(matcher) => write!(f, "{matcher}"),
            Self::Set(name) => write!(f, "{name}"),
        }
    }
}

impl From<(Effect, Matcher)> for Said {
    fn from((effect, matcher): (Effect, Matcher)) -> Self {
        Self { effect, matcher, set: None }
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}
