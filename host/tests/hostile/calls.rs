//! Attacks on the handshake and on replies, at every point where one is due.

use crate::assault::{
    LONGEST, Where, expect_answer, expect_error, frame, lie, sending, sending_and_closing, turning,
    value, welcome,
};
use pyro::ErrorKind::{self, BootFailed, GuestLost, Protocol, Unsupported};
use pyro_protocol::power::Pong;
use pyro_protocol::{AgentError, AgentErrorKind, FrameKind, Generation, Welcome};
use std::time::Duration;

const EVERYWHERE: [Where; 4] = [Where::FirstHello, Where::Activate, Where::Hello, Where::Start];

/// What breaks the protocol wherever a frame is due.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_none() {
    let kind = FrameKind::Reply as u8;
    let wires = [
        ("an unknown kind", lie(99, 0, 0)),
        ("kind 0", lie(0, 0, 0)),
        ("reserved bytes", lie(kind, 1, 0)),
        ("an oversized reply", lie(kind, 0, 1024 * 1024 + 1)),
        ("the largest length", lie(kind, 0, u32::MAX)),
        ("an oversized welcome", lie(FrameKind::Welcome as u8, 0, 1025)),
        ("an oversized error", lie(FrameKind::Error as u8, 0, 16 * 1024 + 1)),
        ("output where a reply is due", frame(FrameKind::Stdout, b"hello")),
        ("an exit where a reply is due", lie(FrameKind::Exit as u8, 0, 0)),
        ("the host's own words", frame(FrameKind::Hello, b"pyro\x01")),
        ("a call", lie(FrameKind::Call as u8, 0, 0)),
        ("another protocol", b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        ("garbage in a welcome", frame(FrameKind::Welcome, &[0xff; 64])),
        ("garbage in an error", frame(FrameKind::Error, &[0xff; 64])),
        ("an empty error", frame(FrameKind::Error, &[])),
    ];
    for turns in EVERYWHERE {
        for (name, wire) in &wires {
            let name = format!("{name} at {turns:?}");
            expect_error(&name, sending(turns, wire.clone()), &[Protocol]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_of_another_type() {
    let full = vec![7; FrameKind::Reply.limit()];
    let wires = [
        ("Pong", value(FrameKind::Reply, &Pong)),
        ("too much", value(FrameKind::Reply, &[1_u64; 9])),
        ("garbage", frame(FrameKind::Reply, &[0xff; 16])),
        ("a megabyte of garbage", frame(FrameKind::Reply, &full)),
        (
            "a string that claims to be huge",
            frame(FrameKind::Reply, &[253, 0, 0, 0, 0, 0, 1, 0, 0]),
        ),
    ];
    for turns in [Where::Activate, Where::Start] {
        for (name, wire) in &wires {
            let name = format!("{name} at {turns:?}");
            expect_error(&name, sending(turns, wire.clone()), &[Protocol]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_cut_short() {
    let reply = frame(FrameKind::Reply, &[1; 100]);
    for turns in EVERYWHERE {
        for length in [0, 1, 7, 8, 50] {
            let name = format!("{length} bytes and the end at {turns:?}");
            let cut = reply[..length].to_vec();
            expect_error(&name, sending_and_closing(turns, cut), &[GuestLost]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn silence() {
    let kinds = |turns| match turns {
        Where::FirstHello | Where::Activate => [BootFailed],
        Where::Hello | Where::Start | Where::Running => [GuestLost],
    };
    let attacks = EVERYWHERE.map(|turns| async move {
        for (name, wire) in
            [("nothing", vec![]), ("half a frame", lie(FrameKind::Reply as u8, 0, 9))]
        {
            let name = format!("{name} at {turns:?}");
            expect_error(&name, sending(turns, wire), &kinds(turns)).await;
        }
    });
    futures::future::join_all(attacks).await;
}

/// Each byte comes in time, all of them do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dribble() {
    let attacks = EVERYWHERE.map(|turns| async move {
        let dribbling = turning(turns, |mut turned| async move {
            let frame = frame(FrameKind::Welcome, &[0; 1000]);
            for byte in frame.iter().cycle() {
                if !turned.send(&[*byte]).await {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        expect_error(&format!("{turns:?}"), dribbling, &[BootFailed, GuestLost]).await;
    });
    futures::future::join_all(attacks).await;
}

fn welcomes() -> Vec<(&'static str, Welcome, ErrorKind)> {
    let version = "\x1b]0;owned\x07\u{202e}".repeat(40);
    vec![
        ("wrong magic", Welcome { magic: *b"PYRO", ..welcome() }, Protocol),
        ("a newer generation", Welcome { generation: Generation(2), ..welcome() }, Protocol),
        ("the newest", Welcome { generation: Generation(u16::MAX), ..welcome() }, Protocol),
        (
            "none, and a version that paints",
            Welcome { generation: Generation(0), agent_version: version, ..welcome() },
            Unsupported,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn welcomes_from_nobody() {
    for turns in [Where::FirstHello, Where::Hello] {
        for (name, welcome, kind) in welcomes() {
            let name = format!("{name} at {turns:?}");
            expect_error(&name, sending(turns, value(FrameKind::Welcome, &welcome)), &[kind]).await;
        }
    }
}

/// A guest may live in any time it likes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absurd_clocks() {
    for clock_ns in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX] {
        for turns in [Where::FirstHello, Where::Hello] {
            let absurd = Welcome { clock_ns, activated: false, ..welcome() };
            let wire = value(FrameKind::Welcome, &absurd);
            let kinds = [BootFailed, GuestLost];
            let name = format!("{clock_ns} at {turns:?}");
            expect_error(&name, sending_and_closing(turns, wire), &kinds).await;
        }
    }
}

/// Whatever an agent claims to be the reason: a boot that failed is not the
/// caller's program that is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_any_kind_and_length() {
    let kinds = [
        AgentErrorKind::InvalidArgument,
        AgentErrorKind::WrongState,
        AgentErrorKind::ProgramNotFound,
        AgentErrorKind::ProgramNotExecutable,
        AgentErrorKind::DirectoryNotFound,
        AgentErrorKind::OutOfResources,
        AgentErrorKind::System,
        AgentErrorKind::Protocol,
        AgentErrorKind::NotFound,
        AgentErrorKind::AlreadyExists,
        AgentErrorKind::WrongFileType,
        AgentErrorKind::OutOfTree,
        AgentErrorKind::Conflict,
        AgentErrorKind::TooLarge,
    ];
    for kind in kinds {
        // Not by `new`, which would cut it.
        let error = AgentError { kind, message: "\x1b[2J\u{9b}\r\n\0".repeat(1600) };
        let wire = value(FrameKind::Error, &error);
        let name = format!("{kind:?} at Activate");
        let error =
            expect_error(&name, sending(Where::Activate, wire.clone()), &[BootFailed, Protocol])
                .await;
        assert!(error.chain().contains("\\u{1b}[2J"), "{}", error.chain());
        let refused = expect_error("at Start", sending(Where::Start, wire), &ANY).await;
        assert!(refused.chain().contains("\\u{1b}[2J"), "{}", refused.chain());
    }
}

/// What may come of an agent's own error.
const ANY: [ErrorKind; 7] = [
    ErrorKind::InvalidInput,
    ErrorKind::Conflict,
    ErrorKind::ProgramNotFound,
    ErrorKind::ProgramNotExecutable,
    ErrorKind::NotFound,
    ErrorKind::Io,
    Protocol,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_endless_frames_where_one_is_due() {
    for turns in EVERYWHERE {
        let full = frame(FrameKind::Stdout, &[b'x'; 64 * 1024]);
        let flood = turning(turns, move |mut turned| {
            let full = full.clone();
            async move { turned.send_endlessly(&full).await }
        });
        expect_error(&format!("{turns:?}"), flood, &[Protocol]).await;
    }
}

/// An agent that is slow and says so is no enemy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_but_honest_agent_is_borne_with() {
    let slow = crate::fake_vmm::FakeVmm::new(|inside| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        crate::fake_vmm::serve_agent(inside.channel, "/tmp".into()).await
    });
    let answer = expect_answer(slow).await;
    assert_eq!(answer.exit_code, 0);
    assert!(answer.boot_ms >= 1000 && Duration::from_millis(answer.boot_ms) < LONGEST);
}
