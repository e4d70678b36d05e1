//! Datagrams: a socket for each pair of ends that talk.

use super::packet::{self, Key, Packet};
use super::{Carrier, Flow, Gate, Limit};
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

/// How long a flow of datagrams is kept for which neither side has any: what
/// RFC 4787 asks of a NAT at least.
const IDLE: Duration = Duration::from_secs(120);

/// A socket that talks to one address for the guest.
pub(super) struct Datagrams {
    socket: UdpSocket,
    last: Cell<Instant>,
}

/// Takes a datagram of the guest's.
pub(super) fn take(gate: &Rc<Gate>, key: Key, bytes: &[u8], packet: &Packet<'_>, data: &[u8]) {
    let there = match gate.shared.borrow().flows.get(&key) {
        // The policy is against it by now.
        Some(flow) if flow.end.is_cancelled() => return,
        Some(Flow { carrier: Carrier::Datagrams(datagrams), .. }) => Some(Rc::clone(datagrams)),
        Some(Flow { carrier: Carrier::Connecting | Carrier::Connection, .. }) | None => None,
    };
    let datagrams = match there.map_or_else(|| open(gate, key), Ok) {
        Ok(datagrams) => datagrams,
        Err(Refused::Prohibited) => return gate.give(packet::prohibited(bytes, packet)),
        Err(Refused::Dropped) => return,
    };
    datagrams.last.set(Instant::now());
    // Not by way of tokio, which knows nothing of a new socket yet. What the host
    // does not take now is lost, as on any network.
    let at_once = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
    let _ = rustix::net::send(&datagrams.socket, data, at_once);
}

enum Refused {
    /// The guest is told.
    Prohibited,
    /// It may come again.
    Dropped,
}

fn open(gate: &Rc<Gate>, key: Key) -> Result<Rc<Datagrams>, Refused> {
    let (verdict, names) = gate.decide(&key);
    let now = Instant::now();
    let mut shared = gate.shared.borrow_mut();
    let count = shared.flows.len();
    let limited: Option<Limit> = match verdict.allowed() {
        true => shared.limits.admit(count, now).err(),
        false => None,
    };
    shared.journal.note_flow(&key, &names, &verdict, limited, now);
    if !verdict.allowed() {
        return Err(Refused::Prohibited);
    }
    if limited.is_some() {
        return Err(Refused::Dropped);
    }
    let socket = gate.host.datagrams(key.remote).map_err(|_| Refused::Prohibited)?;
    let datagrams = Rc::new(Datagrams { socket, last: Cell::new(now) });
    let end = CancellationToken::new();
    let carrier = Carrier::Datagrams(Rc::clone(&datagrams));
    shared.flows.insert(key, Flow { end: end.clone(), names, carrier });
    drop(shared);
    gate.start(Box::pin(carry(Rc::clone(gate), key, Rc::clone(&datagrams), end)));
    Ok(datagrams)
}

/// Carries answers until there have been none for a while.
async fn carry(gate: Rc<Gate>, key: Key, datagrams: Rc<Datagrams>, end: CancellationToken) {
    loop {
        let until = datagrams.last.get() + IDLE;
        tokio::select! {
            biased;
            () = end.cancelled() => break,
            ready = timeout_at(until.into(), datagrams.socket.readable()) => match ready {
                Ok(Ok(())) => receive(&gate, &key, &datagrams),
                Ok(Err(_)) => break,
                // The guest may have had something to say meanwhile.
                Err(_) if datagrams.last.get() + IDLE > Instant::now() => {}
                Err(_) => break,
            },
        }
    }
    gate.shared.borrow_mut().flows.remove(&key);
}

/// Takes what has come, one at a time: others are to have their turn.
fn receive(gate: &Gate, key: &Key, datagrams: &Datagrams) {
    let mut shared = gate.shared.borrow_mut();
    let received = datagrams.socket.try_recv(&mut shared.scratch);
    match received {
        Ok(length) => {
            let data = shared.scratch.get(..length).unwrap_or_default();
            let packet = packet::datagram(key.remote, key.guest, data);
            drop(shared);
            datagrams.last.set(Instant::now());
            gate.give(packet);
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        // Such as that nobody listens there: the guest's programs wait in vain,
        // as behind many a firewall.
        Err(_) => {}
    }
}
