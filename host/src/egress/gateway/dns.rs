//! The guest's DNS: it tells addresses of names that the policy allows, and
//! remembers what it told, so that rules about names can decide on connections.

pub mod binding;
pub mod resolve;
#[cfg(test)]
mod tests;
pub mod wire;

use super::packet::{Key, datagram};
use super::{Cause, Gate, Limit};
use crate::egress::policy::name::DomainName;
use crate::egress::policy::range::Range;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;
use wire::{Answer, Code, Kind, Query};

/// Where it answers, on the gateway's address.
pub(super) const PORT: u16 = 53;

/// The longest name that is passed on. Names of hosts are shorter; names that
/// carry data out are as long as can be.
const NAME_MAX: usize = 180;

/// The longest that the guest is to keep an answer: the policy may change.
const TTL_MAX: u32 = 300;

/// Takes a question of the guest's.
pub(super) fn ask(gate: &Rc<Gate>, key: Key, data: &[u8]) {
    let reply = |reply: &[u8]| gate.give(datagram(key.remote, key.guest, reply));
    let query = match Query::parse(data) {
        Ok(query) => query,
        Err(Some(complaint)) => return reply(&complaint),
        Err(None) => return,
    };
    match admit(gate, &query) {
        Ok(name) => {
            let work = answer(Rc::clone(gate), key, query, name);
            gate.start(Box::pin(work));
        }
        Err(code) => reply(&query.refuse(code)),
    }
}

/// Whether a question is passed on; else what is answered at once.
fn admit(gate: &Gate, query: &Query) -> Result<DomainName, Code> {
    let now = Instant::now();
    let mut shared = gate.shared.borrow_mut();
    let Some(name) = query.name.clone().filter(|name| name.as_str().len() <= NAME_MAX) else {
        let shown = query.name.as_ref().map_or("", DomainName::as_str);
        shared.journal.note_name(shown, false, Cause::NoName, now);
        return Err(Code::NxDomain);
    };
    let verdict = shared.policy.decide_name(&name);
    let within = !verdict.allowed() || shared.limits.admit_name(now);
    let cause = match within {
        true => Cause::Policy(verdict.reason.clone()),
        false => Cause::Limit(Limit::Rate),
    };
    shared.journal.note_name(name.as_str(), verdict.allowed() && within, cause, now);
    match (verdict.allowed(), within, query.kind) {
        (false, ..) => Err(Code::NxDomain),
        (true, false, _) => Err(Code::ServFail),
        // There is such a name, and nothing else is told of it.
        (true, true, Kind::Other(_)) => Err(Code::NoError),
        (true, true, Kind::A | Kind::Aaaa) => {
            shared.limits.lookups += 1;
            Ok(name)
        }
    }
}

/// Resolves a name and tells the guest.
async fn answer(gate: Rc<Gate>, key: Key, query: Query, name: DomainName) {
    let answer = gate.host.resolve(&name, query.kind).await;
    gate.shared.borrow_mut().limits.lookups -= 1;
    let reply = match answer {
        Answer::Addresses(addresses, seconds) => tell(&gate, &query, &name, addresses, seconds),
        Answer::NoName => query.refuse(Code::NxDomain),
        Answer::Truncated | Answer::Failed => query.refuse(Code::ServFail),
    };
    gate.give(datagram(key.remote, key.guest, &reply));
}

/// Tells those addresses that a name may lead to. One that leads into the host's
/// network only, by error or by malice, leads nowhere.
fn tell(
    gate: &Gate,
    query: &Query,
    name: &DomainName,
    mut addresses: Vec<IpAddr>,
    seconds: u32,
) -> Vec<u8> {
    let now = Instant::now();
    let owned: Vec<_> = addresses.iter().map(|address| gate.host.is_own(*address)).collect();
    let mut shared = gate.shared.borrow_mut();
    let mut refused: Option<Range> = None;
    let mut owned = owned.into_iter();
    addresses.retain(|address| {
        let is_own = owned.next().unwrap_or(false);
        match Range::of(*address, is_own) {
            Some((range, network)) if !shared.policy.opens(*address, network) => {
                refused = Some(range);
                false
            }
            Some(_) | None => true,
        }
    });
    addresses.truncate(wire::TOLD_MAX);
    if let (Some(range), true) = (refused, addresses.is_empty()) {
        shared.journal.note_name(name.as_str(), false, Cause::Rebinding(range), now);
        return query.refuse(Code::NxDomain);
    }
    for address in &addresses {
        shared.bindings.bind(name, *address, seconds, now);
    }
    query.tell(&addresses, seconds.min(TTL_MAX))
}
