//! The Unix socket that speaks `CONNECT`, over a real multiplexed channel.

use crate::confinement::{PLAYING, copy_of_this};
use futures::future::{join_all, pending};
use pyro::vsock::{self, DIRECTORY, SOCKET_NAME};
use pyro_protocol::VsockPort;
use pyro_protocol::channel::{self, Before, Side, Stream};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Much longer than anything here may take.
const SOON: Duration = Duration::from_secs(20);

const ECHO: VsockPort = VsockPort(1);
/// Reads to the end, then says how much that was.
const COUNT: VsockPort = VsockPort(2);
/// Says something, ends its direction, then counts.
const FIRST: VsockPort = VsockPort(3);
/// Writes [`FLOODED`] bytes.
const FLOOD: VsockPort = VsockPort(4);
/// Takes the connection, and that was all.
const MUTE: VsockPort = VsockPort(5);
/// Reads a byte and is gone.
const SHY: VsockPort = VsockPort(6);
const NOBODY: VsockPort = VsockPort(7);

const FLOODED: usize = 8 << 20;

struct Endpoint {
    place: tempfile::TempDir,
    announced: mpsc::Receiver<Stream>,
    tasks: tokio::task::JoinSet<()>,
}

impl Endpoint {
    async fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let (host, guest) = UnixStream::pair().unwrap();
        let side = Side::Host { nonce: 7, before: Before::Nothing };
        let (host, guest) =
            tokio::join!(channel::connect(host, side), channel::connect(guest, Side::Guest));
        let (opener, acceptor, driver) = host.unwrap();
        let (_, mut inbound, guest_driver) = guest.unwrap();
        let listener = vsock::endpoint::listen(&File::open(place.path()).unwrap()).unwrap();
        let (announce, announced) = mpsc::channel(1);
        let serving = async move {
            vsock::endpoint::serve(&listener, opener, acceptor, VsockPort(99), announce).await;
        };
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async { drop(driver.await) });
        tasks.spawn(async { drop(guest_driver.await) });
        tasks.spawn(serving);
        tasks.spawn(async move {
            while let Some(stream) = inbound.accept().await {
                let port = stream.port();
                if port != NOBODY {
                    tokio::spawn(serve(port, stream.accept()));
                }
            }
        });
        Self { place, announced, tasks }
    }

    async fn connect(&self, port: VsockPort) -> std::io::Result<UnixStream> {
        let directory = File::open(self.place.path()).unwrap();
        timeout(SOON, vsock::connect(directory.as_fd(), port)).await.expect("in time")
    }

    async fn raw(&self) -> UnixStream {
        UnixStream::connect(self.place.path().join(DIRECTORY).join(SOCKET_NAME)).await.unwrap()
    }
}

async fn serve(port: VsockPort, mut stream: Stream) -> std::io::Result<()> {
    match port {
        ECHO => {
            let (mut read, mut write) = tokio::io::split(stream);
            tokio::io::copy(&mut read, &mut write).await?;
            write.shutdown().await
        }
        COUNT => count(&mut stream).await,
        FIRST => {
            let (mut read, mut write) = tokio::io::split(stream);
            write.write_all(b"first").await?;
            write.shutdown().await?;
            let mut all = Vec::new();
            read.read_to_end(&mut all).await?;
            assert_eq!(all, b"second");
            Ok(())
        }
        FLOOD => {
            for _ in 0..FLOODED / 4096 {
                stream.write_all(&[b'x'; 4096]).await?;
            }
            stream.shutdown().await
        }
        MUTE => pending().await,
        SHY => stream.read_u8().await.map(drop),
        other => panic!("{other} has no service"),
    }
}

async fn count(stream: &mut Stream) -> std::io::Result<()> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await?;
    stream.write_all(all.len().to_string().as_bytes()).await?;
    stream.shutdown().await
}

