//! A guest's network next to what it is made of, and next to QEMU's own.
//!
//! One bare QEMU, with the arguments that pyro gives it, which include a NIC, and
//! another NIC behind QEMU's slirp. This program is its supervisor: one thread has
//! the channel's multiplexer and the gateway, as in pyro. A client in the guest moves bytes and
//! makes connections by way of the gateway and of slirp in turn, to the same
//! server of the host; the raw channel is measured between them.
//!
//! What many connections take is measured in a supervisor of pyro's, whose guest
//! reaches this host's own address because a rule names it.

use crate::Result;
use crate::boot::Blueprint;
use crate::report::{Figure, Goal, Row};
use crate::sample::{Pairs, Series};
use crate::throughput::rate;
use crate::workspace::Workspace;
use pyro::egress::NetworkLimits;
use pyro::egress::gateway::Gateway;
use pyro::egress::gateway::dns::wire::{Answer, Kind};
use pyro::egress::gateway::host::Host;
use pyro::egress::gateway::wire::Cable;
use pyro::egress::policy::Policy;
use pyro::egress::policy::name::DomainName;
use pyro_protocol::channel::{self, Before, Opener, Side};
use pyro_protocol::egress::{GatewayOpened, OpenGateway};
use pyro_protocol::handshake::Announcement;
use pyro_protocol::power::{Activate, Activated, ENTROPY_LEN};
use pyro_protocol::process::{ProcessStarted, StartProcess};
use pyro_protocol::{
    ByteString, CALL_PORT, Call, FrameKind, FrameReader, FrameWriter, Hello, SINK_PORT,
    SOURCE_PORT, Welcome,
};
use pyro_smoke::Home;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream as StdTcpStream};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UdpSocket};

const PAIRS: usize = 7;

/// Moved at each measurement.
const MIB: usize = 64;
const BYTES: usize = MIB << 20;

/// Connections of one measurement.
const CONNECTIONS: usize = 50;

/// Connections at the same time, for what they take.
const FLOWS: usize = 200;

/// Where the guest believes the server to be, by way of the gateway.
const SITE: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 14);

/// And by way of slirp: the host itself.
const SLIRP_HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// Nothing takes longer.
const DEADLINE: Duration = Duration::from_secs(600);

/// A NIC behind slirp, to be told by its address.
const SLIRP: [&str; 4] =
    ["-netdev", "user,id=slirp", "-device", "virtio-net-device,netdev=slirp,mac=52:54:00:12:34:56"];

/// Raises slirp's interface, if there is one, and does what it is told.
const CLIENT: &str = r#"
import fcntl, os, socket, struct, sys, time
for name in os.listdir("/sys/class/net"):
    with open(f"/sys/class/net/{name}/address") as file:
        if file.read().strip() != "52:54:00:12:34:56":
            continue
    name = name.encode()
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    def own(request, address):
        fcntl.ioctl(s, request, struct.pack("16sHH4s8x", name, 2, 0, socket.inet_aton(address)))
    own(0x8916, "10.0.2.15")
    own(0x891c, "255.255.255.0")
    fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", name, 0x41))
piece = memoryview(bytearray(1 << 20))
kept = []
def swallow(s, amount):
    while amount:
        amount -= s.recv_into(piece[:min(amount, 1 << 20)])
def ask(to, verb, amount):
    s = socket.create_connection(to)
    s.sendall(verb + amount.to_bytes(8, "little"))
    return s
print("ready", flush=True)
for line in sys.stdin:
    verb, host, port, amount = line.split()
    to, amount = (host, int(port)), int(amount)
    if verb == "connect":
        took = 0
        for _ in range(amount):
            s = socket.socket()
            begin = time.perf_counter()
            s.connect(to)
            took += time.perf_counter() - begin
            s.close()
        print(took / amount * 1e3, flush=True)
    elif verb == "down":
        s = ask(to, b"d", amount)
        begin = time.perf_counter()
        swallow(s, amount)
        print((amount >> 20) / (time.perf_counter() - begin), flush=True)
    elif verb == "up":
        s = ask(to, b"u", amount)
        begin = time.perf_counter()
        for _ in range(amount >> 20):
            s.sendall(piece)
        s.recv(1)
        print((amount >> 20) / (time.perf_counter() - begin), flush=True)
    elif verb == "hold":
        for _ in range(amount):
            s = ask(to, b"d", 1 << 20)
            swallow(s, 1 << 20)
            s.sendall(b"u" + (1 << 20).to_bytes(8, "little"))
            s.sendall(piece)
            s.recv(1)
            kept.append(s)
        print(len(kept), flush=True)
