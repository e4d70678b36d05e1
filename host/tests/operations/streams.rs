//! Input, output and signals, while a program runs.

use crate::fake_vmm::FakeVmm;
use crate::footprint::Footprint;
use crate::home::{Home, request, run_shell};
use pyro::event::Stream;
use pyro::{Context, Digest, ErrorKind, Event, Events};
use serde_json::json;
use std::io;
use std::pin::Pin;
use std::task::{Context as Waker, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Long enough to be sure that something waits.
const A_WHILE: Duration = Duration::from_millis(300);

/// Much longer than anything here may take.
const SOON: Duration = Duration::from_secs(20);

/// Bytes that do not repeat soon.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}

async fn next_output(events: &mut mpsc::Receiver<Event>) -> Option<(Stream, Vec<u8>)> {
    loop {
        match events.recv().await? {
            Event::Output { stream, bytes } => return Some((stream, bytes)),
            Event::Stage { .. }
            | Event::Progress(_)
            | Event::Warning(_)
            | Event::ProgramStarted => {}
        }
    }
}

#[tokio::test]
async fn much_more_than_the_window_goes_in_and_comes_back() {
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    let sent = noise(5 << 20);
    let (events, mut received) = Events::channel();
    let stdin = io::Cursor::new(sent.clone());
    let context = Context { events, stdin: Some(Box::new(stdin)), ..Context::default() };
    let hearing = tokio::spawn(async move {
        let mut heard = Vec::new();
        while let Some((stream, bytes)) = next_output(&mut received).await {
            assert_eq!(stream, Stream::Stdout);
            heard.extend(bytes);
        }
        heard
    });
    let answer = run_shell(&pyro, "cat", context).await.unwrap();
    let heard = hearing.await.unwrap();
    assert_eq!(answer.exit_code, 0);
    assert_eq!((heard.len(), Digest::of(&heard)), (sent.len(), Digest::of(&sent)));
}

#[tokio::test]
async fn input_that_nobody_reads_holds_nothing_up() {
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    for line in ["exit 3", "exec <&-; exit 3", "head -c 1 >/dev/null; exit 3", "sleep 0.3; exit 3"]
    {
        let stdin = Box::new(tokio::io::repeat(b'x'));
        let context = Context { stdin: Some(stdin), ..Context::default() };
        let answer =
            timeout(SOON, run_shell(&pyro, line, context)).await.expect("in time").unwrap();
        assert_eq!(answer.exit_code, 3, "{line}");
    }
    home.assert_nothing_left();
}

#[tokio::test]
async fn output_goes_on_after_the_input_has_ended() {
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    let context = Context { stdin: Some(Box::new(&b"one"[..])), ..Context::default() };
    let answer = run_shell(&pyro, "cat; sleep 0.2; echo two", context).await.unwrap();
    assert_eq!(answer.output.stdout, "onetwo\n");
}

/// Input that fails after its first bytes.
struct Failing(bool);

impl AsyncRead for Failing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Waker<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(Err(io::Error::other("the tape is torn")));
        }
        buffer.put_slice(b"some");
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn input_that_fails_ends_the_run() {
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    let context = Context { stdin: Some(Box::new(Failing(false))), ..Context::default() };
    let error = run_shell(&pyro, "cat; sleep 1000", context).await.expect_err("no input");
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.chain().contains("the tape is torn"), "{}", error.chain());
    home.assert_nothing_left();
}

#[tokio::test]
async fn a_line_is_heard_while_the_program_still_runs() {
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    let (events, mut received) = Events::channel();
    let (more, stdin) = tokio::io::duplex(64);
    let context = Context { events, stdin: Some(Box::new(stdin)), ..Context::default() };
    let running = tokio::spawn(async move {
        run_shell(&pyro, "echo first; read line; echo $line", context).await
    });
    let (_, bytes) = timeout(SOON, next_output(&mut received)).await.expect("in time").unwrap();
    assert_eq!(bytes, b"first\n");
    drop(more);
    while next_output(&mut received).await.is_some() {}
    assert_eq!(running.await.unwrap().unwrap().exit_code, 0);
}