async fn echo(stream: &mut UnixStream, bytes: &[u8]) {
    let (mut read, mut write) = stream.split();
    let mut back = vec![0; bytes.len()];
    let both = async { tokio::join!(write.write_all(bytes), read.read_exact(&mut back)) };
    let (written, read) = timeout(SOON, both).await.expect("in time");
    written.unwrap();
    read.unwrap();
    assert!(back == bytes, "other bytes came back");
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_refused() {
    let endpoint = Endpoint::new().await;
    for _ in 0..3 {
        let error = endpoint.connect(NOBODY).await.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        assert!(error.to_string().contains("vsock port 7"), "{error}");
    }
    echo(&mut endpoint.connect(ECHO).await.unwrap(), b"still there").await;
}

#[tokio::test]
async fn whoever_says_something_else_is_shown_the_door() {
    let endpoint = Endpoint::new().await;
    let long = "CONNECT ".repeat(8);
    for line in ["HELLO\n", "CONNECT x\n", "CONNECT 4294967296\n", "\n", "CONNECT -1\n", &long] {
        let mut caller = endpoint.raw().await;
        drop(caller.write_all(line.as_bytes()).await);
        let mut answer = Vec::new();
        // A reset is as good as an end.
        drop(timeout(SOON, caller.read_to_end(&mut answer)).await.expect("in time"));
        assert!(answer.is_empty(), "{line:?}: {answer:?}");
    }
    echo(&mut endpoint.connect(ECHO).await.unwrap(), b"still there").await;
}

/// What follows the line belongs to the guest, even when it comes with it.
#[tokio::test]
async fn bytes_behind_the_line_are_not_lost() {
    let endpoint = Endpoint::new().await;
    let mut caller = endpoint.raw().await;
    caller.write_all(b"CONNECT 1\nat once").await.unwrap();
    let mut answer = [0; 12];
    timeout(SOON, caller.read_exact(&mut answer)).await.expect("in time").unwrap();
    assert_eq!(&answer, b"OK 1\nat once");
}

#[tokio::test]
async fn either_side_may_end_its_direction_first() {
    let endpoint = Endpoint::new().await;
    let mut caller = endpoint.connect(COUNT).await.unwrap();
    caller.write_all(&[0; 300_000]).await.unwrap();
    caller.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(SOON, caller.read_to_string(&mut answer)).await.expect("in time").unwrap();
    assert_eq!(answer, "300000");

    let mut caller = endpoint.connect(FIRST).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, caller.read_to_string(&mut answer)).await.expect("in time").unwrap();
    assert_eq!(answer, "first");
    caller.write_all(b"second").await.unwrap();
    caller.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_guest_that_goes_ends_the_callers_connection() {
    let endpoint = Endpoint::new().await;
    let mut caller = endpoint.connect(SHY).await.unwrap();
    caller.write_all(b"boo").await.unwrap();
    let mut rest = Vec::new();
    drop(timeout(SOON, caller.read_to_end(&mut rest)).await.expect("in time"));
    assert!(rest.is_empty());
}

/// More than are carried at the same time: the rest waits its turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_connections_at_once() {
    let endpoint = Endpoint::new().await;
    let callers = (0..200_u32).map(|number| {
        let endpoint = &endpoint;
        async move {
            let mut caller = endpoint.connect(ECHO).await.unwrap();
            let bytes: Vec<u8> = number.to_le_bytes().repeat(5000);
            echo(&mut caller, &bytes).await;
        }
    });
    timeout(SOON, join_all(callers)).await.expect("in time");
}

#[tokio::test]
async fn callers_who_leave_early_take_nobodys_place() {
    let endpoint = Endpoint::new().await;
    for round in 0..400 {
        let mut caller = endpoint.raw().await;
        match round % 4 {
            0 => {}
            1 => caller.write_all(b"CONN").await.unwrap(),
            2 => caller.write_all(b"CONNECT 1\n").await.unwrap(),
            _ => drop(endpoint.connect(FLOOD).await.unwrap()),
        }
    }
    echo(&mut endpoint.connect(ECHO).await.unwrap(), b"still there").await;
}

