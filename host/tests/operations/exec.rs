//! Commands in live workspaces: what they answer, what is remembered of them,
//! what of them goes on.

use crate::fake_vmm::FakeVmm;
use crate::home::{DEADLINES, ENVIRONMENT, Home};
use pyro::event::{Event, Stream};
use pyro::operation::workspace::{
    ConditionState, ExecState, LogEntry, LogState, ProcessPollAnswer, WorkspaceExecAnswer,
};
use pyro::operation::{
    Answer, Operation, ProcessList, ProcessPoll, ProcessSignal, ProcessWait, ProcessWrite,
    WorkspaceCreate, WorkspaceDelete, WorkspaceExec, WorkspaceLogs, WorkspaceReset, WorkspaceStart,
    WorkspaceStatus, WorkspaceStop,
};
use pyro::workspace::Place;
use pyro::workspace::find::find;
use pyro::{Context, ErrorKind, Events, Pyro};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// A workspace that runs, without a VMM.
pub struct Bench {
    home: Home,
    pyro: Pyro,
}

impl Bench {
    pub async fn new() -> Self {
        let home = Home::new();
        let guest = home.path("guest");
        fs::create_dir_all(&guest).unwrap();
        Self::on(home, FakeVmm::honest(guest), json!({})).await
    }

    /// One on machines of the caller's, made with some more.
    pub async fn on(home: Home, vmm: FakeVmm, more: Value) -> Self {
        let pyro = home.pyro(vmm);
        let bench = Self { home, pyro };
        let mut create = json!({ "environment": ENVIRONMENT, "mem_mib": 128, "name": "w" });
        create.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        bench.ask::<WorkspaceCreate>(create).await.unwrap();
        bench
    }

    pub async fn ask<O: Operation>(&self, arguments: Value) -> pyro::Result<O::Output> {
        self.ask_with::<O>(arguments, Context::default()).await
    }

    pub async fn ask_with<O: Operation>(
        &self,
        mut arguments: Value,
        context: Context,
    ) -> pyro::Result<O::Output> {
        let schema = pyro::operation::Entry::of::<O>().arguments_schema();
        if schema["properties"].get("workspace_id").is_some() {
            arguments["workspace_id"] = "w".into();
        }
        if schema["properties"].get("user").is_some() && arguments.get("user").is_none() {
            let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
            arguments["user"] = format!("{}:{}", user.as_raw(), group.as_raw()).into();
        }
        let operation: O = serde_json::from_value(arguments).unwrap();
        self.pyro.call_with(operation, context).await
    }

    pub async fn exec(&self, arguments: Value) -> WorkspaceExecAnswer {
        self.ask::<WorkspaceExec>(arguments).await.unwrap()
    }

    async fn poll(&self, id: &str, stdout_cursor: u64) -> ProcessPollAnswer {
        let poll = json!({ "process_id": id, "stdout_cursor": stdout_cursor, "wait_seconds": 60 });
        self.ask::<ProcessPoll>(poll).await.unwrap()
    }

    pub async fn logs(&self) -> Vec<LogEntry> {
        self.ask::<WorkspaceLogs>(json!({})).await.unwrap().entries
    }

    async fn processes(&self) -> usize {
        self.ask::<ProcessList>(json!({})).await.unwrap().count
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path("guest").join(name)
    }

    pub fn place(&self) -> Place {
        find(&self.pyro.config, "w").unwrap()
    }

    pub fn home(&self) -> PathBuf {
        self.home.path("")
    }

    pub fn directory(&self) -> PathBuf {
        self.home.workspaces().remove(0)
    }

    /// Its time is over; returns when its machine is gone.
    pub async fn expire(&self) -> Place {
        let place = pyro::workspace::find::find(&self.pyro.config, "w").unwrap();
        place.change(crate::expiring::expire).await.unwrap();
        let order = pyro::supervisor::order::ReadTtl;
        pyro::supervisor::control::give(order, place.path(), DEADLINES.reply).await.unwrap();
        // The lock is free then.
        drop(place.take_run(std::time::Duration::from_secs(60)).await.unwrap());
        place
    }

    pub async fn end(self) {
        self.ask::<WorkspaceDelete>(json!({})).await.unwrap();
        self.home.assert_nothing_left();
    }
}

/// A context, and what warnings it hears.
fn listening() -> (Context, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let warnings = Arc::clone(&heard);
    let events = Events::discard().tap(move |event| {
        if let Event::Warning(warning) = event {
            warnings.lock().unwrap().push(warning.clone());
        }
    });
    (Context { events, ..Context::default() }, heard)
}

