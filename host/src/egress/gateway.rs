//! The gateway: it ends a guest's TCP and UDP here and goes on with ordinary
//! sockets of the host's.
//!
//! ```text
//! guest ── SYN ─▶ held ── policy ──▶ denied ─▶ RST
//!                            └ allowed ─▶ connect ─▶ refused ─▶ RST
//!                                            └ connected ─▶ SYN, ACK ─▶ bytes
//! ```
//!
//! Everything the guest can make grow has a limit here. All of it runs in one
//! task: [`Gateway::run`] is a future, and what it holds is gone with it.

pub mod dns;
pub mod host;
mod journal;
mod limit;
pub mod packet;
mod rate;
pub mod selftest;
mod stack;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
pub mod wire;

use super::NetworkLimits;
use super::policy::name::DomainName;
use super::policy::{Destination, Policy, Protocol, Verdict};
use dns::binding::Bindings;
use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use host::Host;
use journal::Journal;
pub use journal::{Action, Cause, Decision, Told};
pub use limit::Limit;
use limit::{Limits, Way};
use packet::{Key, Packet, Payload};
use pyro_protocol::Lost;
use pyro_protocol::egress::{GUEST_V4, GUEST_V6, Packets};
use stack::{Stack, is_gateway};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wire::{Incoming, Outgoing};

/// The longest SYN that is held: a header full of options and no data.
const SYN_MAX: usize = 120;

/// A gateway, as those see it who change its policy.
#[derive(Clone)]
pub struct Gateway(Rc<Gate>);

/// What all of a gateway's flows share.
struct Gate {
    host: Box<dyn Host>,
    shared: RefCell<Shared>,
    /// The stack is to be polled.
    stirred: Notify,
    /// There are packets for the guest.
    leaving: Notify,
    /// There is work in [`Shared::starting`].
    started: Notify,
}

struct Shared {
    stack: Stack,
    policy: Policy,
    bindings: Bindings,
    flows: HashMap<Key, Flow>,
    limits: Limits,
    journal: Journal,
    starting: Vec<LocalBoxFuture<'static, ()>>,
    /// Where datagrams are read to.
    scratch: Vec<u8>,
}

/// What is known of a flow.
struct Flow {
    /// Ends it when it is cancelled.
    end: CancellationToken,
    /// What its other end was called when it began: a name that is forgotten
    /// since is no reason to end it.
    names: Vec<DomainName>,
    carrier: Carrier,
}

/// What carries a flow on.
enum Carrier {
    /// Nothing yet: the host is connecting.
    Connecting,
    /// The stack and a connection.
    Connection,
    /// A socket for datagrams.
    Datagrams(Rc<udp::Datagrams>),
}

impl Gateway {
    /// A gateway that nobody uses yet. Whatever is decided is told.
    pub fn new(
        policy: Policy,
        limits: NetworkLimits,
        host: impl Host + 'static,
        tell: impl Fn(Told) + 'static,
    ) -> Self {
        let now = Instant::now();
        Self(Rc::new(Gate {
            host: Box::new(host),
            shared: RefCell::new(Shared {
                stack: Stack::new(seed(), limits.unsent_max()),
                policy,
                bindings: Bindings::default(),
                flows: HashMap::new(),
                limits: Limits::new(limits, now),
                journal: Journal::new(Box::new(tell), now),
                starting: Vec::new(),
                scratch: vec![0; u16::MAX.into()],
            }),
            stirred: Notify::new(),
            leaving: Notify::new(),
            started: Notify::new(),
        }))
    }

    /// Decides by another policy from now on. What it does not allow ends, also
    /// when it is underway.
    pub fn set_policy(&self, policy: Policy) {
        let gate = &self.0;
        let mut shared = gate.shared.borrow_mut();
        shared.policy = policy;
        for (key, flow) in &shared.flows {
            let is_host = gate.host.is_own(key.remote.ip());
            if !shared.policy.decide(&key.destination(&flow.names, is_host)).allowed() {
                flow.end.cancel();
            }
        }
    }

    /// How many connections and datagram flows there are.
    #[must_use]
    pub fn flow_count(&self) -> usize {
        self.0.shared.borrow().flows.len()
    }

