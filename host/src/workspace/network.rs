//! Changing where a workspace's network may go, and saying why.

use super::place::Place;
use super::record::{NetworkPolicy, Record};
use crate::egress::gateway::dns::resolve::Resolver;
use crate::egress::gateway::host::{Host, ThisHost};
use crate::egress::policy::name::DomainName;
use crate::egress::policy::range::Range;
use crate::egress::policy::{
    Destination, Effect, Policy, Protocol, Reason, Rule, RuleId, RuleRef, Said, Verdict,
};
use crate::error::{Error, ErrorKind, Result};
use crate::supervisor::control::give;
use crate::supervisor::order::ReadNetwork;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// How long a supervisor may take to decide by other rules.
const CHANGE_DEADLINE: Duration = Duration::from_secs(10);

/// An address that is public: for what is asked of a name before anybody has
/// resolved it.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(1, 1, 1, 1);

/// Puts rules before all others. A running workspace decides by them at once, also
/// on connections that are underway.
///
/// # Errors
/// `Conflict` when the workspace has no network, or too many rules.
pub async fn add(place: &Place, said: Vec<Said>) -> Result<(Record, Vec<RuleId>)> {
    change(place, |rules| {
        rules.put_first(said).map_err(|error| {
            Error::new(ErrorKind::Conflict, error.to_string())
                .hint("one rule can stand for many: `*.example.org`, `10.0.0.0/8`")
        })
    })
    .await
}

/// Takes rules back; at once, as [`add`].
///
/// # Errors
/// `NotFound` when there is none such; `Conflict` when the workspace has no
/// network.
pub async fn remove(place: &Place, which: &RuleRef) -> Result<(Record, Vec<RuleId>)> {
    change(place, |rules| {
        let removed = rules.remove(which);
        match removed.is_empty() {
            true => Err(Error::new(ErrorKind::NotFound, format!("there is no rule {which}"))
                .hint(format!("`pyro workspace network status {}` lists them", place.id()))),
            false => Ok(removed),
        }
    })
    .await
}

async fn change(
    place: &Place,
    change: impl FnOnce(&mut Policy) -> Result<Vec<RuleId>>,
) -> Result<(Record, Vec<RuleId>)> {
    let mut changed = Vec::new();
    let record = place
        .change(|record| {
            if record.network_policy == NetworkPolicy::Off {
                let message =
                    format!("workspace {} has no network: its policy is off", record.workspace_id);
                return Err(Error::new(ErrorKind::Conflict, message)
                    .hint("create one with `--network-policy egress`"));
            }
            changed = change(&mut record.network_rules)?;
            Ok(())
        })
        .await?;
    // One that does not run reads it when it starts.
    give(ReadNetwork, place.path(), CHANGE_DEADLINE).await?;
    Ok((record, changed))
}

/// What the policy says of a host, by name or by address.
///
/// # Errors
/// `InvalidInput` when it is neither.
pub fn explain(record: &Record, host: &str, port: u16, protocol: Protocol) -> Result<Verdict> {
    let to = |address, names, is_host| Destination { address, port, protocol, names, is_host };
    let rules = &record.network_rules;
    if let Ok(address) = host.parse::<IpAddr>() {
        let is_host = ThisHost::new(Resolver::of_this_host()).is_own(address);
        return Ok(rules.decide(&to(address, &[], is_host)));
    }
    let name = DomainName::parse(host).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, error.to_string())
            .hint("give a name such as `pypi.org` or an address such as `10.0.0.1`")
    })?;
    let asked = rules.decide_name(&name);
    match asked.effect {
        // Who cannot ask after it does not get there.
        Effect::Deny => Ok(asked),
        Effect::Allow => Ok(rules.decide(&to(PUBLIC.into(), &[name], false))),
    }
}

/// Why, in words.
#[must_use]
pub fn reason(record: &Record, verdict: &Verdict) -> String {
    match &verdict.reason {
        Reason::Rule(id) => {
            let rule = record.network_rules.rules.iter().find(|rule| rule.id == *id);
            rule.map_or_else(String::new, |Rule { effect, matcher, set, .. }| match set {
                Some(name) => format!("{effect} {matcher} of {name}"),
                None => format!("{effect} {matcher}"),
            })
        }
        Reason::Range(Range::Host) => {
            "it is an address of the host's own, which no rule names".into()
        }
        Reason::Range(range) => format!("it is a {range} address, which no rule names"),
        Reason::Otherwise => {
            format!("no rule matches, and then it is {}", record.network_rules.otherwise)
        }
    }
}