#[tokio::test]
async fn the_status_has_the_last_command() {
    let bench = Bench::new().await;
    let last =
        async || bench.ask::<WorkspaceStatus>(json!({})).await.unwrap().workspace.last_command;
    assert_eq!(last().await, None);
    bench.exec(json!({ "command": "exit 1" })).await;
    let line = format!("exit 7 # {}", "ä".repeat(1000));
    let detached = json!({ "command": "sleep 1000", "detach": true });
    bench.exec(json!({ "command": &*line, "cwd": "/tmp" })).await;
    let seen = last().await.unwrap();
    assert_eq!((seen.sequence, seen.exit_code, &*seen.cwd), (2, Some(7), "/tmp"));
    assert_eq!(seen.state, LogState::Exited);
    assert!(seen.duration_ms.is_some() && line.starts_with(&seen.command), "{seen:?}");
    assert!((990..=1000).contains(&seen.command.len()), "{}", seen.command.len());
    bench.exec(detached).await;
    let seen = last().await.unwrap();
    assert_eq!((seen.sequence, seen.state, seen.exit_code), (3, LogState::Detached, None));
    // One whose record is torn is in nobody's way.
    fs::write(bench.directory().join("history/3/record.json"), "{ torn").unwrap();
    assert_eq!(last().await.unwrap().sequence, 2);
    // It is known of one that is stopped, too.
    let stopped = bench.ask::<WorkspaceStop>(json!({})).await.unwrap();
    assert_eq!(stopped.last_command.unwrap().sequence, 2);
    bench.end().await;
}

#[tokio::test]
async fn a_command_answers_and_is_remembered() {
    let bench = Bench::new().await;
    let answer = bench.exec(json!({ "command": "echo out; echo err >&2; exit 7" })).await;
    assert_eq!((answer.state, answer.exit_code, answer.signal), (ExecState::Exited, Some(7), None));
    assert_eq!((&*answer.output.stdout, &*answer.output.stderr), ("out\n", "err\n"));
    assert_eq!((answer.sequence, &*answer.cwd), (Some(1), "/workspace"));
    assert_eq!((&*answer.environment, answer.process_id), (ENVIRONMENT, None));
    let answer = bench.exec(json!({ "command": ["printf", "%s", "a b"], "cwd": "/tmp" })).await;
    assert_eq!((answer.sequence, &*answer.output.stdout, &*answer.cwd), (Some(2), "a b", "/tmp"));
    let logs = bench.logs().await;
    assert_eq!(logs.len(), 2);
    assert_eq!((logs[0].state, logs[0].exit_code), (LogState::Exited, Some(7)));
    assert_eq!((&*logs[0].output.stdout, &*logs[0].output.stderr), ("out\n", "err\n"));
    assert_eq!((&*logs[1].command, &*logs[1].argv[2]), ("printf %s 'a b'", "a b"));
    bench.end().await;
}

#[tokio::test]
async fn what_never_ran_is_an_error_and_not_remembered() {
    let bench = Bench::new().await;
    let never = [
        (json!({ "command": ["no-such-program"] }), ErrorKind::ProgramNotFound),
        (json!({ "command": ["/etc/passwd"] }), ErrorKind::ProgramNotExecutable),
        (json!({ "command": ["true"], "cwd": "/no/such/place" }), ErrorKind::NotFound),
        (json!({ "command": ["true"], "user": "nobody-of-that-name" }), ErrorKind::NotFound),
    ];
    for stay in [json!(null), json!(60)] {
        for (asked, kind) in &never {
            let mut asked = asked.clone();
            asked["yield_seconds"] = stay.clone();
            let error = bench.ask::<WorkspaceExec>(asked.clone()).await.expect_err("it cannot run");
            assert_eq!(error.kind(), *kind, "{asked}: {error}");
        }
    }
    assert!(bench.logs().await.is_empty());
    assert_eq!(bench.processes().await, 0);
    bench.end().await;
}

