//! Services: what operations answer about them, and what is told of those that
//! do not start.

use crate::exec::Bench;
use pyro::event::{Event, Stream};
use pyro::operation::workspace::{RestartPolicy, ServiceReport, ServiceReportState, StopReason};
use pyro::operation::{
    Answer, AnyAnswer, Ink, ServiceList, ServiceLogs, ServiceRemove, ServiceRestart, ServiceStart,
    ServiceStatus, ServiceStop, WorkspaceEvents, WorkspaceList, WorkspaceStart, WorkspaceStatus,
    WorkspaceStop,
};
use pyro::{Context, ErrorKind, Events};
use serde_json::{Value, json};
use std::fs;
use std::sync::{Arc, Mutex};

const SLEEPS: &str = "echo up; exec sleep 1000";

impl Bench {
    async fn serve(&self, arguments: Value) -> ServiceReport {
        self.ask::<ServiceStart>(arguments).await.unwrap().service
    }

    async fn counts(&self) -> (Option<u32>, Option<u32>) {
        let status = self.ask::<WorkspaceStatus>(json!({})).await.unwrap();
        let listed = self.ask::<WorkspaceList>(json!({})).await.unwrap().workspaces.remove(0);
        let counts = (status.service_count, status.running_service_count);
        assert_eq!(counts, (listed.service_count, listed.running_service_count));
        counts
    }

    /// What a service wrote, after all of it.
    pub async fn written(&self, name: &str) -> (String, String) {
        let (context, heard) = hearing();
        let follow = json!({ "service_name": name, "follow": true });
        self.ask_with::<ServiceLogs>(follow, context).await.unwrap();
        let heard = heard.lock().unwrap();
        let of = |wanted| {
            let bytes = heard.iter().filter(|(stream, _)| *stream == wanted);
            String::from_utf8(bytes.flat_map(|(_, bytes)| bytes.clone()).collect()).unwrap()
        };
        (of(Stream::Stdout), of(Stream::Stderr))
    }
}

type Heard = Arc<Mutex<Vec<(Stream, Vec<u8>)>>>;

/// A context that takes output, and what it takes.
fn hearing() -> (Context, Heard) {
    let heard = Heard::default();
    let hears = Arc::clone(&heard);
    let events = Events::discard().tap(move |event| {
        if let Event::Output { stream, bytes } = event {
            hears.lock().unwrap().push((*stream, bytes.clone()));
        }
    });
    (Context { events, takes_output: true, ..Context::default() }, heard)
}

#[tokio::test]
async fn a_service_from_its_start_to_its_removal() {
    let bench = Bench::new().await;
    assert_eq!(bench.counts().await, (Some(0), Some(0)));
    let start = json!({
        "service_name": "web", "command": SLEEPS, "ready_file": "up", "env": { "A": "canary-7" },
    });
    let (started, ()) = tokio::join!(bench.serve(start), async {
        fs::write(bench.file("up"), "").unwrap();
    });
    assert_eq!(started.state, ServiceReportState::Running);
    assert!(started.pid.is_some() && started.ready_at >= started.started_at, "{started:?}");
    assert_eq!((&*started.service_name, &*started.cwd), ("web", "/workspace"));
    assert_eq!(started.restart, RestartPolicy::Never);
    let readiness = serde_json::to_value(&started.readiness).unwrap();
    assert_eq!(readiness, json!({ "type": "file", "path": "up" }));
    assert_eq!(bench.counts().await, (Some(1), Some(1)));
    let status = json!({ "service_name": "web" });
    assert_eq!(bench.ask::<ServiceStatus>(status.clone()).await.unwrap(), started);
    let listed = bench.ask::<ServiceList>(json!({})).await.unwrap();
    assert_eq!((listed.count, listed.running_count), (1, 1));
    assert_eq!(listed.services, [started]);
    assert!(!listed.to_json().unwrap().to_string().contains("canary"));

    let again = json!({ "service_name": "web", "command": "true" });
    let taken = bench.ask::<ServiceStart>(again).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Conflict);
    assert!(taken.next_step().unwrap().contains("service restart"), "{taken:?}");

    let stopped = bench.ask::<ServiceStop>(status.clone()).await.unwrap();
    assert_eq!(stopped.state, ServiceReportState::Stopped);
    assert_eq!((stopped.stop_reason, stopped.signal), (Some(StopReason::Sigterm), Some(15)));
    assert!(stopped.ended_at.is_some() && stopped.pid.is_none());
    assert_eq!(bench.counts().await, (Some(1), Some(0)));
    let restarted = bench.ask::<ServiceRestart>(status.clone()).await.unwrap().service;
    assert_eq!(restarted.state, ServiceReportState::Running);
    bench.ask::<ServiceRemove>(status.clone()).await.unwrap();
    assert_eq!(bench.counts().await, (Some(0), Some(0)));
    let gone = bench.ask::<ServiceStatus>(status).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert!(gone.next_step().unwrap().contains("service list"), "{gone:?}");
    bench.end().await;
}

