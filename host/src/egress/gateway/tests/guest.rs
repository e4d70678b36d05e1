//! A guest that is a second TCP/IP stack at the other end of a stream, and a host
//! whose addresses all lie on the loopback device.

use crate::egress::NetworkLimits;
use crate::egress::gateway::dns::wire::{Answer, Kind};
use crate::egress::gateway::host::Host;
use crate::egress::gateway::{Decision, Gateway, Told, packet};
use crate::egress::policy::name::DomainName;
use crate::egress::policy::{Effect, Policy, Said};
use futures::future::{FutureExt, LocalBoxFuture, pending};
use pyro_protocol::egress::{GATEWAY_V4, GATEWAY_V6, GUEST_V4, GUEST_V6, MTU_MAX, Packets};
use pyro_protocol::{FrameKind, FrameReader, FrameWriter};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::time::Instant as Moment;
use smoltcp::wire::{HardwareAddress, IpCidr, TcpPacket};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{DuplexStream, WriteHalf};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;

/// What a host that only has a loopback device was asked, and where things are.
#[derive(Default)]
pub struct World {
    /// Where on the loopback device an address is.
    pub places: HashMap<SocketAddr, SocketAddr>,
    pub names: HashMap<String, Vec<IpAddr>>,
    pub connected: Vec<SocketAddr>,
    pub resolved: Vec<String>,
    pub told: Vec<Told>,
    /// Connecting takes for ever.
    pub stalls: bool,
}

#[derive(Clone, Default)]
pub struct Loopback(pub Rc<RefCell<World>>);

impl Loopback {
    fn place(&self, to: SocketAddr) -> io::Result<SocketAddr> {
        let mut world = self.0.borrow_mut();
        world.connected.push(to);
        world.places.get(&to).copied().ok_or(io::ErrorKind::ConnectionRefused.into())
    }

    pub fn decisions(&self) -> Vec<Decision> {
        let told = self.0.borrow().told.clone();
        let decision = |told| match told {
            Told::Decision(decision) => Some(decision),
            Told::Omitted(_) => None,
        };
        told.into_iter().filter_map(decision).collect()
    }
}

impl Host for Loopback {
    fn connect(&self, to: SocketAddr) -> LocalBoxFuture<'static, io::Result<TcpStream>> {
        let place = self.place(to);
        match self.0.borrow().stalls {
            true => pending().boxed_local(),
            false => async move { TcpStream::connect(place?).await }.boxed_local(),
        }
    }

    fn datagrams(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        let place = self.place(to)?;
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(place)?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    }

    fn is_own(&self, _: IpAddr) -> bool {
        false
    }

    fn resolve(&self, name: &DomainName, kind: Kind) -> LocalBoxFuture<'static, Answer> {
        let mut world = self.0.borrow_mut();
        world.resolved.push(name.to_string());
        let known = world.names.get(name.as_str()).cloned();
        let fits = move |address: &IpAddr| address.is_ipv4() == (kind == Kind::A);
        let answer = match known {
            Some(all) => Answer::Addresses(all.into_iter().filter(fits).collect(), 60),
            None => Answer::NoName,
        };
        async { answer }.boxed_local()
    }
}

pub const UNLIMITED: NetworkLimits =
    NetworkLimits { connections: None, up_kib_per_second: None, down_kib_per_second: None };

pub fn policy(otherwise: Effect, rules: &[(Effect, &str)]) -> Policy {
    let mut policy = match otherwise {
        Effect::Allow => Policy::open(),
        Effect::Deny => Policy::closed(),
    };
    for (effect, text) in rules {
        policy.append([Said::from((*effect, text.parse().unwrap()))]).unwrap();
    }
    policy
}

#[derive(Default)]
struct Wire {
    arrived: VecDeque<Vec<u8>>,
    leaving: Vec<u8>,
}

struct Arrived(Vec<u8>);
struct Leaving<'a>(&'a mut Vec<u8>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let start = self.0.len();
        self.0.resize(start + length, 0);
        f(&mut self.0[start..])
    }
}

impl Device for Wire {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Moment) -> Option<(Arrived, Leaving<'_>)> {
        let packet = self.arrived.pop_front()?;
        Some((Arrived(packet), Leaving(&mut self.leaving)))
    }

    fn transmit(&mut self, _: Moment) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.leaving))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU_MAX.into();
        capabilities
    }
}

/// The guest's stack.
pub struct Guest {
    interface: Interface,
    wire: Wire,
    pub sockets: SocketSet<'static>,
    since: Instant,
    frames: mpsc::Receiver<Vec<u8>>,
    writer: FrameWriter<WriteHalf<DuplexStream>>,
    next_port: u16,
    /// Datagrams that have come, and ICMP errors as empty ones.
    pub datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    pub prohibited: usize,
    /// Sends each packet with so many others that are almost the same.
    pub mangled: usize,
    random: Random,
}