#[tokio::test]
async fn r1_a_lost_guest_runs_nothing_twice() {
    let bench = Bench::new().await;
    for stay in [json!(null), json!(60)] {
        let script = "echo ran >> runs; echo so far; exec sleep 1000";
        let asked = json!({ "command": script, "yield_seconds": stay });
        let (context, _) = listening();
        let (tell, started) = tokio::sync::oneshot::channel();
        let tell = Mutex::new(Some(tell));
        let events = context.events.tap(move |event| {
            if let Event::Output { stream: Stream::Stdout, .. } = event {
                let _ = tell.lock().unwrap().take().map(|tell| tell.send(()));
            }
        });
        let context = Context { events, ..Context::default() };
        let stop = async {
            started.await.unwrap();
            bench.ask::<WorkspaceStop>(json!({ "grace_seconds": 0 })).await.unwrap();
        };
        let (ended, ()) = tokio::join!(bench.ask_with::<WorkspaceExec>(asked, context), stop);
        // The guest may be so good as to tell the end that it made.
        match ended {
            Ok(answer) => assert!(answer.signal.is_some(), "{answer:?}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::GuestLost, "{error}");
                let hint = error.next_step().unwrap_or_default();
                assert!(hint.contains("may have run"), "{hint}");
            }
        }
        let entry = bench.logs().await.pop().unwrap();
        assert_eq!(entry.output.stdout, "so far\n");
        assert_eq!(fs::read_to_string(bench.file("runs")).unwrap(), "ran\n");
        fs::remove_file(bench.file("runs")).unwrap();
        bench.ask::<WorkspaceStart>(json!({})).await.unwrap();
    }
    bench.end().await;
}

#[tokio::test]
async fn r2_p3_commands_run_side_by_side_and_each_is_remembered() {
    let bench = Arc::new(Bench::new().await);
    // It is in nobody's way.
    let long = bench.exec(json!({ "command": "exec sleep 1000", "detach": true })).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..32_u8 {
        let bench = Arc::clone(&bench);
        calls.spawn(async move {
            let stay = if number % 2 == 0 { json!(null) } else { json!(60) };
            let script = format!("seq 1 200 | sed 's/^/{number} /'; exit {number}");
            let answer = bench.exec(json!({ "command": script, "yield_seconds": stay })).await;
            assert_eq!(answer.exit_code, Some(number));
            let expected: String = (1..=200).map(|line| format!("{number} {line}\n")).collect();
            assert_eq!(answer.output.stdout, expected);
            answer.sequence.unwrap()
        });
    }
    let sequences: BTreeSet<u64> = calls.join_all().await.into_iter().collect();
    assert_eq!(sequences, (2..=33).collect());
    let logs = bench.ask::<WorkspaceLogs>(json!({ "limit": 100 })).await.unwrap().entries;
    assert_eq!(logs.len(), 33);
    assert!(logs[1..].iter().all(|entry| entry.state == LogState::Exited));
    assert_eq!(bench.processes().await, 1, "those that ended in time are forgotten");
    let signal = json!({ "process_id": long.process_id, "signal": "KILL" });
    bench.ask::<ProcessSignal>(signal).await.unwrap();
    Arc::into_inner(bench).unwrap().end().await;
}

#[tokio::test]
async fn a_detached_process_is_polled_fed_and_waited_for() {
    let bench = Bench::new().await;
    let script = "while read line; do echo got $line; done; echo bye >&2; exit 5";
    let asked = json!({ "command": script, "detach": true, "keep_stdin": true });
    let answer = bench.exec(asked).await;
    assert_eq!((answer.state, answer.exit_code), (ExecState::Running, None));
    // The command line prints the id, as nothing else tells it.
    let printed = Answer::after_streams(&answer);
    let id = answer.process_id.unwrap();
    assert_eq!(printed, Some((Stream::Stdout, format!("{id}\n"))));
    assert_eq!(bench.logs().await[0].state, LogState::Detached);
    let write = json!({ "process_id": id, "text": "one\n" });
    let written = bench.ask::<ProcessWrite>(write).await.unwrap();
    assert_eq!((written.taken_bytes, written.ended), (4, false));
    let polled = bench.poll(&id, 0).await;
    assert_eq!((&*polled.stdout, polled.stdout_next_cursor), ("got one\n", 8));
    let write = json!({ "process_id": id, "base64": "dHdvCg==", "end": true });
    assert!(bench.ask::<ProcessWrite>(write).await.unwrap().ended);
    let waited = bench.ask::<ProcessWait>(json!({ "process_id": id })).await.unwrap();
    assert_eq!(waited.condition.exit_code, Some(5));
    let polled = bench.poll(&id, 8).await;
    assert_eq!((&*polled.stdout, &*polled.stderr), ("got two\n", "bye\n"));
    assert_eq!(polled.condition.state, ConditionState::Exited);
    // The wait has completed the history.
    let entry = bench.logs().await.remove(0);
    assert_eq!((entry.state, entry.exit_code), (LogState::Exited, Some(5)));
    assert_eq!(entry.output.stdout, "got one\ngot two\n");
    assert_eq!(entry.process_id.as_deref(), Some(&*id));
    bench.end().await;
}

