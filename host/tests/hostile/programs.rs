//! Attacks from where a program runs.

use crate::assault::{
    ENDLESS, Where, expect_error, frame, lie, sending, sending_and_closing, turning, value,
};
use crate::footprint::Footprint;
use crate::home::{Home, request, run_shell};
use pyro::ErrorKind::{GuestLost, Protocol, TimedOut};
use pyro::{Context, Events};
use pyro_protocol::process::{Exit, Outcome, STDIN_WINDOW, StdinTaken};
use pyro_protocol::{AgentError, AgentErrorKind, FrameKind};
use serde_json::json;

fn exit(outcome: Outcome) -> Vec<u8> {
    value(FrameKind::Exit, &Exit { outcome, took_us: u64::MAX })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_out_of_place() {
    let error = AgentError::new(AgentErrorKind::ProgramNotFound, "it never ran, believe me");
    let wires = [
        ("input taken that was not given", value(FrameKind::StdinTaken, &StdinTaken { bytes: 1 })),
        ("all input", value(FrameKind::StdinTaken, &StdinTaken { bytes: u32::MAX })),
        ("a second reply", frame(FrameKind::Reply, &[1])),
        ("a second welcome", frame(FrameKind::Welcome, &[1])),
        ("input", frame(FrameKind::Stdin, b"x")),
        ("the end of input", frame(FrameKind::StdinEnd, b"")),
        ("a signal", frame(FrameKind::Signal, &[9])),
        ("an announcement", frame(FrameKind::Announcement, b"")),
        ("oversized output", lie(FrameKind::Stdout as u8, 0, 64 * 1024 + 1)),
        ("an oversized exit", lie(FrameKind::Exit as u8, 0, 65)),
        ("garbage in an exit", frame(FrameKind::Exit, &[0xff; 64])),
        ("an empty exit", frame(FrameKind::Exit, &[])),
        ("an exit and more", frame(FrameKind::Exit, &[0, 0, 0, 0])),
        // The program did run: nobody may be told otherwise.
        ("an error", value(FrameKind::Error, &error)),
    ];
    for (name, wire) in wires {
        expect_error(name, sending(Where::Running, wire), &[Protocol]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_without_an_exit() {
    let output = frame(FrameKind::Stdout, b"some");
    for length in [0, 3, output.len() - 1, output.len()] {
        let cut = output[..length].to_vec();
        let vmm = sending_and_closing(Where::Running, cut);
        expect_error(&format!("after {length} bytes"), vmm, &[GuestLost]).await;
    }
}

/// The guest keeps the program's time; when it does not, the host does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_and_babble_beyond_the_time_out() {
    expect_error("silence", sending(Where::Running, vec![]), &[TimedOut]).await;
    let half = lie(FrameKind::Stdout as u8, 0, 9);
    expect_error("half a frame", sending(Where::Running, half), &[TimedOut]).await;
    let babbling = turning(Where::Running, |mut turned| async move {
        while turned.send(&frame(FrameKind::Stdout, b"")).await {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    });
    expect_error("babble", babbling, &[TimedOut]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_outcome_is_an_answer() {
    let outcomes = [
        (Outcome::Exited { code: 255 }, 255, None, false),
        (Outcome::Signaled { signal: 0 }, 128, Some(0), false),
        (Outcome::Signaled { signal: 255 }, 255, Some(255), false),
        (Outcome::TimedOut, 124, None, true),
    ];
    for (outcome, code, signal, timed_out) in outcomes {
        let home = Home::new();
        let pyro = home.pyro(sending(Where::Running, exit(outcome)));
        let answer = run_shell(&pyro, "true", Context::default()).await.unwrap();
        assert_eq!(
            (answer.exit_code, answer.signal, answer.timed_out),
            (code, signal, timed_out),
            "{outcome:?}"
        );
    }
}

/// The exit is the last word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_after_the_exit_is_nobodys() {
    let home = Home::new();
    let pyro = home.pyro(turning(Where::Running, |mut turned| async move {
        turned.send(&frame(FrameKind::Stdout, b"before")).await;
        turned.send(&exit(Outcome::Exited { code: 3 })).await;
        turned.send_endlessly(&frame(FrameKind::Stdout, &[b'x'; 1024])).await;
    }));
    let answer = run_shell(&pyro, "true", Context::default()).await.unwrap();
    assert_eq!((answer.output.stdout.as_str(), answer.exit_code), ("before", 3));
    home.assert_nothing_left();
}

/// Half a gigabyte goes through, and little of it is ever here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_endless_output_takes_no_memory() {
    let home = Home::new();
    let full = frame(FrameKind::Stderr, &[b'x'; 64 * 1024]);
    let pyro = home.pyro(turning(Where::Running, move |mut turned| {
        let full = full.clone();
        async move {
            turned.send_endlessly(&full).await;
            turned.send(&exit(Outcome::Exited { code: 0 })).await;
            turned.hold().await;
        }
    }));
    let footprint = Footprint::new();
    let asked = request(&json!({ "command": ["true"] }));
    let answer = pyro.call(asked).await.unwrap();
    assert!(answer.output.stderr_omitted_bytes as usize > ENDLESS - (1 << 20));
    assert!(footprint.grown_mib() < 24, "{} MiB", footprint.grown_mib());
}

/// A reader who has no time at all, and a guest that has much to say in frames
/// that carry nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_frames_for_a_listener_who_does_not_listen() {
    let home = Home::new();
    let pyro = home.pyro(turning(Where::Running, |mut turned| async move {
        turned.send_endlessly(&frame(FrameKind::Stdout, b"").repeat(1000)).await;
    }));
    let footprint = Footprint::new();
    let (events, unheard) = Events::channel();
    let cancel = tokio_util::sync::CancellationToken::new();
    let context = Context { events, cancel: cancel.clone(), ..Context::default() };
    let running = tokio::spawn(async move { run_shell(&pyro, "true", context).await });
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    cancel.cancel();
    let error = running.await.unwrap().expect_err("cancelled");
    assert_eq!(error.kind(), pyro::ErrorKind::Cancelled);
    assert!(footprint.grown_mib() < 24, "{} MiB", footprint.grown_mib());
    drop(unheard);
    home.assert_nothing_left();
}

/// The host sends no more than the window, whatever the program does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_stops_at_the_window() {
    let home = Home::new();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let pyro = home.pyro(turning(Where::Running, move |mut turned| {
        let tell = tell.clone();
        async move {
            let mut got = 0;
            let mut take = async |until: usize| {
                while got < until {
                    let frame = turned.reader.next().await.unwrap();
                    assert_eq!(frame.kind, FrameKind::Stdin);
                    got += frame.payload.len();
                }
                let more = turned.reader.next();
                let more = tokio::time::timeout(std::time::Duration::from_millis(300), more).await;
                assert!(more.is_err(), "more than {until}");
                got
            };
            let first = take(STDIN_WINDOW).await;
            tell.send(first).unwrap();
            turned.send(&value(FrameKind::StdinTaken, &StdinTaken { bytes: 1000 })).await;
            turned.send(&exit(Outcome::Exited { code: 0 })).await;
            turned.hold().await;
        }
    }));
    let stdin = Box::new(tokio::io::repeat(b'x'));
    let context = Context { stdin: Some(stdin), ..Context::default() };
    run_shell(&pyro, "true", context).await.unwrap();
    assert_eq!(told.recv().await, Some(STDIN_WINDOW));
}