/// Nobody takes the output: so the program waits, and little memory is used.
#[tokio::test]
async fn a_listener_who_does_not_listen_stops_the_program() {
    const WRITTEN: usize = 64 << 20;
    let home = Home::new();
    let workspace = tempfile::tempdir().unwrap();
    let done = workspace.path().join("done");
    let pyro = home.pyro(FakeVmm::honest(workspace.path()));
    let footprint = Footprint::new();
    let (events, mut received) = Events::channel();
    let context = Context { events, ..Context::default() };
    let line = format!("head -c {WRITTEN} /dev/zero; touch {}", done.display());
    let running = tokio::spawn(async move { run_shell(&pyro, &line, context).await });
    let (_, first) = timeout(SOON, next_output(&mut received)).await.expect("in time").unwrap();
    tokio::time::sleep(A_WHILE).await;
    assert!(!done.exists(), "64 MiB went somewhere");
    let mut heard = first.len();
    while let Some((_, bytes)) = next_output(&mut received).await {
        heard += bytes.len();
    }
    let answer = running.await.unwrap().unwrap();
    assert_eq!((heard, answer.exit_code), (WRITTEN, 0));
    // The pages of this program that are touched for the first time count too.
    assert!(footprint.grown_mib() < 24, "{} MiB", footprint.grown_mib());
}

#[tokio::test]
async fn a_listener_who_leaves_does_no_harm() {
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    let (events, received) = Events::channel();
    drop(received);
    let context = Context { events, ..Context::default() };
    let answer = run_shell(&pyro, "head -c 1000000 /dev/zero; exit 4", context).await.unwrap();
    assert_eq!(answer.exit_code, 4);
    assert!(answer.output.stdout_omitted_bytes > 900_000);
}

/// The order of these events is what the command line builds on: a Ctrl-C before
/// `ProgramStarted` cancels, one after it is the program's own.
#[tokio::test]
async fn the_program_starts_after_the_machine_and_before_its_output() {
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    let (events, mut received) = Events::channel();
    let context = Context { events, ..Context::default() };
    let running = tokio::spawn(async move { run_shell(&pyro, "echo hello", context).await });
    let mut seen = Vec::new();
    while let Some(event) = received.recv().await {
        seen.push(match event {
            Event::Stage { name, .. } => name,
            Event::ProgramStarted => "started",
            Event::Output { .. } => "output",
            Event::Progress(_) | Event::Warning(_) => "talk",
        });
    }
    assert_eq!(seen, ["preparing", "booting", "running", "started", "output"]);
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn signals_reach_the_program_even_behind_input_it_does_not_read() {
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    let (events, mut received) = Events::channel();
    let (signal, signals) = mpsc::channel(1);
    let stdin = Box::new(tokio::io::repeat(b'x'));
    let context = Context { events, signals, stdin: Some(stdin), ..Context::default() };
    let line = "trap 'echo got it; exit 9' INT; echo ready; while :; do sleep 0.05; done";
    let running = tokio::spawn(async move { run_shell(&pyro, line, context).await });
    let (_, ready) = timeout(SOON, next_output(&mut received)).await.expect("in time").unwrap();
    assert_eq!(ready, b"ready\n");
    signal.send(2).await.unwrap();
    let (_, bytes) = timeout(SOON, next_output(&mut received)).await.expect("in time").unwrap();
    assert_eq!(bytes, b"got it\n");
    assert_eq!(running.await.unwrap().unwrap().exit_code, 9);
}

#[tokio::test]
async fn a_signal_number_that_is_none_breaks_the_run_and_nothing_else() {
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    let (signal, signals) = mpsc::channel(1);
    signal.send(200).await.unwrap();
    let context = Context { signals, ..Context::default() };
    let error = timeout(SOON, run_shell(&pyro, "sleep 1000", context)).await.expect("in time");
    assert_eq!(error.expect_err("no such signal").kind(), ErrorKind::Protocol);
    home.assert_nothing_left();
}

#[tokio::test]
async fn a_program_whose_child_holds_its_output_open_still_ends() {
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    let asked = request(&json!({ "command": "sleep 5 & echo done" }));
    let answer = timeout(SOON, pyro.call(asked)).await.expect("in time").unwrap();
    assert_eq!((answer.output.stdout.as_str(), answer.exit_code), ("done\n", 0));
    assert!(answer.duration_ms < 4000, "{}", answer.duration_ms);
}