#[tokio::test]
async fn one_that_takes_longer_than_its_caller_stays_goes_on() {
    let bench = Bench::new().await;
    let script = "echo first; read line; echo then $line; exit 3";
    let asked = json!({ "command": script, "yield_seconds": 1, "keep_stdin": true });
    let answer = bench.exec(asked).await;
    assert_eq!((answer.state, &*answer.output.stdout), (ExecState::Running, "first\n"));
    assert_eq!((answer.stdout_cursor, answer.stderr_cursor), (Some(6), Some(0)));
    let id = answer.process_id.unwrap();
    let write = json!({ "process_id": id, "text": "this\n" });
    bench.ask::<ProcessWrite>(write).await.unwrap();
    let polled = bench.poll(&id, 6).await;
    assert_eq!(polled.stdout, "then this\n");
    let follow = json!({ "process_id": id, "follow": true });
    let waited = bench.ask::<ProcessWait>(follow).await.unwrap();
    assert_eq!(waited.condition.exit_code, Some(3));
    let entry = bench.logs().await.remove(0);
    assert_eq!((&*entry.output.stdout, entry.exit_code), ("first\nthen this\n", Some(3)));
    bench.end().await;
}

#[tokio::test]
async fn a_call_that_is_cancelled_kills_what_it_started() {
    let bench = Bench::new().await;
    for stay in [json!(null), json!(60)] {
        let context = Context::default();
        let cancel = context.cancel.clone();
        let (tell, started) = tokio::sync::oneshot::channel();
        let tell = Mutex::new(Some(tell));
        let events = Events::discard().tap(move |event| {
            if let Event::Output { bytes, .. } = event
                && let Some(tell) = tell.lock().unwrap().take()
            {
                drop(tell.send(String::from_utf8(bytes.clone()).unwrap()));
            }
        });
        let asked = json!({ "command": "echo $$; exec sleep 1000", "yield_seconds": stay });
        let asked = bench.ask_with::<WorkspaceExec>(asked, Context { events, ..context });
        let (ended, pid) = tokio::join!(asked, async {
            let pid = started.await.unwrap();
            cancel.cancel();
            pid
        });
        assert_eq!(ended.expect_err("cancelled").kind(), ErrorKind::Cancelled);
        let pid = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw).unwrap();
        let flags = rustix::process::PidfdFlags::empty();
        if let Ok(process) = rustix::process::pidfd_open(pid, flags) {
            // SAFETY: an OwnedFd is open and stays the same descriptor.
            let process = unsafe { tokio::io::unix::AsyncFd::register(process) }.unwrap();
            drop(process.readable().await.unwrap());
        }
        assert_eq!(bench.processes().await, 0);
        assert_eq!(bench.logs().await.pop().unwrap().state, LogState::Lost);
    }
    bench.end().await;
}

#[tokio::test]
async fn r4_a_time_out_keeps_the_output_the_history_and_the_workspace() {
    let bench = Bench::new().await;
    for stay in [json!(null), json!(60)] {
        let script = "echo before; sleep 1000; echo after";
        let asked = json!({ "command": script, "timeout_seconds": 1, "yield_seconds": stay });
        let answer = bench.exec(asked).await;
        assert_eq!((answer.exit_code, answer.timed_out), (Some(124), true));
        assert_eq!(answer.output.stdout, "before\n");
    }
    let logs = bench.logs().await;
    assert!(logs.iter().all(|entry| entry.timed_out && entry.output.stdout == "before\n"));
    assert_eq!(bench.exec(json!({ "command": "echo on" })).await.output.stdout, "on\n");
    bench.end().await;
}

#[tokio::test]
async fn a_caller_that_is_killed_leaves_an_unfinished_entry() {
    let bench = Arc::new(Bench::new().await);
    let (tell, started) = tokio::sync::oneshot::channel();
    let tell = Mutex::new(Some(tell));
    let events = Events::discard().tap(move |event| {
        if let Event::Output { .. } = event {
            let _ = tell.lock().unwrap().take().map(|tell| tell.send(()));
        }
    });
    let caller = Arc::clone(&bench);
    let call = tokio::spawn(async move {
        let asked = json!({ "command": "echo so far; exec sleep 1000", "yield_seconds": null });
        let context = Context { events, ..Context::default() };
        drop(caller.ask_with::<WorkspaceExec>(asked, context).await);
    });
    started.await.unwrap();
    assert_eq!(bench.logs().await[0].state, LogState::Running);
    call.abort();
    drop(call.await);
    let entry = bench.logs().await.remove(0);
    assert_eq!((entry.state, &*entry.output.stdout), (LogState::Unfinished, "so far\n"));
    Arc::into_inner(bench).unwrap().end().await;
}

