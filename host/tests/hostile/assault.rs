//! How a test attacks: where, with what, and what has to come of it.

use crate::fake_vmm::{FakeVmm, serve_channel};
use crate::footprint::Footprint;
use crate::home::{Home, request, run_shell};
use pyro::{Context, Error, ErrorKind};
use pyro_agent::{Guest, Phase, serve_connection};
use pyro_protocol::channel::Stream;
use pyro_protocol::frame::header;
use pyro_protocol::handshake::MAGIC;
use pyro_protocol::process::{ProcessStarted, StartProcess};
use pyro_protocol::{Call, FrameKind, FrameReader, FrameWriter, GENERATION, Hello, Welcome, codec};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};

/// No attack may hold a caller longer: the longest of the tests' deadlines, and
/// the time to clean up on a busy host.
pub const LONGEST: Duration = Duration::from_secs(30);

/// More than all windows and buffers together, much less than what is sent.
pub const MOST_MIB: u64 = 24;

/// What is sent without end is sent until this.
pub const ENDLESS: usize = 512 << 20;

/// What lies on the wire.
pub type Wire = Vec<u8>;

/// A frame that says what it is.
pub fn frame(kind: FrameKind, payload: &[u8]) -> Wire {
    let mut wire = header(kind, payload.len()).to_vec();
    wire.extend_from_slice(payload);
    wire
}

/// A frame with an encoded value.
pub fn value<T: serde::Serialize>(kind: FrameKind, value: &T) -> Wire {
    frame(kind, &codec::encode(value).unwrap())
}

/// A header that may lie.
pub fn lie(kind: u8, reserved: u8, length: u32) -> Wire {
    let mut wire = vec![kind, reserved, 0, 0];
    wire.extend(length.to_le_bytes());
    wire
}

/// What an honest agent answers to `Hello`.
pub fn welcome() -> Welcome {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Welcome {
        magic: MAGIC,
        generation: GENERATION,
        agent_version: "0.1.0".into(),
        clock_ns: i64::try_from(now.as_nanos()).unwrap(),
        activated: true,
    }
}

/// Where an agent turns hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// In answer to the first `Hello`, or to every one until it is activated.
    FirstHello,
    /// In answer to `Activate`.
    Activate,
    /// In answer to the `Hello` of the caller's connection.
    Hello,
    /// In answer to `StartProcess`.
    Start,
    /// After the reply that the program runs.
    Running,
}

/// Both directions of a connection that is at the point where it turns hostile.
pub struct Turned {
    /// What the host sends.
    pub reader: FrameReader<ReadHalf<Stream>>,
    /// What it gets.
    pub writer: WriteHalf<Stream>,
}

impl Turned {
    /// Sends, as far as the host takes it.
    pub async fn send(&mut self, wire: &[u8]) -> bool {
        self.writer.write_all(wire).await.is_ok() && self.writer.flush().await.is_ok()
    }

    /// Sends the same again and again.
    pub async fn send_endlessly(&mut self, wire: &[u8]) {
        let mut sent = 0;
        while sent < ENDLESS && self.send(wire).await {
            sent += wire.len();
        }
    }

    /// Says nothing more, and keeps the connection.
    pub async fn hold(mut self) {
        drop(self.reader.discard().await);
        std::future::pending::<()>().await;
    }
}

