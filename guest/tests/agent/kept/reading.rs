//! What kept processes have written, read at any time.

use super::{LONG, outcome, text};
use crate::host::{Connection, Host};
use pyro_protocol::kept::{
    FollowEnd, FollowProcess, PollProcess, PollUntil, ProcessId, ProcessState, RETAINED, Skipped,
};
use pyro_protocol::process::Outcome;
use pyro_protocol::{AgentError, AgentErrorKind, FrameKind};

/// What a follower was sent.
#[derive(Debug, Default)]
struct Followed {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    skipped: Vec<Skipped>,
}

async fn follow(host: &Host, id: ProcessId, from: (u64, u64)) -> Result<Connection, AgentError> {
    let mut connection = host.connect().await;
    let (stdout_cursor, stderr_cursor) = from;
    connection.call(FollowProcess { id, stdout_cursor, stderr_cursor }).await?;
    Ok(connection)
}

impl Followed {
    /// Takes one frame; the state if it is the last.
    async fn step(&mut self, connection: &mut Connection) -> Option<ProcessState> {
        let frame = connection.next().await;
        if frame.kind == FrameKind::Stdout {
            self.stdout.extend(frame.payload);
        } else if frame.kind == FrameKind::Stderr {
            self.stderr.extend(frame.payload);
        } else if frame.kind == FrameKind::Skipped {
            self.skipped.push(frame.decode(frame.kind).expect("a gap"));
        } else {
            let FollowEnd { state } = frame.decode(FrameKind::DataEnd).expect("the end");
            return Some(state);
        }
        None
    }
}

#[tokio::test]
async fn a_follower_gets_all_and_the_end() {
    let host = Host::new();
    let id = host.keep("echo one; echo two >&2; echo three; exit 5").await;
    let mut connection = follow(&host, id, (0, 0)).await.expect("it is kept");
    let mut followed = Followed::default();
    let state = loop {
        if let Some(state) = followed.step(&mut connection).await {
            break state;
        }
    };
    connection.closed().await;
    assert_eq!(outcome(state), Outcome::Exited { code: 5 });
    assert_eq!((&*followed.stdout, &*followed.stderr), (&b"one\nthree\n"[..], &b"two\n"[..]));
    assert!(followed.skipped.is_empty());
}

#[tokio::test]
async fn a_follower_that_leaves_ends_nothing() {
    let host = Host::new();
    let id = host.keep("echo one; exec sleep 1000").await;
    let mut connection = follow(&host, id, (0, 0)).await.expect("it is kept");
    let mut followed = Followed::default();
    followed.step(&mut connection).await;
    drop(connection);
    assert!(matches!(host.forget(id).await, ProcessState::Running { .. }));
}

#[tokio::test]
async fn a_follower_may_begin_anywhere_up_to_the_end() {
    let host = Host::new();
    let id = host.keep("echo 0123456789").await;
    host.wait(id).await;
    let mut connection = follow(&host, id, (4, 0)).await.expect("it is kept");
    let mut followed = Followed::default();
    while followed.step(&mut connection).await.is_none() {}
    assert_eq!(followed.stdout, b"456789\n");
    let beyond = follow(&host, id, (12, 0)).await.map(|_| ()).map_err(|error| error.kind);
    assert_eq!(beyond, Err(AgentErrorKind::InvalidArgument));
}

#[tokio::test]
async fn what_is_too_old_is_gone_and_said_to_be() {
    let host = Host::new();
    let total = 3 * RETAINED + 12_345;
    let id = host.keep(&format!("yes 0123456 | head -c {total}")).await;
    let ended = host.wait(id).await;
    let slice = &ended.stdout;
    assert_eq!((slice.start, slice.end), (slice.oldest, total));
    assert!(slice.start > 0 && total - slice.start >= RETAINED, "{} kept", total - slice.start);
    assert!(slice.data.0[..8] == b"01234560123456"[..8] || slice.start % 8 == 0);
    let mut connection = follow(&host, id, (0, 0)).await.expect("it is kept");
    let mut followed = Followed::default();
    while followed.step(&mut connection).await.is_none() {}
    let skipped: u64 = followed.skipped.iter().map(|skipped| skipped.bytes).sum();
    assert_eq!(skipped + followed.stdout.len() as u64, total);
    let shift = usize::try_from(skipped % 8).expect("small");
    let expected = b"0123456\n".iter().cycle().skip(shift);
    assert!(followed.stdout.iter().zip(expected).all(|(got, wanted)| got == wanted));
}

#[tokio::test]
async fn p3_who_waits_long_blocks_nobody() {
    let host = Host::new();
    let id = host.keep("exec sleep 1000").await;
    let mut waiting = Vec::new();
    for _ in 0..16 {
        let mut connection = host.connect().await;
        let poll = PollProcess {
            id,
            stdout_cursor: 0,
            stderr_cursor: 0,
            max_bytes: 0,
            wait_ms: LONG,
            until: PollUntil::End,
        };
        connection.send(FrameKind::Call, &pyro_protocol::Call::from(poll)).await;
        waiting.push(connection);
    }
    assert_eq!(host.script("echo on").await.text(), "on\n");
    host.forget(id).await;
    for connection in &mut waiting {
        let frame = connection.next().await;
        // Either it saw the end, or there was nothing left to read.
        assert!(frame.kind == FrameKind::Reply || frame.kind == FrameKind::Error);
    }
}

#[tokio::test]
async fn who_waits_in_vain_gets_what_there_is() {
    let host = Host::new();
    let id = host.keep("echo so far; exec sleep 1000").await;
    host.poll(id, (0, 0), PollUntil::Output).await;
    let poll = PollProcess {
        id,
        stdout_cursor: 0,
        stderr_cursor: 0,
        max_bytes: 4,
        wait_ms: 1,
        until: PollUntil::End,
    };
    let polled = host.call(poll).await.expect("it is kept");
    assert!(matches!(polled.state, ProcessState::Running { .. }));
    assert_eq!((text(&polled.stdout), polled.stdout.end), ("so f", 7));
    let beyond = PollProcess { stdout_cursor: 8, wait_ms: LONG, ..poll };
    assert_eq!(host.refused(beyond).await, AgentErrorKind::InvalidArgument);
    host.forget(id).await;
}