"#;

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    let blueprint = Blueprint::of_a_guest(home, &["--network-policy", "egress"])?;
    let machine = blueprint.start(&SLIRP)?;
    let port = serve(IpAddr::V4(Ipv4Addr::LOCALHOST))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let channel = machine.channel.try_clone()?;
    channel.set_nonblocking(true)?;
    let nic = machine.nic.as_ref().ok_or("the machine has no NIC")?.try_clone()?;
    nic.set_nonblocking(true)?;
    let measuring = async { tokio::time::timeout(DEADLINE, measure_in(channel, nic, port)).await? };
    let measured = runtime.block_on(measuring)?;
    drop(machine);
    let mut figures = figures(measured);
    figures.push(memory(home)?);
    Ok(figures)
}

#[derive(Default)]
struct Measured {
    up: [Series; 3],
    down: [Series; 3],
    connect: Pairs,
}

fn figures(measured: Measured) -> Vec<Figure> {
    let Measured { up, down, connect } = measured;
    let names = ["by way of the gateway", "by way of QEMU's slirp", "a bare stream of the channel"];
    let mut figures = Vec::new();
    let ways: [(&str, &str, f64, [Series; 3]); 2] = [
        (
            "Bytes out of the guest's network, against the raw channel",
            "The same against QEMU's slirp",
            0.2,
            up,
        ),
        (
            "Bytes into the guest's network, against the raw channel",
            "The same against QEMU's slirp",
            0.4,
            down,
        ),
    ];
    for (raw_title, slirp_title, least, [ours, slirp, raw]) in ways {
        let rows = [&ours, &slirp, &raw];
        let rows = rows.into_iter().zip(names);
        figures.push(Figure {
            title: raw_title,
            goal: Goal::at_least(ours.median() / raw.median(), least, ""),
            rows: rows.map(|(series, name)| Row::new(name, "MiB/s", series.clone())).collect(),
            notes: vec![],
        });
        figures.push(Figure {
            title: slirp_title,
            goal: Goal::at_least(ours.median() / slirp.median(), 1.5, ""),
            rows: vec![],
            notes: vec![format!(
                "median of the {PAIRS} pairwise ratios: {:.3}",
                ours.over(&slirp).median()
            )],
        });
    }
    let note = format!("median of the {PAIRS} pairwise ratios: {:.3}", connect.median_of_ratios());
    figures.push(Figure {
        title: "A connection out of the guest, against QEMU's slirp",
        goal: Goal::at_most(connect.ratio_of_medians(), 1.6, ""),
        rows: vec![Row::new(names[0], "ms", connect.ours), Row::new(names[1], "ms", connect.floor)],
        notes: vec![note],
    });
    figures
}

/// Serves on one of this host's addresses: gives bytes or takes them, as asked.
fn serve(on: IpAddr) -> Result<u16> {
    let listener = TcpListener::bind((on, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || drop(converse(stream)));
        }
    });
    Ok(port)
}

fn converse(mut stream: StdTcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut piece = vec![0; 256 << 10];
    loop {
        let mut asked = [0; 9];
        stream.read_exact(&mut asked)?;
        let [verb, amount @ ..] = asked;
        let mut left = usize::try_from(u64::from_le_bytes(amount))?;
        while left > 0 {
            let now = left.min(piece.len());
            left -= match verb {
                b'd' => stream.write(&piece[..now])?,
                _ => stream.read(&mut piece[..now])?,
            };
        }
        if verb == b'u' {
            stream.write_all(b"!")?;
        }
    }
}