/// Anything like xorshift64*.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end.max(1)
    }
}

/// Tells a story of a guest with a gateway of this policy.
pub async fn story<T>(
    host: &Loopback,
    policy: Policy,
    tell: impl AsyncFnOnce(&mut Guest, &Gateway) -> T,
) -> T {
    let gateway = gateway(host, policy, UNLIMITED);
    run(&gateway, async |guest| tell(guest, &gateway).await).await
}

/// Tells a story of a guest that may reach everything public, so much of it.
pub async fn limited_story<T>(
    host: &Loopback,
    limits: NetworkLimits,
    tell: impl AsyncFnOnce(&mut Guest) -> T,
) -> T {
    run(&gateway(host, Policy::open(), limits), tell).await
}

fn gateway(host: &Loopback, policy: Policy, limits: NetworkLimits) -> Gateway {
    let world = Rc::clone(&host.0);
    Gateway::new(policy, limits, host.clone(), move |told| world.borrow_mut().told.push(told))
}

/// Tells what a guest does while a gateway runs.
pub async fn run<T>(gateway: &Gateway, tell: impl AsyncFnOnce(&mut Guest) -> T) -> T {
    let (ours, theirs) = tokio::io::duplex(256 * 1024);
    let (read, write) = tokio::io::split(theirs);
    let mut guest = Guest::new(ours);
    tokio::select! {
        lost = gateway.run(FrameReader::new(read), FrameWriter::new(write)) => {
            panic!("the gateway has ended: {lost}");
        }
        told = tell(&mut guest) => told,
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("nothing happens any more"),
    }
}