/// A machine whose agent is honest up to a point.
pub fn turning<F>(turns: Where, attack: impl Fn(Turned) -> F + Send + Sync + 'static) -> FakeVmm
where
    F: Future<Output = ()> + Send + 'static,
{
    let attack = Arc::new(attack);
    FakeVmm::new(move |inside| {
        let attack = Arc::clone(&attack);
        async move {
            let guest = Guest::in_process("/tmp", Phase::Waiting);
            serve_channel(inside.channel, move |stream, count| {
                serve(stream, count, turns, Arc::clone(&guest), Arc::clone(&attack))
            })
            .await
        }
    })
}

async fn serve<F: Future<Output = ()>>(
    stream: Stream,
    count: usize,
    turns: Where,
    guest: Arc<Guest>,
    attack: Arc<impl Fn(Turned) -> F>,
) {
    let early = matches!(turns, Where::FirstHello | Where::Activate);
    if !early && count == 0 {
        return serve_connection(stream, guest).await;
    }
    let (mut reader, mut writer) = split(stream);
    let Ok(_) = reader.expect::<Hello>(FrameKind::Hello).await else { return };
    if matches!(turns, Where::Activate | Where::Start | Where::Running) {
        let mut frames = FrameWriter::new(&mut writer);
        if frames.send(FrameKind::Welcome, &welcome()).await.is_err() {
            return;
        }
        // One that only asked for the time ends here.
        let Ok(call) = reader.expect::<Call>(FrameKind::Call).await else { return };
        if turns == Where::Running {
            assert!(matches!(call, Call::StartProcess(StartProcess { .. })));
            drop(frames.send(FrameKind::Reply, &ProcessStarted { pid: 1 }).await);
        }
    }
    attack(Turned { reader, writer }).await;
}

fn split(stream: Stream) -> (FrameReader<ReadHalf<Stream>>, WriteHalf<Stream>) {
    let (read, write) = tokio::io::split(stream);
    (FrameReader::new(read), write)
}

/// Sends this, then holds the connection open.
pub fn sending(turns: Where, wire: Wire) -> FakeVmm {
    turning(turns, move |mut turned| {
        let wire = wire.clone();
        async move {
            turned.send(&wire).await;
            turned.hold().await;
        }
    })
}

/// Sends this, then closes the connection.
pub fn sending_and_closing(turns: Where, wire: Wire) -> FakeVmm {
    turning(turns, move |mut turned| {
        let wire = wire.clone();
        async move {
            turned.send(&wire).await;
            drop(turned.writer.shutdown().await);
        }
    })
}

/// Runs against a machine and wants one of these kinds of error.
pub async fn expect_error(name: &str, vmm: FakeVmm, kinds: &[ErrorKind]) -> Error {
    let home = Home::new();
    let pyro = home.pyro(vmm);
    let footprint = Footprint::new();
    let started = Instant::now();
    let asked = request(&json!({ "command": ["sleep", "1000"], "timeout_seconds": 2 }));
    let answer = tokio::time::timeout(LONGEST, pyro.call(asked)).await;
    let error = match answer.unwrap_or_else(|_| panic!("{name}: the caller is held for ever")) {
        Ok(answer) => panic!("{name}: {answer:?}"),
        Err(error) => error,
    };
    let (grown, took) = (footprint.grown_mib(), started.elapsed());
    assert!(kinds.contains(&error.kind()), "{name}: {:?}: {}", error.kind(), error.chain());
    assert!(grown < MOST_MIB, "{name}: {grown} MiB");
    assert_printable(name, &error);
    home.assert_nothing_left();
    println!("{name}: {:?} after {took:?}, {grown} MiB: {}", error.kind(), error.chain());
    error
}

/// Nothing that a guest says may drive the caller's terminal or flood it.
fn assert_printable(name: &str, error: &Error) {
    let hint = error.next_step().unwrap_or_default();
    let text = format!("{}{hint}", error.chain()).replace('\n', "");
    assert!(!text.contains(char::is_control), "{name}: {text:?}");
    assert!(text.len() < 32 * 1024, "{name}: {} bytes", text.len());
}

/// Runs against a machine that is odd but within its rights.
pub async fn expect_answer(vmm: FakeVmm) -> pyro::operation::run::RunAnswer {
    let home = Home::new();
    let pyro = home.pyro(vmm);
    let answer = tokio::time::timeout(LONGEST, run_shell(&pyro, "true", Context::default())).await;
    home.assert_nothing_left();
    answer.expect("in time").unwrap()
}