    /// Carries packets over a connection until it is lost. All flows end then, by
    /// a reset: nobody is to take for whole what was cut off. What the guest was
    /// told of names, and how often it asked, is known to the next run.
    pub async fn run(&self, mut reader: impl Incoming, mut writer: impl Outgoing) -> Lost {
        let gate = &self.0;
        let _end = EndAll(gate);
        tokio::select! {
            // In the order in which bytes pass, so that what has come is answered
            // once, after it was taken on. None of these finds work without end.
            biased;
            lost = gate.receive(&mut reader) => lost,
            () = gate.flow() => Lost::Closed,
            () = gate.drive() => Lost::Closed,
            lost = gate.transmit(&mut writer) => lost,
        }
    }

    /// Takes packets as a frame carries them.
    ///
    /// # Errors
    /// When they are none.
    pub fn take(&self, payload: &[u8]) -> Result<(), pyro_protocol::egress::NoPacket> {
        self.0.take_all(payload)
    }
}

/// Ends all flows of a run, however it ends.
struct EndAll<'a>(&'a Gate);

impl Drop for EndAll<'_> {
    fn drop(&mut self) {
        let shared = &mut *self.0.shared.borrow_mut();
        shared.flows.clear();
        shared.starting.clear();
        shared.limits.none_in_use();
        shared.stack = Stack::new(seed(), shared.limits.unsent_max());
    }
}