impl Guest {
    fn new(stream: DuplexStream) -> Self {
        let (read, write) = tokio::io::split(stream);
        let (sender, frames) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut reader = FrameReader::new(read);
            while let Ok(frame) = reader.next().await {
                if sender.send(frame.payload).await.is_err() {
                    break;
                }
            }
        });
        let mut wire = Wire::default();
        let mut interface =
            Interface::new(Config::new(HardwareAddress::Ip), &mut wire, Moment::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(GUEST_V4.into(), 30)).unwrap();
            addresses.push(IpCidr::new(GUEST_V6.into(), 126)).unwrap();
        });
        interface.routes_mut().add_default_ipv4_route(GATEWAY_V4).unwrap();
        interface.routes_mut().add_default_ipv6_route(GATEWAY_V6).unwrap();
        Self {
            interface,
            wire,
            sockets: SocketSet::new(Vec::new()),
            since: Instant::now(),
            frames,
            writer: FrameWriter::new(write),
            next_port: 50_000,
            datagrams: VecDeque::new(),
            prohibited: 0,
            mangled: 0,
            random: Random(0x5eed_0f9a_c7e7),
        }
    }

    /// A TCP segment that is almost the same, with a checksum that is right.
    fn mangle(&mut self, packet: &[u8]) -> Vec<u8> {
        const HEADER: usize = 20;
        let mut packet = packet.to_vec();
        for _ in 0..=self.random.below(3) {
            // After the ports, mostly in the header.
            let end = if self.random.below(4) == 0 { packet.len() } else { 2 * HEADER };
            let place = HEADER + 4 + self.random.below(end - HEADER - 4);
            packet[place] = self.random.below(256) as u8;
        }
        let to = packet::parse(&packet).map(|parsed| parsed.destination);
        let mut segment = TcpPacket::new_unchecked(&mut packet[HEADER..]);
        if let Some(to) = to {
            segment.fill_checksum(&IpAddr::from(GUEST_V4).into(), &to.into());
        }
        packet
    }

    /// Begins a connection.
    pub fn connect(&mut self, to: SocketAddr) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 128 * 1024]);
        let mut socket = Socket::new(buffer(), buffer());
        self.next_port += 1;
        socket.connect(self.interface.context(), to, self.next_port).unwrap();
        self.sockets.add(socket)
    }

    /// Sends a datagram.
    pub fn send(&mut self, port: u16, to: SocketAddr, data: &[u8]) {
        let from = match to {
            SocketAddr::V4(_) => IpAddr::from(GUEST_V4),
            SocketAddr::V6(_) => IpAddr::from(GUEST_V6),
        };
        let packet = packet::datagram(SocketAddr::new(from, port), to, data).unwrap();
        self.wire.leaving.extend(packet);
    }

    pub fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Goes on until something is so.
    pub async fn until<T>(&mut self, mut so: impl FnMut(&mut Self) -> Option<T>) -> T {
        loop {
            self.poll().await;
            if let Some(what) = so(self) {
                self.poll().await;
                return what;
            }
            let now = Moment::from_micros(self.since.elapsed().as_micros() as i64);
            let delay = self.interface.poll_delay(now, &self.sockets);
            let delay = delay.map_or(Duration::from_secs(60), |d| {
                Duration::from_micros(d.total_micros().max(200))
            });
            tokio::select! {
                frame = self.frames.recv() => self.hear(&frame.expect("the gateway lives")),
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    async fn poll(&mut self) {
        while let Ok(frame) = self.frames.try_recv() {
            self.hear(&frame);
        }
        let now = Moment::from_micros(self.since.elapsed().as_micros() as i64);
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        let leaving = std::mem::take(&mut self.wire.leaving);
        let mut frame = Vec::new();
        for packet in Packets::of(&leaving) {
            let packet = packet.unwrap();
            for _ in 0..self.mangled {
                let mangled = self.mangle(packet);
                self.writer.send_raw(FrameKind::Data, &mangled).await.unwrap();
            }
            if frame.len() + packet.len() > 32 * 1024 && !frame.is_empty() {
                self.writer.send_raw(FrameKind::Data, &frame).await.unwrap();
                frame.clear();
            }
            frame.extend_from_slice(packet);
        }
        if !frame.is_empty() {
            self.writer.send_raw(FrameKind::Data, &frame).await.unwrap();
        }
    }

    fn hear(&mut self, frame: &[u8]) {
        for bytes in Packets::of(frame) {
            let bytes = bytes.expect("the gateway sends packets");
            let packet = packet::parse(bytes).expect("whole ones");
            assert!([IpAddr::from(GUEST_V4), GUEST_V6.into()].contains(&packet.destination));
            match packet.payload {
                packet::Payload::Tcp { .. } | packet::Payload::Echo => {
                    self.wire.arrived.push_back(bytes.to_vec());
                }
                packet::Payload::Udp { from, data, .. } => {
                    self.datagrams.push_back((SocketAddr::new(packet.source, from), data.to_vec()));
                }
                packet::Payload::Other(_) => self.prohibited += 1,
            }
        }
    }

    /// Waits until a connection is there, or is not to be.
    pub async fn established(&mut self, handle: SocketHandle) -> bool {
        self.until(|guest| {
            let state = guest.socket(handle).state();
            let underway = [State::SynSent, State::SynReceived].contains(&state);
            (!underway).then_some(state != State::Closed)
        })
        .await
    }

    /// Sends all of it, and then that there is no more.
    pub async fn send_all(&mut self, handle: SocketHandle, mut data: &[u8]) {
        self.until(|guest| {
            let socket = guest.socket(handle);
            while socket.can_send() && !data.is_empty() {
                let sent = socket.send_slice(data).unwrap();
                data = &data[sent..];
            }
            data.is_empty().then_some(())
        })
        .await;
        self.socket(handle).close();
        self.poll().await;
    }

    /// Receives until the end; `Err` when it was reset.
    pub async fn receive_all(&mut self, handle: SocketHandle) -> Result<Vec<u8>, RecvError> {
        let mut all = Vec::new();
        self.until(|guest| {
            let socket = guest.socket(handle);
            loop {
                match socket.recv(|data| (data.len(), data.to_vec())) {
                    Ok(data) if data.is_empty() => return None,
                    Ok(data) => all.extend(data),
                    Err(RecvError::Finished) => return Some(Ok(())),
                    Err(error) => return Some(Err(error)),
                }
            }
        })
        .await?;
        Ok(all)
    }

    /// Connects and hears what the other end says by itself.
    pub async fn receive_all_of(&mut self, handle: SocketHandle) -> Vec<u8> {
        assert!(self.established(handle).await);
        self.receive_all(handle).await.unwrap()
    }

    /// Asks the gateway's DNS; gives the code and the addresses.
    pub async fn lookup(&mut self, name: &str, kind: u16) -> (u8, Vec<IpAddr>) {
        let mut query = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend(label.bytes());
        }
        query.extend([0, (kind >> 8) as u8, kind as u8, 0, 1]);
        self.send(5353, SocketAddr::new(GATEWAY_V4.into(), 53), &query);
        let (_, reply) = self.until(|guest| guest.datagrams.pop_front()).await;
        assert_eq!(reply[..2], query[..2]);
        assert_eq!(reply[12..query.len()], query[12..]);
        let width = if kind == 1 { 4 } else { 16 };
        let told = reply[query.len()..].chunks(12 + width).map(|record| match kind {
            1 => IpAddr::from(<[u8; 4]>::try_from(&record[12..]).unwrap()),
            _ => IpAddr::from(<[u8; 16]>::try_from(&record[12..]).unwrap()),
        });
        (reply[3] & 0xf, told.collect())
    }
}