/// A host whose every address is the server's.
struct Loopback(u16);

impl Host for Loopback {
    fn connect(
        &self,
        _: SocketAddr,
    ) -> futures::future::LocalBoxFuture<'static, std::io::Result<TcpStream>> {
        let port = self.0;
        Box::pin(async move {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }

    fn datagrams(&self, _: SocketAddr) -> std::io::Result<UdpSocket> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn is_own(&self, _: IpAddr) -> bool {
        false
    }

    fn resolve(&self, _: &DomainName, _: Kind) -> futures::future::LocalBoxFuture<'static, Answer> {
        Box::pin(async { Answer::NoName })
    }
}

type Frames = (FrameReader<ReadHalf<channel::Stream>>, FrameWriter<WriteHalf<channel::Stream>>);

/// A connection that carries a call.
async fn call<R: serde::de::DeserializeOwned>(
    opener: &Opener,
    call: impl Into<Call>,
) -> Result<(Frames, R)> {
    let (read, write) = tokio::io::split(opener.open(CALL_PORT).await?);
    let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
    writer.queue(FrameKind::Hello, &Hello::ours())?;
    writer.send(FrameKind::Call, &call.into()).await?;
    let _: Welcome = reader.expect(FrameKind::Welcome).await?;
    let reply = reader.expect(FrameKind::Reply).await?;
    Ok(((reader, writer), reply))
}

async fn measure_in(channel: StdUnixStream, nic: StdUnixStream, port: u16) -> Result<Measured> {
    let channel = tokio::net::UnixStream::from_std(channel)?;
    // As the supervisor reads it.
    let channel = tokio::io::BufReader::with_capacity(4096, channel);
    let side = Side::Host { nonce: 1, before: Before::Nothing };
    let (opener, mut acceptor, driver) = channel::connect(channel, side).await?;
    let work = async {
        let inbound = acceptor.accept().await.ok_or("the channel ended")?;
        let mut announced = FrameReader::new(inbound.accept());
        let _: Announcement = announced.expect(FrameKind::Announcement).await?;
        let activate = Activate {
            entropy: ByteString(vec![7; ENTROPY_LEN]),
            clock_offset_ns: 0,
            hostname: "bench".into(),
            machine_id: "0".repeat(32),
            seeded: false,
        };
        let (_, Activated { .. }) = call(&opener, activate).await?;
        let (_open, GatewayOpened) = call(&opener, OpenGateway::over_nic()).await?;
        let mut cable = Cable::new(tokio::net::UnixStream::from_std(nic)?);
        let (from_nic, to_nic) = cable.split();
        let limits = NetworkLimits::default();
        let gateway = Gateway::new(Policy::open(), limits, Loopback(port), |_| {});
        tokio::select! {
            lost = gateway.run(from_nic, to_nic) => Err(lost.into()),
            measured = alternate(&opener, port) => measured,
        }
    };
    tokio::select! {
        measured = work => measured,
        ended = driver => Err(format!("the channel ended: {ended:?}").into()),
    }
}

/// The client in the guest.
struct Client(Frames);

impl Client {
    async fn start(opener: &Opener) -> Result<Self> {
        let words = ["python3", "-c", CLIENT];
        let program = StartProcess {
            argv: words.map(|word| ByteString(word.into())).to_vec(),
            cwd: None,
            env: Vec::new(),
            user: None,
            stdin: true,
            timeout_ms: None,
        };
        let (frames, ProcessStarted { .. }) = call(opener, program).await?;
        let mut client = Self(frames);
        client.hear().await?;
        Ok(client)
    }

    async fn hear(&mut self) -> Result<String> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let frame = self.0.0.next().await?;
            if frame.kind == FrameKind::Stdout {
                line.extend(frame.payload);
            } else if frame.kind != FrameKind::StdinTaken {
                return Err(String::from_utf8_lossy(&frame.payload).into_owned().into());
            }
        }
        Ok(String::from_utf8(line)?.trim().to_owned())
    }

    async fn ask(&mut self, verb: &str, host: Ipv4Addr, port: u16, amount: usize) -> Result<f64> {
        let line = format!("{verb} {host} {port} {amount}\n");
        self.0.1.send_raw(FrameKind::Stdin, line.as_bytes()).await?;
        Ok(self.hear().await?.parse()?)
    }
}

