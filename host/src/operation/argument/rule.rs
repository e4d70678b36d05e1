use crate::Result;
use crate::config::Config;
use crate::egress::policy::{BadRule, Effect, Matcher, RuleId, RuleRef, Said};
use crate::egress::set::{self, NoSetName, SetName};
use crate::error::{Error, ErrorKind};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// What a rule of a network policy speaks of: `pypi.org:443`, `*.debian.org`,
/// `udp:10.0.0.0/8:53`; or `@NAME`, a set of rules of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkRule {
    /// This.
    One(Matcher),
    /// What the user's configuration says under a name.
    Set(SetName),
}

/// A word that is neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRule {
    /// It names no set.
    #[error(transparent)]
    Set(#[from] NoSetName),
    /// It is no rule.
    #[error(transparent)]
    Rule(#[from] BadRule),
}

impl NetworkRule {
    /// The rules that it stands for.
    ///
    /// # Errors
    /// `InvalidInput` when there is no such set, or it says itself what it denies.
    pub fn said(self, effect: Effect, config: &Config) -> Result<Vec<Said>> {
        match (self, effect) {
            (Self::One(matcher), effect) => Ok(vec![Said { effect, matcher, set: None }]),
            (Self::Set(name), Effect::Allow) => set::rules(&config.settings, &name),
            (Self::Set(name), Effect::Deny) => {
                let message = format!("the set of rules {name} says itself what it denies");
                Err(Error::new(ErrorKind::InvalidInput, message).hint(format!(
                    "`network allow` applies it, `network remove {name}` takes it back"
                )))
            }
        }
    }
}

impl FromStr for NetworkRule {
    type Err = NoRule;

    fn from_str(word: &str) -> Result<Self, NoRule> {
        match word.starts_with('@') {
            true => Ok(Self::Set(word.parse()?)),
            false => Ok(Self::One(word.parse()?)),
        }
    }
}

impl fmt::Display for NetworkRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(matcher) => write!(f, "{matcher}"),
            Self::Set(name) => write!(f, "{name}"),
        }
    }
}

impl<'de> Deserialize<'de> for NetworkRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for NetworkRule {
    fn schema_name() -> Cow<'static, str> {
        "NetworkRule".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// Which rules of a workspace: by id, as they were written, or those of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRuleRef(pub RuleRef);

impl FromStr for NetworkRuleRef {
    type Err = NoRule;

    fn from_str(word: &str) -> Result<Self, NoRule> {
        if let Some(id) = word.strip_prefix('r').and_then(|number| number.parse().ok()) {
            return Ok(Self(RuleRef::Id(RuleId(id))));
        }
        Ok(Self(match word.parse()? {
            NetworkRule::One(matcher) => RuleRef::Matcher(matcher),
            NetworkRule::Set(name) => RuleRef::Set(name),
        }))
    }
}

impl<'de> Deserialize<'de> for NetworkRuleRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for NetworkRuleRef {
    fn schema_name() -> Cow<'static, str> {
        "NetworkRuleRef".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}