#[tokio::test]
async fn r10_a_start_that_fails_says_how_and_why() {
    let bench = Bench::new().await;
    let start = json!({
        "service_name": "web", "ready_tcp": "127.0.0.1:1",
        "command": "echo starting; echo 'no database' >&2; exit 7",
    });
    let (context, heard) = hearing();
    let failed = bench.ask_with::<ServiceStart>(start, context).await.unwrap();
    assert_eq!(failed.service.state, ServiceReportState::Failed);
    assert_eq!(failed.service.stop_reason, Some(StopReason::ProcessExitedBeforeReady));
    assert_eq!((failed.service.exit_code, Answer::exit_code(&failed)), (Some(7), 7));
    assert_eq!(failed.output.stderr, "no database\n");
    assert_eq!(failed.output.stdout, "starting\n");
    let text = failed.to_text(Ink::Plain);
    assert!(text.contains("process_exited_before_ready") && text.contains("no database"), "{text}");
    // To whoever reads standard error: it is no answer.
    let heard = heard.lock().unwrap().clone();
    assert!(heard.iter().all(|(stream, _)| *stream == Stream::Stderr));
    let words: Vec<u8> = heard.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    assert!(String::from_utf8(words).unwrap().contains("no database"));

    let late = json!({
        "service_name": "late", "command": SLEEPS, "ready_command": "false",
        "ready_timeout_seconds": 1, "ready_interval_ms": 10,
    });
    let late = bench.ask::<ServiceStart>(late).await.unwrap();
    assert_eq!(late.service.stop_reason, Some(StopReason::ReadinessTimeout));
    assert_eq!(Answer::exit_code(&late), 124);
    // One that ends well before it is ready has failed too.
    let well = json!({ "service_name": "well", "command": "true", "ready_file": "never" });
    assert_eq!(Answer::exit_code(&bench.ask::<ServiceStart>(well).await.unwrap()), 1);
    assert_eq!(bench.counts().await, (Some(3), Some(0)), "they stay listed");
    bench.end().await;
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_refused_with_the_next_step() {
    let bench = Bench::new().await;
    let two = json!({
        "service_name": "web", "command": "true", "ready_file": "a", "ready_tcp": "localhost:1",
    });
    let two = bench.ask::<ServiceStart>(two).await.unwrap_err();
    assert_eq!(two.kind(), ErrorKind::InvalidInput);
    assert!(two.next_step().unwrap().contains("ready_command"), "{two:?}");
    let absent = json!({ "service_name": "web", "command": ["/pyro/absent"] });
    let absent = bench.ask::<ServiceStart>(absent).await.unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::ProgramNotFound);
    let follow = json!({ "service_name": "web", "follow": true });
    let follow = bench.ask::<ServiceLogs>(follow).await.unwrap_err();
    assert_eq!(follow.kind(), ErrorKind::InvalidInput);
    for bad in [
        json!({ "service_name": "../x" }),
        json!({ "service_name": "a/b" }),
        json!({ "service_name": "web", "ready_http": "https://localhost/" }),
        json!({ "service_name": "web", "ready_tcp": "example.org:80" }),
        json!({ "service_name": "web", "restart": "sometimes" }),
    ] {
        let mut bad = bad;
        bad["workspace_id"] = "w".into();
        bad["command"] = "true".into();
        assert!(serde_json::from_value::<ServiceStart>(bad.clone()).is_err(), "{bad}");
    }
    assert_eq!(bench.counts().await, (Some(0), Some(0)));
    bench.end().await;
}

