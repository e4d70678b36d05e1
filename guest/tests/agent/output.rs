//! What programs write.

use crate::host::{Host, sh};
use pyro_protocol::frame::STREAM_CHUNK;

#[tokio::test]
async fn the_two_streams_are_kept_apart() {
    let host = Host::new();
    let ended = host.script("for i in 1 2 3; do echo out $i; echo err $i >&2; done").await;
    assert_eq!(ended.text(), "out 1\nout 2\nout 3\n");
    assert_eq!(ended.stderr, b"err 1\nerr 2\nerr 3\n");
}

#[tokio::test]
async fn output_arrives_while_the_program_runs() {
    let host = Host::new();
    let mut call = sh("echo first; read line; echo $line");
    call.stdin = true;
    let mut running = host.start(call).await.expect("it starts");
    // It waits for the line that is sent only after its output has come.
    assert_eq!(running.line().await, "first");
    running.write(b"second\n").await.expect("it waits");
    assert_eq!(running.finish().await.text(), "first\nsecond\n");
}

#[tokio::test]
async fn all_that_a_program_wrote_arrives_however_late_the_host_reads() {
    let host = Host::new();
    // More than the socket holds, so that the program's end finds the agent
    // sending, and less than socket and pipe together, so that it can end.
    let size = 6 * STREAM_CHUNK;
    let script = format!("head -c {size} /dev/zero; head -c {size} /dev/zero >&2");
    let running = host.start(sh(&script)).await.expect("it starts");
    let ended = running.finish().await;
    assert_eq!((ended.stdout.len(), ended.stderr.len()), (size, size));
}

#[tokio::test]
async fn what_comes_a_little_after_the_end_arrives_too() {
    let host = Host::new();
    // The program ends at once; what it wrote goes through cat first.
    let ended = host.script("{ exec 3>&1; (cat >&3) & } 0<&0; exec 3>&-; exit 0").await;
    assert_eq!(ended.code(), 0);
    let ended = host.script("mkfifo through; cat through & echo late > through; exit 0").await;
    assert_eq!(ended.text(), "late\n");
}

#[tokio::test]
async fn a_program_that_closes_its_output_runs_on() {
    let host = Host::new();
    let ended = host.script("echo before; exec >&- 2>&-; : > after; exit 8").await;
    assert_eq!((ended.code(), ended.text()), (8, "before\n"));
    assert!(host.workspace.path().join("after").exists());
}

#[tokio::test]
async fn r25_output_need_not_be_text() {
    let host = Host::new();
    let ended = host.script("printf 'a\\r\\nb\\000\\300\\200'").await;
    assert_eq!(ended.stdout, b"a\r\nb\0\xc0\x80");
}
