//! Which destinations a guest may reach: ordered rules, and what no rule opens
//! by accident.
//!
//! The first rule that matches decides. An `allow` counts for an address of a
//! built-in range, such as a private one, only if it names that address by a
//! network within the range: neither `*` nor a domain leads into the host's own
//! network. Where no rule decides, [`Policy::otherwise`] does.

pub mod name;
pub mod range;
pub mod rule;
#[cfg(test)]
mod tests;

use ipnet::IpNet;
use name::DomainName;
use range::Range;
pub use rule::{BadRule, Effect, Matcher, Rule, RuleId, RuleRef, Said, Target};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// The most rules of a workspace. Each connection looks at every one.
pub const RULES_MAX: usize = 256;

/// A workspace's rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// In the order in which they are asked.
    pub rules: Vec<Rule>,
    /// What becomes of what no rule matches.
    pub otherwise: Effect,
    /// The number of the next rule: an id is never given twice.
    next: u32,
}

/// What carries bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// A connection.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Where a guest wants to go.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    /// The address.
    pub address: IpAddr,
    /// The TCP or UDP port.
    pub port: u16,
    /// Which of them.
    pub protocol: Protocol,
    /// The names that the gateway's own DNS has told the guest for the address.
    pub names: &'a [DomainName],
    /// Whether the address is one of the host's own.
    pub is_host: bool,
}

/// What the policy says of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may be reached.
    pub effect: Effect,
    /// What decided.
    pub reason: Reason,
}

/// What decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// This rule.
    Rule(RuleId),
    /// The address lies in a range that is refused unless a rule names it.
    Range(Range),
    /// No rule matched.
    Otherwise,
}

impl Verdict {
    /// Whether it may be reached.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.effect == Effect::Allow
    }
}

/// A rule's id, or a word for what else decided.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(id) => write!(f, "{id}"),
            Self::Range(range) => write!(f, "built-in:{range}"),
            Self::Otherwise => f.write_str("otherwise"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::open()
    }
}

impl Policy {
    /// Everything public may be reached.
    #[must_use]
    pub const fn open() -> Self {
        Self { rules: Vec::new(), otherwise: Effect::Allow, next: 1 }
    }

    /// Nothing may be reached but what rules allow.
    #[must_use]
    pub const fn closed() -> Self {
        Self { rules: Vec::new(), otherwise: Effect::Deny, next: 1 }
    }

    /// Adds rules after all others, in their order.
    ///
    /// # Errors
    /// When there would be more than [`RULES_MAX`]; then none is added.
    pub fn append(
        &mut self,
        said: impl IntoIterator<Item = Said>,
    ) -> Result<Vec<RuleId>, TooManyRules> {
        self.put(said.into_iter().collect(), self.rules.clone(), Vec::new())
    }

    /// Adds rules before all others, in their order, so that what was said last
    /// holds. One that matches the very same is replaced, and so is what there was
    /// of the same set.
    ///
    /// # Errors
    /// When there would be more than [`RULES_MAX`]; then none is added.
    pub fn put_first(
        &mut self,
        said: impl IntoIterator<Item = Said>,
    ) -> Result<Vec<RuleId>, TooManyRules> {
        let said: Vec<_> = said.into_iter().collect();
        let mut others = self.rules.clone();
        others.retain(|rule| {
            let again = |new: &Said| {
                new.matcher == rule.matcher || new.set.is_some() && new.set == rule.set
            };
            !said.iter().any(again)
        });
        self.put(said, Vec::new(), others)
    }

    fn put(
        &mut self,
        said: Vec<Said>,
        before: Vec<Rule>,
        after: Vec<Rule>,
    ) -> Result<Vec<RuleId>, TooManyRules> {
        if before.len() + said.len() + after.len() > RULES_MAX {
            return Err(TooManyRules);
        }
        let mut ids = Vec::new();
        self.rules = before;
        for Said { effect, matcher, set } in said {
            let id = RuleId(self.next);
            self.next = self.next.saturating_add(1);
            self.rules.push(Rule { id, effect, matcher, set });
            ids.push(id);
        }
        self.rules.extend(after);
        Ok(ids)
    }

    /// Takes rules out; gives their ids.
    pub fn remove(&mut self, which: &RuleRef) -> Vec<RuleId> {
        let is_meant = |rule: &Rule| match which {
            RuleRef::Id(id) => rule.id == *id,
            RuleRef::Matcher(matcher) => rule.matcher == *matcher,
            RuleRef::Set(name) => rule.set.as_ref() == Some(name),
        };
        self.rules.extract_if(.., |rule| is_meant(rule)).map(|rule| rule.id).collect()
    }

    /// Says whether a destination may be reached, and why.
    #[must_use]
    pub fn decide(&self, to: &Destination<'_>) -> Verdict {
        let range = Range::of(to.address, to.is_host);
        for rule in self.rules.iter().filter(|rule| rule.matcher.matches(to)) {
            let opens = range.is_none_or(|(_, network)| rule.matcher.names_within(network));
            match rule.effect {
                Effect::Allow if !opens => {}
                effect @ (Effect::Allow | Effect::Deny) => {
                    return Verdict { effect, reason: Reason::Rule(rule.id) };
                }
            }
        }
        match range {
            Some((range, _)) => Verdict { effect: Effect::Deny, reason: Reason::Range(range) },
            None => Verdict { effect: self.otherwise, reason: Reason::Otherwise },
        }
    }

    /// Whether a rule opens an address of a built-in range, on some port.
    #[must_use]
    pub fn opens(&self, address: IpAddr, range: IpNet) -> bool {
        self.rules.iter().any(|rule| {
            rule.effect == Effect::Allow
                && rule.matcher.names_within(range)
                && rule.matcher.names(address)
        })
    }

    /// Says whether a name may be asked after: whether anything there could be
    /// reached, on any port, at a public address.
    #[must_use]
    pub fn decide_name(&self, name: &DomainName) -> Verdict {
        for rule in &self.rules {
            match (rule.matcher.takes_name(name), rule.effect) {
                (rule::Takes::All, effect) | (rule::Takes::Some, effect @ Effect::Allow) => {
                    return Verdict { effect, reason: Reason::Rule(rule.id) };
                }
                // What it denies is a part; the rest is for others to say.
                (rule::Takes::Some, Effect::Deny) | (rule::Takes::None, _) => {}
            }
        }
        Verdict { effect: self.otherwise, reason: Reason::Otherwise }
    }
}

/// There are [`RULES_MAX`] rules already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a workspace has at most {RULES_MAX} network rules")]
pub struct TooManyRules;
