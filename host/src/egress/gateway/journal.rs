//! What was decided, told to whoever keeps it.

use super::limit::Limit;
use super::packet::Key;
use super::rate::Rate;
use crate::egress::policy::name::DomainName;
use crate::egress::policy::range::Range;
use crate::egress::policy::{Protocol, Reason, Verdict};
use std::fmt;
use std::time::Instant;

/// Decisions that are told at once, and a second. The rest is counted: a guest
/// is not to fill the host's disk with them.
const BURST: u32 = 500;
const PER_SECOND: u32 = 20;

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// One decision.
    Decision(Decision),
    /// So many were not told.
    Omitted(u64),
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What the guest wanted.
    pub action: Action,
    /// Where: an address with a port, or a name.
    pub destination: String,
    /// The names that the guest was told for the address.
    pub names: Vec<String>,
    /// Whether it may.
    pub allowed: bool,
    /// What decided.
    pub cause: Cause,
}

/// What a guest may want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A TCP connection.
    Connect,
    /// UDP datagrams.
    Send,
    /// A name's addresses.
    Resolve,
}

/// What decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The policy.
    Policy(Reason),
    /// There was too much of it.
    Limit(Limit),
    /// The name leads only to addresses of this range.
    Rebinding(Range),
    /// No host can have the name.
    NoName,
}

pub(super) struct Journal {
    tell: Box<dyn Fn(Told)>,
    rate: Rate,
    omitted: u64,
}

impl Journal {
    pub fn new(tell: Box<dyn Fn(Told)>, now: Instant) -> Self {
        Self { tell, rate: Rate::new(BURST, PER_SECOND, now), omitted: 0 }
    }

    /// Notes what became of a flow that was to be.
    pub fn note_flow(
        &mut self,
        key: &Key,
        names: &[DomainName],
        verdict: &Verdict,
        limited: Option<Limit>,
        now: Instant,
    ) {
        let action = match key.protocol {
            Protocol::Tcp => Action::Connect,
            Protocol::Udp => Action::Send,
        };
        let cause = match limited {
            Some(limit) => Cause::Limit(limit),
            None => Cause::Policy(verdict.reason.clone()),
        };
        self.note(now, || Decision {
            action,
            destination: key.remote.to_string(),
            names: names.iter().map(DomainName::to_string).collect(),
            allowed: verdict.allowed() && limited.is_none(),
            cause,
        });
    }

    /// Notes what became of a name that was asked for.
    pub fn note_name(&mut self, name: &str, allowed: bool, cause: Cause, now: Instant) {
        self.note(now, || Decision {
            action: Action::Resolve,
            destination: name.to_owned(),
            names: Vec::new(),
            allowed,
            cause,
        });
    }

    fn note(&mut self, now: Instant, decision: impl FnOnce() -> Decision) {
        if !self.rate.take(now) {
            self.omitted += 1;
            return;
        }
        match std::mem::take(&mut self.omitted) {
            0 => {}
            omitted => (self.tell)(Told::Omitted(omitted)),
        }
        (self.tell)(Told::Decision(decision()));
    }
}

impl Action {
    /// As in events.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Send => "send",
            Self::Resolve => "resolve",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(reason) => write!(f, "{reason}"),
            Self::Limit(limit) => write!(f, "limit:{limit}"),
            Self::Rebinding(range) => write!(f, "rebinding:{range}"),
            Self::NoName => f.write_str("no-host-name"),
        }
    }
}