/// Waits; not at all for nothing, which a timer takes for its shortest time.
async fn rest(wait: Duration) {
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

/// What nobody can guess sequence numbers by.
fn seed() -> u64 {
    let mut seed = [0; 8];
    crate::id::fill_random(&mut seed);
    u64::from_le_bytes(seed)
}

impl Gate {
    async fn receive(self: &Rc<Self>, reader: &mut impl Incoming) -> Lost {
        loop {
            let packets = match reader.next().await {
                Ok(packets) => packets,
                Err(lost) => return lost,
            };
            if let Err(error) = self.take_all(&packets) {
                return Lost::Io(std::io::Error::other(error));
            }
            let wait = self.shared.borrow_mut().limits.pass(Way::Up, packets.len());
            // Meanwhile the guest's packets wait where they are, and it slows down.
            rest(wait).await;
        }
    }

    async fn transmit(&self, writer: &mut impl Outgoing) -> Lost {
        loop {
            let batch = self.shared.borrow_mut().stack.leaving();
            match batch {
                Some(batch) => {
                    if let Err(lost) = writer.send(&batch).await {
                        return lost;
                    }
                    let wait = self.shared.borrow_mut().limits.pass(Way::Down, batch.len());
                    rest(wait).await;
                    // There may be room where there was none.
                    self.stirred.notify_one();
                }
                None => self.leaving.notified().await,
            }
        }
    }

    /// Polls the stack whenever something has happened or is due.
    async fn drive(&self) {
        loop {
            let next = {
                let stack = &mut self.shared.borrow_mut().stack;
                stack.poll();
                if stack.has_leaving() {
                    self.leaving.notify_one();
                }
                stack.next_poll()
            };
            let due = async {
                match next {
                    Some(delay) => tokio::time::sleep(delay.max(Duration::from_millis(1))).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stirred.notified() => {}
                () = due => {}
            }
        }
    }

    /// Works on all flows.
    async fn flow(&self) {
        let mut flows = FuturesUnordered::new();
        loop {
            flows.extend(self.shared.borrow_mut().starting.drain(..));
            tokio::select! {
                Some(()) = flows.next() => {}
                () = self.started.notified() => {}
            }
        }
    }

    fn start(&self, work: LocalBoxFuture<'static, ()>) {
        self.shared.borrow_mut().starting.push(work);
        self.started.notify_one();
    }

    fn take_all(self: &Rc<Self>, payload: &[u8]) -> Result<(), pyro_protocol::egress::NoPacket> {
        for packet in Packets::of(payload) {
            self.take(packet?);
        }
        // At once: a guest that sends without a pause would fill the memory.
        self.shared.borrow_mut().stack.absorb();
        self.stirred.notify_one();
        Ok(())
    }

    fn take(self: &Rc<Self>, bytes: &[u8]) {
        let Some(packet) = packet::parse(bytes) else { return };
        // Nobody else's address, and no link's own.
        if packet.source != GUEST_V4 && packet.source != GUEST_V6 {
            return;
        }
        match packet.payload {
            Payload::Tcp { from, to, flags } => {
                let key = key(Protocol::Tcp, &packet, from, to);
                let known = self.shared.borrow().flows.contains_key(&key);
                match (known, flags.opens) {
                    (true, _) => self.go_on(key, bytes, flags),
                    (false, true) => self.open(key, bytes),
                    // Nobody's: it is told so.
                    (false, false) => self.to_stack(bytes),
                }
            }
            Payload::Udp { from, to, data } => {
                let key = key(Protocol::Udp, &packet, from, to);
                match is_gateway(packet.destination) && to == dns::PORT {
                    true => dns::ask(self, key, data),
                    false => udp::take(self, key, bytes, &packet, data),
                }
            }
            Payload::Echo if is_gateway(packet.destination) => self.to_stack(bytes),
            // There is nothing that would carry it, and nobody to answer for.
            Payload::Echo | Payload::Other(_) => {}
        }
    }

    fn to_stack(&self, packet: &[u8]) {
        self.shared.borrow_mut().stack.take(packet.to_vec());
    }

    /// Hands the guest a packet of our own.
    fn give(&self, packet: Option<Vec<u8>>) {
        if let Some(packet) = packet {
            self.shared.borrow_mut().stack.give(&packet);
            self.leaving.notify_one();
        }
    }

    /// What belongs to a flow that there is.
    fn go_on(&self, key: Key, bytes: &[u8], flags: packet::Flags) {
        let mut shared = self.shared.borrow_mut();
        let Some(flow) = shared.flows.get_mut(&key) else { return };
        match flow.carrier {
            // The guest has thought better of it, or says the same again.
            Carrier::Connecting if flags.resets => flow.end.cancel(),
            Carrier::Connecting | Carrier::Datagrams(_) => {}
            Carrier::Connection => shared.stack.take(bytes.to_vec()),
        }
    }

    /// What would be a new connection.
    fn open(self: &Rc<Self>, key: Key, syn: &[u8]) {
        let (verdict, names) = self.decide(&key);
        let now = Instant::now();
        let mut shared = self.shared.borrow_mut();
        let count = shared.flows.len();
        let limited = match verdict.allowed() {
            true => shared.limits.admit(count, now).err(),
            false => None,
        };
        shared.journal.note_flow(&key, &names, &verdict, limited, now);
        match (verdict.allowed(), limited) {
            (true, None) if syn.len() <= SYN_MAX => {
                shared.limits.connecting += 1;
                let end = CancellationToken::new();
                let flow = Flow { end: end.clone(), names, carrier: Carrier::Connecting };
                shared.flows.insert(key, flow);
                drop(shared);
                let work = tcp::carry(Rc::clone(self), key, syn.to_vec(), end);
                self.start(Box::pin(work));
            }
            // It asks again later by itself.
            (true, Some(Limit::Rate | Limit::Connecting)) => {}
            // With no listener a SYN is answered by RST.
            (true, None | Some(Limit::Flows)) | (false, _) => shared.stack.take(syn.to_vec()),
        }
    }

    /// What the policy says of a flow, and the names it goes by.
    fn decide(&self, key: &Key) -> (Verdict, Vec<DomainName>) {
        let address = key.remote.ip();
        let is_host = self.host.is_own(address);
        let mut shared = self.shared.borrow_mut();
        let names = shared.bindings.names(address, Instant::now());
        (shared.policy.decide(&key.destination(&names, is_host)), names)
    }
}

/// Takes frames as a hostile guest sends them, of a connection and of a NIC, on a
/// host where nothing is.
#[doc(hidden)]
pub fn fuzz(frames: &[Vec<u8>]) {
    let watch = selftest::Watch::default();
    let gateway = Gateway::new(Policy::open(), NetworkLimits::default(), watch, |_| {});
    for frame in frames {
        let _ = gateway.take(frame);
        for packet in wire::decode(frame).into_iter().flatten() {
            let _ = gateway.take(&packet);
        }
        let mut shared = gateway.0.shared.borrow_mut();
        shared.stack.poll();
        while let Some(batch) = shared.stack.leaving() {
            assert!(Packets::of(&batch).all(|packet| packet.is_ok()));
        }
    }
}

impl Key {
    /// Where it leads, as a policy decides on it.
    fn destination<'a>(&self, names: &'a [DomainName], is_host: bool) -> Destination<'a> {
        let (address, port) = (self.remote.ip(), self.remote.port());
        Destination { address, port, protocol: self.protocol, names, is_host }
    }
}

fn key(protocol: Protocol, packet: &Packet<'_>, from: u16, to: u16) -> Key {
    Key {
        protocol,
        guest: SocketAddr::new(packet.source, from),
        remote: SocketAddr::new(packet.destination, to),
    }
}
