//! Input for kept processes.

use super::{LONG, outcome, text};
use crate::host::{Host, sh};
use pyro_protocol::kept::{PollUntil, ProcessId, ProcessWritten, WriteProcess};
use pyro_protocol::process::Outcome;
use pyro_protocol::{AgentErrorKind, ByteString, Call, FrameKind};

/// More than any pipe holds.
const MUCH: usize = 3 * 1024 * 1024;

fn write(id: ProcessId, data: &[u8], end: bool, wait_ms: u32) -> WriteProcess {
    WriteProcess { id, data: ByteString(data.to_vec()), end, wait_ms }
}

async fn reader(host: &Host, script: &str) -> ProcessId {
    let mut call = sh(script);
    call.stdin = true;
    host.keep_program(call).await.expect("sh starts")
}

#[tokio::test]
async fn a_program_reads_what_is_written_over_many_calls() {
    let host = Host::new();
    let id = reader(&host, "while read line; do echo got $line; done; echo end").await;
    for word in ["one", "two"] {
        let written = host.call(write(id, format!("{word}\n").as_bytes(), false, LONG)).await;
        assert_eq!(written, Ok(ProcessWritten { taken: 4, ended: false }));
    }
    let seen = host.poll(id, (0, 0), PollUntil::Output).await;
    assert!("got one\ngot two\n".starts_with(text(&seen.stdout)), "{seen:?}");
    let written = host.call(write(id, b"", true, 0)).await;
    assert_eq!(written, Ok(ProcessWritten { taken: 0, ended: true }));
    let ended = host.wait(id).await;
    assert_eq!(text(&ended.stdout), "got one\ngot two\nend\n");
    assert_eq!(host.refused(write(id, b"more", false, LONG)).await, AgentErrorKind::Conflict);
}

#[tokio::test]
async fn r17_a_program_that_does_not_read_takes_a_part_and_blocks_nobody() {
    let host = Host::new();
    let id = reader(&host, "exec sleep 1000").await;
    let written = host.call(write(id, &[7; MUCH], true, 50)).await.expect("an answer");
    assert!(written.taken > 0 && (written.taken as usize) < MUCH, "{written:?}");
    assert!(!written.ended, "an end before the last byte");
    let written = host.call(write(id, b"more", false, 0)).await;
    assert_eq!(written, Ok(ProcessWritten { taken: 0, ended: false }));
    assert_eq!(host.script("echo on").await.text(), "on\n");
    host.forget(id).await;
}

#[tokio::test]
async fn r17_a_writer_that_hangs_up_is_in_nobodys_way() {
    let host = Host::new();
    let id = reader(&host, "exec sleep 1000").await;
    let mut connection = host.connect().await;
    let call: Call = write(id, &[7; MUCH], false, LONG).into();
    connection.send(FrameKind::Call, &call).await;
    connection.writer.shutdown().await.expect("the agent is there");
    // It waits no more, and so has no answer.
    connection.closed().await;
    host.forget(id).await;
}

#[tokio::test]
async fn much_input_arrives_whole() {
    let host = Host::new();
    let id = reader(&host, "wc -c").await;
    let written = host.call(write(id, &[b'x'; MUCH], true, LONG)).await.expect("an answer");
    assert_eq!(written, ProcessWritten { taken: MUCH as u32, ended: true });
    assert_eq!(text(&host.wait(id).await.stdout).trim(), MUCH.to_string());
}

#[tokio::test]
async fn writers_wait_for_each_other_and_for_the_end() {
    let host = Host::new();
    let id = reader(&host, "read line; exit 4").await;
    let (one, other) = tokio::join!(
        host.call(write(id, &[b'a'; MUCH], false, LONG)),
        host.call(write(id, b"\n", false, LONG)),
    );
    // Whoever comes first, the end of the program ends the waiting of both.
    assert_eq!(outcome(host.wait(id).await.state), Outcome::Exited { code: 4 });
    let taken = [one, other].into_iter().flatten().map(|written| written.taken).sum::<u32>();
    assert!(taken > 0);
}

#[tokio::test]
async fn one_without_input_reads_nothing() {
    let host = Host::new();
    let id = host.keep("cat; echo end").await;
    assert_eq!(host.refused(write(id, b"x", false, LONG)).await, AgentErrorKind::Conflict);
    assert_eq!(text(&host.wait(id).await.stdout), "end\n");
}
