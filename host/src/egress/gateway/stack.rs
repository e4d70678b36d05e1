//! The gateway's end of the guest's TCP: smoltcp, which takes packets and gives
//! packets, and a socket for each connection.

use pyro_protocol::egress::{BATCH, GATEWAY_V4, GATEWAY_V6, MTU_MAX, PREFIX_V4, PREFIX_V6};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration as Span, Instant as Moment};
use smoltcp::wire::{HardwareAddress, IpCidr};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long the guest may take to complete a connection, and to acknowledge the
/// end of one.
const HANDSHAKE: Span = Span::from_secs(60);

/// A userspace TCP/IP stack.
pub struct Stack {
    interface: Interface,
    device: Queues,
    sockets: SocketSet<'static>,
    since: Instant,
}

/// Packets on their way in and out.
#[derive(Debug, Default)]
struct Queues {
    arrived: VecDeque<Vec<u8>>,
    /// Packets that travel together.
    leaving: VecDeque<Vec<u8>>,
    unsent: usize,
    /// Nothing more is transmitted while so much waits to be sent to the guest: it
    /// takes nothing, or stands still.
    unsent_max: usize,
}

struct Arrived(Vec<u8>);

struct Leaving<'a>(&'a mut Queues);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        // What would answer a guest that takes nothing.
        if self.0.is_full() {
            return f(&mut vec![0; length]);
        }
        let batch = self.0.room_for(length);
        let start = batch.len();
        batch.resize(start + length, 0);
        f(batch.get_mut(start..).unwrap_or_default())
    }
}

impl Queues {
    /// Where a packet of so many bytes is to go.
    fn room_for(&mut self, length: usize) -> &mut Vec<u8> {
        self.unsent += length;
        let fits = self.leaving.back().is_some_and(|batch| batch.len() + length <= BATCH);
        if !fits {
            self.leaving.push_back(Vec::with_capacity(length.max(BATCH / 8)));
        }
        let last = self.leaving.len() - 1;
        &mut self.leaving[last]
    }

    fn is_full(&self) -> bool {
        self.unsent >= self.unsent_max
    }
}

impl Device for Queues {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Moment) -> Option<(Arrived, Leaving<'_>)> {
        let packet = self.arrived.pop_front()?;
        Some((Arrived(packet), Leaving(self)))
    }

    fn transmit(&mut self, _: Moment) -> Option<Leaving<'_>> {
        (!self.is_full()).then_some(Leaving(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU_MAX.into();
        capabilities
    }
}

impl Stack {
    /// A stack that speaks for every address.
    pub fn new(seed: u64, unsent_max: usize) -> Self {
        let mut device = Queues { unsent_max, ..Queues::default() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, Moment::ZERO);
        interface.update_ip_addrs(|addresses| {
            // There is room for two.
            let _ = addresses.push(IpCidr::new(GATEWAY_V4.into(), PREFIX_V4));
            let _ = addresses.push(IpCidr::new(GATEWAY_V6.into(), PREFIX_V6));
        });
        interface.set_any_ip(true);
        // It takes what goes to an address whose router it is itself. There is
        // room for two.
        let _ = interface.routes_mut().add_default_ipv4_route(GATEWAY_V4);
        let _ = interface.routes_mut().add_default_ipv6_route(GATEWAY_V6);
        let sockets = SocketSet::new(Vec::new());
        Self { interface, device, sockets, since: Instant::now() }
    }

    fn now(&self) -> Moment {
        Moment::from_micros(i64::try_from(self.since.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// Takes a packet of the guest's; [`Stack::poll`] looks at it.
    pub fn take(&mut self, packet: Vec<u8>) {
        self.device.arrived.push_back(packet);
    }

    /// Hands the guest a packet that was made elsewhere; dropped when too much
    /// waits already.
    pub fn give(&mut self, packet: &[u8]) {
        if !self.device.is_full() {
            self.device.room_for(packet.len()).extend_from_slice(packet);
        }
    }

    /// Works on what has come.
    pub fn absorb(&mut self) {
        let now = self.now();
        let Self { interface, device, sockets, .. } = self;
        while !device.arrived.is_empty() {
            interface.poll_ingress_single(now, device, sockets);
        }
    }

    /// Works on what has come, and on what is to go.
    pub fn poll(&mut self) {
        let now = self.now();
        self.interface.poll(now, &mut self.device, &mut self.sockets);
    }

    /// When it wants to be polled again though nothing happens.
    pub fn next_poll(&mut self) -> Option<Duration> {
        let now = self.now();
        // While nothing can leave, there is no use in trying.
        if self.device.is_full() {
            return None;
        }
        let delay = self.interface.poll_delay(now, &self.sockets)?;
        Some(Duration::from_micros(delay.total_micros()))
    }

    /// Packets for the guest, as many as travel together.
    pub fn leaving(&mut self) -> Option<Vec<u8>> {
        let batch = self.device.leaving.pop_front()?;
        self.device.unsent -= batch.len();
        Some(batch)
    }

    /// Whether there are any.
    pub fn has_leaving(&self) -> bool {
        !self.device.leaving.is_empty()
    }

    /// Answers the guest's SYN, in one step: no other ever meets the listener.
    pub fn accept(
        &mut self,
        remote: SocketAddr,
        syn: Vec<u8>,
        room: usize,
    ) -> Option<SocketHandle> {
        let buffer = || SocketBuffer::new(vec![0; room]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_timeout(Some(HANDSHAKE));
        socket.listen(remote).ok()?;
        self.poll();
        let handle = self.sockets.add(socket);
        self.take(syn);
        self.poll();
        if self.socket(handle).state() == State::SynReceived {
            return Some(handle);
        }
        self.sockets.remove(handle);
        None
    }

    /// A connection's socket.
    pub fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Lets an idle connection be, for as long as it likes.
    pub fn established(&mut self, handle: SocketHandle) {
        self.socket(handle).set_timeout(None);
    }

    /// Has the guest acknowledge the end of a connection in time.
    pub fn ending(&mut self, handle: SocketHandle) {
        self.socket(handle).set_timeout(Some(HANDSHAKE));
    }

    /// Forgets a connection; the guest is told if it does not know.
    pub fn remove(&mut self, handle: SocketHandle) {
        let socket = self.socket(handle);
        match socket.state() {
            State::Closed | State::TimeWait | State::Listen => {}
            State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => socket.abort(),
        }
        self.poll();
        self.sockets.remove(handle);
    }
}

/// Whether an address is the gateway's own.
pub fn is_gateway(address: IpAddr) -> bool {
    address == GATEWAY_V4 || address == GATEWAY_V6
}
