//! What a run answers.

use crate::fake_vmm::FakeVmm;
use crate::home::{Home, request, run_shell};
use pyro::agent::shell::Act;
use pyro::context::Terminal;
use pyro::event::{Event, Stream};
use pyro::{Context, ErrorKind, Events};
use pyro_protocol::shell::TerminalSize;
use serde_json::json;
use std::time::{Duration, Instant};

/// Much longer than anything here may take, much shorter than what is waited for.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn both_streams_and_the_exit_code_come_back() {
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    let line = "echo out; echo err >&2; exit 7";
    let answer = run_shell(&pyro, line, Context::default()).await.unwrap();
    assert_eq!((answer.exit_code, answer.signal, answer.timed_out), (7, None, false));
    assert_eq!((answer.output.stdout.as_str(), answer.output.stderr.as_str()), ("out\n", "err\n"));
    assert!(answer.cleanup.deleted);
    home.assert_nothing_left();
}

#[tokio::test]
async fn a_signal_is_told_apart_from_an_exit() {
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    let answer = run_shell(&pyro, "kill -TERM $$", Context::default()).await.unwrap();
    assert_eq!((answer.exit_code, answer.signal), (143, Some(15)));
    let answer = run_shell(&pyro, "exit 143", Context::default()).await.unwrap();
    assert_eq!((answer.exit_code, answer.signal), (143, None));
}

#[tokio::test]
async fn what_never_ran_is_an_error_and_what_failed_is_not() {
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    let never = [
        (json!({ "command": ["no-such-program"] }), ErrorKind::ProgramNotFound),
        (json!({ "command": ["/etc/passwd"] }), ErrorKind::ProgramNotExecutable),
        (json!({ "command": ["true"], "cwd": "/no/such/place" }), ErrorKind::NotFound),
        (json!({ "command": ["true"], "user": "nobody-of-that-name" }), ErrorKind::NotFound),
    ];
    for (asked, kind) in never {
        let error = pyro.call(request(&asked)).await.expect_err("it cannot run");
        assert_eq!(error.kind(), kind, "{asked}: {error}");
        home.assert_nothing_left();
    }
    let failed = run_shell(&pyro, "no-such-program", Context::default()).await.unwrap();
    assert_eq!(failed.exit_code, 127);
}

#[tokio::test]
async fn arguments_variables_and_directory_arrive_as_they_are() {
    let home = Home::new();
    let workspace = tempfile::tempdir().unwrap();
    let pyro = home.pyro(FakeVmm::honest(workspace.path()));
    let asked = json!({
        "command": ["printf", "%s|", "a b", "", "$HOME", "\u{e9}\n"],
        "env": { "ONE": "1" }, "cwd": "/workspace",
    });
    let answer = pyro.call(request(&asked)).await.unwrap();
    assert_eq!(answer.output.stdout, "a b||$HOME|\u{e9}\n|");
    let asked =
        json!({ "command": "echo $ONE; pwd -P", "env": { "ONE": "1" }, "cwd": "/workspace" });
    let answer = pyro.call(request(&asked)).await.unwrap();
    assert_eq!(answer.output.stdout, format!("1\n{}\n", workspace.path().display()));
}

#[tokio::test]
async fn a_time_out_keeps_the_output_so_far() {
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    let asked = json!({ "command": "echo before; sleep 1000; echo after", "timeout_seconds": 1 });
    let started = Instant::now();
    let answer = pyro.call(request(&asked)).await.unwrap();
    assert!(answer.timed_out && answer.exit_code == 124, "{answer:?}");
    assert_eq!(answer.output.stdout, "before\n");
    assert!(started.elapsed() < SOON);
    home.assert_nothing_left();
}