#[tokio::test]
async fn a_history_that_cannot_be_written_stops_no_command() {
    let bench = Bench::new().await;
    // A file in its place stands for a disk that is full.
    fs::write(bench.directory().join("history"), "").unwrap();
    let (context, warnings) = listening();
    let asked = json!({ "command": "echo out" });
    let answer = bench.ask_with::<WorkspaceExec>(asked, context).await.unwrap();
    assert_eq!((&*answer.output.stdout, answer.sequence), ("out\n", None));
    let warnings = warnings.lock().unwrap().clone();
    assert!(warnings.iter().any(|warning| warning.contains("history")), "{warnings:?}");
    bench.end().await;
}

#[tokio::test]
async fn the_history_is_paged_and_one_command_is_shown_whole() {
    let bench = Bench::new().await;
    for number in 1..=5 {
        bench.exec(json!({ "command": format!("seq 1 {number}000") })).await;
    }
    let page = async |range: Value| {
        let answer = bench.ask::<WorkspaceLogs>(range).await.unwrap();
        answer.entries.into_iter().map(|entry| entry.sequence).collect::<Vec<_>>()
    };
    assert_eq!(page(json!({ "limit": 2 })).await, [4, 5]);
    assert_eq!(page(json!({ "limit": 2, "before": 4 })).await, [2, 3]);
    assert_eq!(page(json!({ "limit": 2, "after": 1 })).await, [2, 3]);
    let entry = bench.logs().await.remove(4);
    assert!(entry.output.stdout_omitted_bytes > 0 && entry.output.stdout_tail.is_some());
    let expected: String = (1..=5000).map(|n| format!("{n}\n")).collect();
    assert_eq!(entry.stdout_bytes, expected.len() as u64);
    let mut whole = String::new();
    while whole.len() < expected.len() {
        let asked =
            json!({ "sequence": 5, "offset_bytes": whole.len(), "output_limit_bytes": 7000 });
        let entry = bench.ask::<WorkspaceLogs>(asked).await.unwrap().entries.remove(0);
        assert_eq!(entry.stdout_offset_bytes, whole.len() as u64);
        whole.push_str(&entry.output.stdout);
    }
    assert_eq!(whole, expected);
    let missing = bench.ask::<WorkspaceLogs>(json!({ "sequence": 9 })).await;
    assert_eq!(missing.expect_err("not yet").kind(), ErrorKind::NotFound);
    bench.end().await;
}

#[tokio::test]
async fn a_stranger_is_named_with_what_to_do() {
    let bench = Bench::new().await;
    let error = bench.ask::<ProcessPoll>(json!({ "process_id": "0123456789ab" })).await;
    let error = error.expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("0123456789ab"), "{error}");
    assert!(error.next_step().is_some_and(|hint| hint.contains("process list")));
    bench.end().await;
}

/// One that was forgotten would keep its workspace for ever.
#[tokio::test]
async fn r8_a_detached_process_does_not_defer_the_end_of_a_workspace() {
    let bench = Bench::new().await;
    let detached = bench.exec(json!({ "command": "exec sleep 1000", "detach": true })).await;
    assert!(detached.process_id.is_some());
    let place = bench.expire().await;
    assert_eq!(place.state(), pyro::workspace::State::Stopped);
    let events = fs::read_to_string(bench.directory().join("events.jsonl")).unwrap();
    assert!(events.contains(r#""event":"stopped","by":"ttl","clean":true"#), "{events}");
    bench.end().await;
}

/// It is the record of what happened to a workspace, and so was the reset.
#[tokio::test]
async fn a_reset_leaves_the_history() {
    let bench = Bench::new().await;
    bench.exec(json!({ "command": "exit 3" })).await;
    let reset = bench.ask::<WorkspaceReset>(json!({})).await.unwrap();
    assert_eq!((reset.workspace.command_count, reset.workspace.reset_count), (1, 1));
    assert_eq!(reset.workspace.last_command.unwrap().exit_code, Some(3));
    assert_eq!(bench.exec(json!({ "command": "true" })).await.sequence, Some(2));
    let codes: Vec<_> = bench.logs().await.into_iter().map(|entry| entry.exit_code).collect();
    assert_eq!(codes, [Some(3), Some(0)]);
    let events = fs::read_to_string(bench.directory().join("events.jsonl")).unwrap();
    let happened: Vec<Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let at = |what: &dyn Fn(&Value) -> bool| happened.iter().position(what).unwrap();
    let ran = at(&|line| line["operation"] == "workspace exec");
    assert!(ran < at(&|line| line["event"] == "reset"), "{events}");
    bench.end().await;
}