#[tokio::test]
async fn a_crash_loop_is_started_again_up_to_its_limit_and_its_log_tells() {
    let bench = Bench::new().await;
    let start = json!({
        "service_name": "web", "command": "echo again; echo bad >&2; exit 3",
        "restart": "on-failure", "restart_limit": 2,
    });
    bench.ask::<ServiceStart>(start).await.unwrap();
    let (stdout, stderr) = bench.written("web").await;
    assert_eq!((stdout, stderr), ("again\n".repeat(3), "bad\n".repeat(3)));
    let failed = bench.ask::<ServiceStatus>(json!({ "service_name": "web" })).await.unwrap();
    assert_eq!(failed.stop_reason, Some(StopReason::RestartLimit));
    assert_eq!((failed.restart_count, failed.exit_code), (2, Some(3)));
    let tail = json!({ "service_name": "web", "tail_lines": 1 });
    let tail = bench.ask::<ServiceLogs>(tail).await.unwrap();
    assert_eq!((&*tail.output.stdout, tail.tail_lines, tail.truncated), ("again\n", Some(1), true));
    let all = json!({ "service_name": "web", "all": true, "timestamps": true });
    let all = bench.ask::<ServiceLogs>(all).await.unwrap();
    assert_eq!((all.tail_lines, all.truncated), (None, false));
    let lines: Vec<_> = all.output.stdout.lines().collect();
    let stamp = lines[0].strip_suffix(" again").unwrap();
    assert!(stamp.parse::<jiff::Timestamp>().is_ok(), "{stamp}");
    assert_eq!(lines.len(), 3);
    bench.end().await;
}

#[tokio::test]
async fn r19_a_start_that_is_cancelled_leaves_nothing_running() {
    let bench = Bench::new().await;
    let start = json!({
        "service_name": "web", "command": "touch runs; exec sleep 1000", "ready_file": "never",
    });
    let context = Context::default();
    let cancel = context.cancel.clone();
    let runs = bench.file("runs");
    let cancelling = async {
        while !runs.exists() {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (started, ()) = tokio::join!(bench.ask_with::<ServiceStart>(start, context), cancelling);
    assert_eq!(started.unwrap_err().kind(), ErrorKind::Cancelled);
    // The log ends with the service.
    bench.written("web").await;
    let left = bench.ask::<ServiceStatus>(json!({ "service_name": "web" })).await.unwrap();
    assert_eq!(left.stop_reason, Some(StopReason::StartCancelled));
    bench.end().await;
}

#[tokio::test]
async fn they_go_with_their_guest_and_variables_are_written_down_nowhere() {
    let bench = Bench::new().await;
    let start = json!({
        "service_name": "web", "command": SLEEPS, "env": { "TOKEN": "canary-8" },
    });
    bench.serve(start).await;
    let events = bench.ask::<WorkspaceEvents>(json!({})).await.unwrap();
    let events = serde_json::to_string(&events).unwrap();
    assert!(events.contains("workspace service start") && !events.contains("canary"), "{events}");
    assert_no_canary(&bench.directory());
    bench.ask::<WorkspaceStop>(json!({})).await.unwrap();
    assert_eq!(bench.counts().await, (Some(0), Some(0)));
    let stopped = bench.ask::<ServiceList>(json!({})).await.unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Conflict);
    bench.ask::<WorkspaceStart>(json!({})).await.unwrap();
    assert_eq!(bench.ask::<ServiceList>(json!({})).await.unwrap().count, 0);
    bench.end().await;
}

fn assert_no_canary(directory: &std::path::Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_no_canary(&path);
        // Records and logs; a disk's file is as large as the disk, and empty.
        } else if path.is_file() && path.metadata().unwrap().len() < 1 << 20 {
            let bytes = fs::read(&path).unwrap();
            assert!(!bytes.windows(8).any(|word| word == b"canary-8"), "{}", path.display());
        }
    }
}
