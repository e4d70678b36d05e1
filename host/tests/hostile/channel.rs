//! Attacks from beneath the protocol: on the byte stream, on the multiplexer, on
//! the announcement, on the console.

use crate::assault::{ENDLESS, LONGEST, expect_answer, expect_error};
use crate::fake_vmm::{FakeVmm, Inside, announce, serve_agent};
use crate::home::Home;
use futures::future::pending;
use pyro::ErrorKind::{BootFailed, GuestLost, Protocol};
use pyro_protocol::channel::{self, Opener, Side};
use pyro_protocol::handshake::{Announcement, MAGIC};
use pyro_protocol::{ANNOUNCE_PORT, FrameKind, GENERATION, VsockPort};
use std::io::Write;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Sends bytes instead of a channel, and again and again if need be.
fn raw(bytes: Vec<u8>, times: usize) -> FakeVmm {
    FakeVmm::new(move |mut inside| {
        let bytes = bytes.clone();
        async move {
            for _ in 0..times {
                if inside.channel.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            let _kept = inside;
            pending().await
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_instead_of_a_channel() {
    let kinds = [BootFailed];
    let megabyte: Vec<u8> =
        (0..1 << 20).map(|n: u32| n.wrapping_mul(2_654_435_761) as u8).collect();
    tokio::join!(
        expect_error("text", raw(b"hello\n".repeat(9), 1), &kinds),
        expect_error("almost a greeting", raw(b"\xffpyrosy\xffpyrosym".to_vec(), 1), &kinds),
        expect_error("endless noise", raw(megabyte, ENDLESS >> 20), &kinds),
        expect_error("endless greetings", raw(b"\xffpyrosyn12345678".repeat(4096), 1000), &kinds),
    );
}

/// Greets rightly, then sends no frames of the multiplexer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_instead_of_the_multiplexer() {
    let frame = |kind: u8, stream: u32, value: u32, data: &[u8]| {
        [&[kind, 0, 0, 0], &stream.to_le_bytes()[..], &value.to_le_bytes(), data].concat()
    };
    let frames: [(&str, Vec<u8>); 8] = [
        ("text", b"hello, this is no frame".to_vec()),
        ("an oversized frame", frame(3, 2, u32::MAX, b"")),
        ("data for a stream that is none", frame(3, 99, 4, b"data")),
        ("credit beyond all", [frame(1, 2, 5006, b""), frame(6, 2, 256 << 10, b"")].concat()),
        ("an unknown kind", frame(9, 0, 0, b"")),
        ("an acceptance of nothing", [frame(1, 2, 5006, b""), frame(2, 2, 0, b"")].concat()),
        ("the host's own number", frame(1, 1, 5006, b"")),
        ("an end after the end", [frame(1, 2, 5006, b""), frame(4, 2, 0, b"").repeat(2)].concat()),
    ];
    let attacks = frames.map(|(name, bytes)| async move {
        let vmm = FakeVmm::new(move |mut inside: Inside| {
            let bytes = bytes.clone();
            async move {
                let mut sync = [0; 16];
                inside.channel.read_exact(&mut sync).await.unwrap();
                drop(inside.channel.write_all(&[&sync[..], &bytes].concat()).await);
                let _kept = inside;
                pending().await
            }
        });
        expect_error(name, vmm, &[BootFailed]).await;
    });
    futures::future::join_all(attacks).await;
}

/// An agent that is announced and then does this beside.
fn beside<F>(attack: impl Fn(Opener) -> F + Send + Sync + Clone + 'static) -> FakeVmm
where
    F: Future<Output = ()> + Send + 'static,
{
    FakeVmm::new(move |inside| {
        let attack = attack.clone();
        async move {
            let up = channel::connect(inside.channel, Side::Guest).await;
            let Ok((opener, acceptor, driver)) = up else { return "failed".into() };
            let attacking = async {
                attack(opener.clone()).await;
                let _kept = acceptor;
                pending::<()>().await;
            };
            tokio::select! {
                _ = driver => "lost its host".into(),
                () = attacking => unreachable!("it waits"),
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcements_that_are_none() {
    let named = |magic| Announcement { magic, generation: GENERATION, uptime_us: u64::MAX };
    let wires = [
        ("nothing", vec![], GuestLost),
        ("half", crate::assault::lie(6, 0, 99), GuestLost),
        ("another frame", crate::assault::frame(FrameKind::Stdout, b"hi"), Protocol),
        ("garbage", crate::assault::frame(FrameKind::Announcement, &[0xff; 9]), Protocol),
        ("oversized", crate::assault::lie(6, 0, 1025), Protocol),
        (
            "somebody else",
            crate::assault::value(FrameKind::Announcement, &named(*b"nova")),
            Protocol,
        ),
    ];
    for (name, wire, kind) in wires {
        let vmm = beside(move |opener| {
            let wire = wire.clone();
            async move {
                let mut stream = opener.open(ANNOUNCE_PORT).await.unwrap();
                stream.write_all(&wire).await.unwrap();
                stream.close_write().await;
            }
        });
        // An announcement that ends early is a protocol broken by being cut.
        let kinds =
            if kind == GuestLost { vec![GuestLost, Protocol, BootFailed] } else { vec![kind] };
        expect_error(name, vmm, &kinds).await;
    }
    assert_eq!(named(MAGIC).magic, MAGIC);
}

trait CloseWrite {
    async fn close_write(&mut self);
}

impl CloseWrite for channel::Stream {
    async fn close_write(&mut self) {
        drop(self.flush().await);
        drop(self.shutdown().await);
    }
}

/// More streams than there may be, to ports that nobody listens on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_streams() {
    let vmm = beside(|opener| async move {
        let opening = (0..4000).map(|number| {
            let opener = opener.clone();
            tokio::spawn(async move { opener.open(VsockPort(number)).await.map(drop) })
        });
        futures::future::join_all(opening.collect::<Vec<_>>()).await;
    });
    expect_error("thousands", vmm, &[BootFailed]).await;
}

/// Streams that never say where they want to go, while the host needs one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_beside_an_honest_agent() {
    let vmm = FakeVmm::new(|inside| async move {
        serve_beside(inside, |opener| async move {
            for round in 0..20 {
                let opening = (0..50).map(|number| opener.open(VsockPort(round * 100 + number)));
                futures::future::join_all(opening.collect::<Vec<_>>()).await;
            }
        })
        .await
    });
    assert_eq!(expect_answer(vmm).await.exit_code, 0);
}

/// Announces more than once; the second time is nobody's affair.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announced_again_and_again() {
    let vmm = FakeVmm::new(|inside| async move {
        serve_beside(inside, |opener| async move {
            for _ in 0..100 {
                announce(&opener).await;
            }
        })
        .await
    });
    assert_eq!(expect_answer(vmm).await.exit_code, 0);
}

async fn serve_beside<F>(inside: Inside, attack: impl FnOnce(Opener) -> F) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let guest = pyro_agent::Guest::in_process("/tmp", pyro_agent::Phase::Waiting);
    let up = channel::connect(inside.channel, Side::Guest).await;
    let Ok((opener, mut acceptor, driver)) = up else { return "failed".into() };
    let attacking = tokio::spawn(attack(opener.clone()));
    let serving = async {
        announce(&opener).await;
        while let Some(stream) = crate::fake_vmm::next_call(&mut acceptor).await {
            tokio::spawn(pyro_agent::serve_connection(stream, guest.clone()));
        }
        pending::<()>().await;
    };
    let how = tokio::select! {
        _ = driver => "lost its host".into(),
        () = serving => unreachable!("it waits"),
        () = guest.powered_off() => crate::fake_vmm::WELL.into(),
    };
    attacking.abort();
    how
}

/// Prints as fast as it can, from a thread of its own, whatever else happens.
fn flood(console: std::os::unix::net::UnixStream) {
    std::thread::spawn(move || {
        let mut console = console;
        let page = [b'\x1b'; 4096];
        while console.write_all(&page).is_ok() {}
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_an_endless_console_beside_an_honest_agent() {
    let home = Home::new();
    let vmm = FakeVmm::new(|inside| async move {
        flood(inside.console);
        serve_agent(inside.channel, "/tmp".into()).await
    });
    let pyro = home.pyro(vmm);
    let footprint = crate::footprint::Footprint::new();
    let asked = crate::home::request(&serde_json::json!({ "command": "sleep 2; exit 6" }));
    let running = tokio::spawn(async move { pyro.call(asked).await });
    let mut most = 0;
    while !running.is_finished() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let logs = home.workspaces().into_iter().flat_map(|directory| {
            ["console.log", "console.log.1"].map(|name| directory.join(name))
        });
        let size = logs.filter_map(|log| log.metadata().ok()).map(|meta| meta.len()).sum();
        most = std::cmp::max(most, size);
    }
    assert_eq!(running.await.unwrap().unwrap().exit_code, 6);
    assert!(most > 512 << 10 && most <= (1 << 20) + 4096, "{most} bytes of log");
    assert!(footprint.grown_mib() < 24, "{} MiB", footprint.grown_mib());
    home.assert_nothing_left();
}

/// The boot's deadline holds even when the console never falls silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_an_endless_console_and_nothing_else() {
    let started = Instant::now();
    let vmm = FakeVmm::new(|inside| async move {
        flood(inside.console);
        let _kept = inside.channel;
        pending().await
    });
    expect_error("endless", vmm, &[BootFailed]).await;
    assert!(started.elapsed() < LONGEST);
}
