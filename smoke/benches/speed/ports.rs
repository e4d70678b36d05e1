//! A published port next to what it is made of.
//!
//! Bytes from a server in the guest, through its loopback, the agent, the
//! channel and the supervisor to a client of the host, next to bytes that begin
//! in the agent itself. The guest's one processor has to move them through its own
//! loopback first, and how fast it does that alone is told too. And connections, each until the server's first byte,
//! next to the same call to the agent made by a bare client of the same
//! endpoint, one after the other.

use crate::Result;
use crate::report::{Figure, Goal, Row};
use crate::sample::{Pairs, Series};
use crate::throughput;
use crate::workspace::Workspace;
use pyro_protocol::tunnel::{ConnectPort, PortConnected};
use pyro_protocol::{
    CALL_PORT, Call, FrameKind, FrameReader, FrameWriter, Hello, SOURCE_PORT, Welcome,
};
use pyro_smoke::Home;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

const PAIRS: usize = 9;

/// Moved at each measurement.
const BYTES: usize = 64 << 20;

/// Connections of one measurement.
const CONNECTIONS: usize = 50;

const GUEST_PORT: u16 = 8000;

/// Says a byte to whoever comes, and gives as many as a line asks for.
const SERVER: &str = r#"
import socket
server = socket.create_server(("127.0.0.1", 8000), backlog=64)
zeros = bytes(1 << 20)
open("listening", "w").close()
while True:
    client, _ = server.accept()
    try:
        client.sendall(b"!")
        for line in client.makefile():
            for _ in range(int(line) >> 20):
                client.sendall(zeros)
    except ConnectionError:
        pass
    client.close()
"#;

/// Takes as many from it as it is told, and says how many MiB a second.
const NEIGHBOUR: &str = r#"
import socket, sys, time
left = int(sys.argv[1])
server = socket.create_connection(("127.0.0.1", 8000))
server.recv(1)
server.sendall(b"%d\n" % left)
mib, piece, begin = left >> 20, bytearray(1 << 18), time.perf_counter()
while left:
    left -= server.recv_into(piece, min(left, len(piece)))
print(mib / (time.perf_counter() - begin))
"#;

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    let workspace = Workspace::create(home, &[])?;
    workspace.ask(&["file", "write"], &["server.py", "--text", SERVER])?;
    workspace.ask(&["file", "write"], &["neighbour.py", "--text", NEIGHBOUR])?;
    workspace.ask(&["exec"], &["--detach", "--", "python3", "server.py"])?;
    workspace.shell("while ! [ -e listening ]; do sleep 0.1; done")?;
    let published = workspace.ask(&["port", "publish"], &[&GUEST_PORT.to_string(), "--json"])?;
    let published: Value = serde_json::from_str(&published)?;
    let port = published["published_ports"][0]["host_port"].as_u64().ok_or("no port")?;
    let port = u16::try_from(port)?;
    let mut source = workspace.connect(SOURCE_PORT)?;
    let (mut bytes, mut connections) = (Pairs::default(), Pairs::default());
    let mut neighbour = Series::default();
    for round in 0..=PAIRS {
        let ours = download(port)?;
        let bare = throughput::bare_source(&mut source, BYTES)?;
        let inside = workspace.shell(&format!("python3 neighbour.py {BYTES}"))?;
        let (connected, floor) = (connect(port)?, connect_barely(&workspace)?);
        // The first round warms the emulator's translations up.
        if round > 0 {
            bytes.ours.push(ours);
            bytes.floor.push(bare);
            neighbour.push(inside.trim().parse()?);
            connections.ours.push(connected);
            connections.floor.push(floor);
        }
    }
    let mut through = figure(
        "Bytes through a published port, against the raw channel",
        ["from a server in the guest to a client", "a bare stream out of the agent"],
        "MiB/s",
        bytes,
    );
    through.rows.push(Row::new("from the server to a client in the guest", "MiB/s", neighbour));
    Ok(vec![
        through,
        figure(
            "Connections to a published port, against a bare client",
            ["connected, and the server's first byte read", "the same by bare calls to the agent"],
            "1/s",
            connections,
        ),
    ])
}

fn figure(title: &'static str, rows: [&str; 2], unit: &'static str, pairs: Pairs) -> Figure {
    let note = format!("median of the {PAIRS} pairwise ratios: {:.3}", pairs.median_of_ratios());
    let goal = Goal::at_least(pairs.ratio_of_medians(), 0.7, "");
    let [ours, floor]: [Series; 2] = [pairs.ours, pairs.floor];
    Figure {
        title,
        goal,
        rows: vec![Row::new(rows[0], unit, ours), Row::new(rows[1], unit, floor)],
        notes: vec![note],
    }
}

fn download(port: u16) -> Result<f64> {
    let mut client = TcpStream::connect(("127.0.0.1", port))?;
    client.read_exact(&mut [0])?;
    client.write_all(format!("{BYTES}\n").as_bytes())?;
    throughput::swallow(&mut client, BYTES)
}

/// Connections a second.
fn connect(port: u16) -> Result<f64> {
    per_second(|| {
        let mut client = TcpStream::connect(("127.0.0.1", port))?;
        Ok(client.read_exact(&mut [0])?)
    })
}

fn connect_barely(workspace: &Workspace<'_>) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    per_second(|| {
        let stream = workspace.connect(CALL_PORT)?;
        stream.set_nonblocking(true)?;
        runtime.block_on(async {
            let stream = tokio::net::UnixStream::from_std(stream)?;
            let (read, write) = stream.into_split();
            let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
            let call = Call::from(ConnectPort { port: GUEST_PORT });
            writer.queue(FrameKind::Hello, &Hello::ours())?;
            writer.send(FrameKind::Call, &call).await?;
            let _: Welcome = reader.expect(FrameKind::Welcome).await?;
            let _: PortConnected = reader.expect(FrameKind::Reply).await?;
            let kind = reader.next().await?.kind;
            match kind == FrameKind::Data {
                true => Ok(()),
                false => Err(format!("{kind:?} instead of the server's first byte").into()),
            }
        })
    })
}

fn per_second(mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    for _ in 0..CONNECTIONS {
        once()?;
    }
    Ok(CONNECTIONS as f64 / started.elapsed().as_secs_f64())
}