#[tokio::test]
async fn a_slow_reader_delays_nobody_else_and_loses_nothing() {
    let endpoint = Endpoint::new().await;
    let mut slow = endpoint.connect(FLOOD).await.unwrap();
    let mut mute = endpoint.connect(MUTE).await.unwrap();
    // Until no more goes in.
    let stuck = async { while mute.write_all(&[0; 4096]).await.is_ok() {} };
    assert!(timeout(Duration::from_millis(500), stuck).await.is_err());
    for _ in 0..20 {
        echo(&mut endpoint.connect(ECHO).await.unwrap(), &[1; 20_000]).await;
    }
    let mut all = Vec::new();
    timeout(SOON, slow.read_to_end(&mut all)).await.expect("in time").unwrap();
    assert_eq!(all.len(), FLOODED);
}

#[tokio::test]
async fn the_end_of_the_channel_ends_every_connection() {
    let mut endpoint = Endpoint::new().await;
    let mut caller = endpoint.connect(MUTE).await.unwrap();
    endpoint.tasks.shutdown().await;
    let mut rest = Vec::new();
    drop(timeout(SOON, caller.read_to_end(&mut rest)).await.expect("in time"));
    assert!(endpoint.announced.recv().await.is_none());
}

/// As many callers as are served at a time.
const CALLERS_MAX: usize = 192;

/// A guest that never closes a connection would keep its place for ever.
#[tokio::test(start_paused = true)]
async fn r8_a_guest_cannot_keep_a_connection_whose_caller_has_left() {
    let endpoint = Endpoint::new().await;
    let mut callers = Vec::new();
    for _ in 0..CALLERS_MAX {
        let mut caller = endpoint.connect(MUTE).await.unwrap();
        caller.write_all(b"half a frame").await.unwrap();
        caller.shutdown().await.unwrap();
        callers.push(caller);
    }
    let directory = File::open(endpoint.place.path()).unwrap();
    let mut next = std::pin::pin!(vsock::connect(directory.as_fd(), ECHO));
    let waiting = timeout(Duration::from_secs(3600), &mut next).await;
    // One that only said all it had to say waits as long as it likes.
    waiting.expect_err("all wait for an answer");
    drop(callers.pop());
    timeout(Duration::from_secs(3600), next).await.expect("in time").unwrap();
}

/// In a process of its own, that others are not short of descriptors.
#[test]
fn r9_a_host_short_of_descriptors_loses_no_guest() {
    const NAME: &str = "endpoint::r9_a_host_short_of_descriptors_loses_no_guest";
    if std::env::var_os(PLAYING).is_none() {
        let played = copy_of_this(NAME, "crowd").output().unwrap();
        assert!(played.status.success(), "{}", String::from_utf8_lossy(&played.stderr));
        return;
    }
    let crowd = async {
        let endpoint = Endpoint::new().await;
        let place =
            SocketAddrUnix::new(endpoint.place.path().join(DIRECTORY).join(SOCKET_NAME)).unwrap();
        let caller = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        let next = rustix::io::dup(&caller).unwrap();
        let number = u64::try_from(next.as_raw_fd()).unwrap();
        drop(next);
        let enough = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(number), ..enough }).unwrap();
        connect(&caller, &place).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        setrlimit(Resource::Nofile, enough).unwrap();
        let caller = std::os::unix::net::UnixStream::from(caller);
        caller.set_nonblocking(true).unwrap();
        let mut caller = UnixStream::from_std(caller).unwrap();
        caller.write_all(b"CONNECT 1\n").await.unwrap();
        let mut answer = [0; 5];
        timeout(SOON, caller.read_exact(&mut answer)).await.expect("in time").unwrap();
        echo(&mut caller, b"still there").await;
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(crowd);
}