#[tokio::test]
async fn output_beyond_the_limit_is_left_out_in_the_middle() {
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    let asked = json!({ "command": "printf 0123456789; printf e >&2", "output_limit_bytes": 4 });
    let answer = pyro.call(request(&asked)).await.unwrap();
    assert_eq!(
        (answer.output.stdout.as_str(), answer.output.stdout_tail.as_deref()),
        ("01", Some("89"))
    );
    assert_eq!((answer.output.stdout_omitted_bytes, answer.output.stderr.as_str()), (6, "e"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_runs_at_once_do_not_mix() {
    let home = Home::new();
    let vmm = FakeVmm::honest("/tmp");
    let pyro = home.pyro(vmm.clone());
    let runs = (0..12).map(|number| {
        let pyro = pyro.clone();
        tokio::spawn(async move {
            let line = format!("echo {number}; exit {number}");
            (number, run_shell(&pyro, &line, Context::default()).await.unwrap())
        })
    });
    let mut ids = Vec::new();
    for run in futures::future::join_all(runs).await {
        let (number, answer) = run.unwrap();
        assert_eq!((answer.exit_code, answer.output.stdout), (number, format!("{number}\n")));
        ids.push(answer.vm_id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), vmm.started()), (12, 12));
    home.assert_nothing_left();
}

#[tokio::test]
async fn a_request_that_cannot_be_met_starts_no_machine() {
    let home = Home::new();
    let vmm = FakeVmm::honest("/tmp");
    let pyro = home.pyro(vmm.clone());
    let impossible = [
        (json!({ "command": ["true"], "environment": "no:such" }), ErrorKind::NotFound),
        (
            json!({ "command": ["true"], "environment": "debian:12-base" }),
            ErrorKind::EnvironmentMissing,
        ),
        (json!({ "command": ["true"], "mem_mib": 1 << 30 }), ErrorKind::OutOfMemory),
    ];
    for (asked, kind) in impossible {
        let error = pyro.call(request(&asked)).await.expect_err("it cannot be met");
        assert_eq!(error.kind(), kind, "{asked}: {error}");
    }
    std::fs::write(home.path("cache/images").join(first(&home)).join("root.erofs"), "an IMAGE")
        .unwrap();
    let error = pyro.call(request(&json!({ "command": ["true"] }))).await.expect_err("damaged");
    assert_eq!(error.kind(), ErrorKind::EnvironmentCorrupt, "{error}");
    assert_eq!(vmm.started(), 0);
    home.assert_nothing_left();
}

fn first(home: &Home) -> std::ffi::OsString {
    std::fs::read_dir(home.path("cache/images")).unwrap().next().unwrap().unwrap().file_name()
}

/// A slow screen: the program waits for it, and nothing of what it wrote is left
/// out.
#[tokio::test]
async fn all_that_is_written_to_a_terminal_comes_to_it() {
    const LINES: usize = 200_000;
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    let (acts, receiver) = tokio::sync::mpsc::channel(1);
    let size = TerminalSize { cols: 80, rows: 24 };
    let (events, mut heard) = Events::channel();
    let terminal = Some(Terminal { size, acts: receiver });
    let context = Context { events, terminal, ..Context::default() };
    let line = format!("stty -onlcr; read line; seq 1 {LINES}; exit $line");
    let running = run_shell(&pyro, &line, context);
    acts.send(Act::Type(b"7\n".to_vec())).await.unwrap();
    let hearing = async {
        let mut seen = Vec::new();
        while let Some(event) = heard.recv().await {
            if let Event::Output { stream: Stream::Stdout, bytes } = event {
                seen.extend(bytes);
                tokio::task::yield_now().await;
            }
        }
        seen
    };
    let (answer, seen) = tokio::join!(running, hearing);
    assert_eq!(answer.unwrap().exit_code, 7);
    let expected: String = (1..=LINES).map(|line| format!("{line}\n")).collect();
    assert!(seen.ends_with(expected.as_bytes()), "{} bytes", seen.len());
    home.assert_nothing_left();
}

/// Whoever sits at the terminal leaves it, and nothing goes on.
#[tokio::test]
async fn a_run_ends_when_its_terminal_is_left() {
    let home = Home::new();
    let pyro = home.pyro(FakeVmm::honest("/tmp"));
    let (acts, receiver) = tokio::sync::mpsc::channel(1);
    let size = TerminalSize { cols: 80, rows: 24 };
    let (events, mut heard) = Events::channel();
    let terminal = Some(Terminal { size, acts: receiver });
    let context = Context { events, terminal, ..Context::default() };
    let running = run_shell(&pyro, "echo up; exec sleep 1000", context);
    let leaving = async {
        while let Some(event) = heard.recv().await {
            if matches!(event, Event::Output { .. }) {
                break;
            }
        }
        drop(acts);
        while heard.recv().await.is_some() {}
    };
    let (answer, ()) = tokio::join!(running, leaving);
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Cancelled);
    home.assert_nothing_left();
}