async fn alternate(opener: &Opener, port: u16) -> Result<Measured> {
    let mut client = Client::start(opener).await?;
    let mut source = opener.open(SOURCE_PORT).await?;
    let mut sink = opener.open(SINK_PORT).await?;
    let mut measured = Measured::default();
    for round in 0..=PAIRS {
        let mut figures = [Vec::new(), Vec::new(), Vec::new()];
        for host in [SITE, SLIRP_HOST] {
            figures[0].push(client.ask("up", host, port, BYTES).await?);
            figures[1].push(client.ask("down", host, port, BYTES).await?);
            figures[2].push(client.ask("connect", host, port, CONNECTIONS).await?);
        }
        figures[0].push(raw_up(&mut source).await?);
        figures[1].push(raw_down(&mut sink).await?);
        // The first round warms the emulator's translations up.
        if round == 0 {
            continue;
        }
        let [up, down, connect] = figures;
        for (series, value) in measured.up.iter_mut().zip(up) {
            series.push(value);
        }
        for (series, value) in measured.down.iter_mut().zip(down) {
            series.push(value);
        }
        measured.connect.ours.push(connect[0]);
        measured.connect.floor.push(connect[1]);
    }
    Ok(measured)
}

/// Out of the agent, from the first byte on.
async fn raw_up(source: &mut channel::Stream) -> Result<f64> {
    let mut piece = vec![0; 64 << 10];
    source.write_all(&(BYTES as u64).to_le_bytes()).await?;
    let first = source.read(&mut piece).await?;
    let started = Instant::now();
    let mut left = BYTES - first;
    while left > 0 {
        let room = left.min(piece.len());
        match source.read(&mut piece[..room]).await? {
            0 => return Err("a stream ended early".into()),
            length => left -= length,
        }
    }
    Ok(rate(started, BYTES - first))
}

/// Into the agent, until it has all.
async fn raw_down(sink: &mut channel::Stream) -> Result<f64> {
    let piece = vec![0; 64 << 10];
    sink.write_all(&(BYTES as u64).to_le_bytes()).await?;
    let started = Instant::now();
    for _ in 0..BYTES / piece.len() {
        sink.write_all(&piece).await?;
    }
    sink.read_exact(&mut [0]).await?;
    Ok(rate(started, BYTES))
}

/// What connections add to a supervisor, their buffers used from end to end.
fn memory(home: &Home) -> Result<Figure> {
    let title = "What 200 connections out of the guest add to its supervisor";
    // Nothing is sent: which address would go there?
    let asked = std::net::UdpSocket::bind("0.0.0.0:0")?;
    let own = asked.connect("192.0.2.1:9").and_then(|()| asked.local_addr());
    let IpAddr::V4(own) = own.map_err(|error| format!("this host has no network: {error}"))?.ip()
    else {
        return Err("an IPv4 address is wanted".into());
    };
    let port = serve(own.into())?;
    let rule = format!("{own}:{port}");
    let workspace = Workspace::create(home, &["--network-policy", "egress", "--allow", &rule])?;
    workspace.ask(&["file", "write"], &["client.py", "--text", CLIENT])?;
    let supervisor = workspace.supervisor()?;
    let before = resident(supervisor)?;
    let line = format!("(echo hold {own} {port} {FLOWS}; sleep 600) | python3 client.py >told");
    workspace.ask(&["exec"], &["--detach", "--shell", &line])?;
    workspace.shell(&format!("until grep -q {FLOWS} told; do sleep 0.2; done"))?;
    let mut added = Series::default();
    added.push(resident(supervisor)? - before);
    Ok(Figure {
        title,
        goal: Goal::at_most(added.median(), 16.0, "MiB"),
        rows: vec![Row::new("resident, more than before", "MiB", added)],
        notes: vec!["each has moved 1 MiB either way".into()],
    })
}

fn resident(process: libc::pid_t) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
