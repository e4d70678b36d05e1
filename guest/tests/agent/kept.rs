//! Processes that outlive the call that started them.

mod ending;
mod input;
mod reading;

use crate::host::{Host, sh, soon};
use proptest::prelude::*;
use pyro_protocol::kept::{
    ForgetProcess, KeepProcess, KeptProcess, ListProcesses, PollProcess, PollUntil, ProcessId,
    ProcessPolled, ProcessState, RUNNING_MAX, SignalProcess, Slice, WAIT_MAX_MS, WriteProcess,
};
use pyro_protocol::process::{Outcome, StartProcess};
use pyro_protocol::{AgentError, AgentErrorKind, Request};

/// Nothing here takes that long.
const LONG: u32 = WAIT_MAX_MS;

impl Host {
    /// Starts a script that surely starts.
    async fn keep(&self, script: &str) -> ProcessId {
        self.keep_program(sh(script)).await.expect("sh starts")
    }

    async fn keep_program(&self, program: StartProcess) -> Result<ProcessId, AgentError> {
        Ok(self.call(KeepProcess { program }).await?.id)
    }

    async fn poll(&self, id: ProcessId, cursors: (u64, u64), until: PollUntil) -> ProcessPolled {
        let (stdout_cursor, stderr_cursor) = cursors;
        let max_bytes = u32::MAX;
        let poll =
            PollProcess { id, stdout_cursor, stderr_cursor, max_bytes, wait_ms: LONG, until };
        self.call(poll).await.expect("it is kept")
    }

    /// Waits for the end, and reads what one poll gives.
    async fn wait(&self, id: ProcessId) -> ProcessPolled {
        self.poll(id, (0, 0), PollUntil::End).await
    }

    async fn list(&self) -> Vec<KeptProcess> {
        self.call(ListProcesses).await.expect("a list").processes
    }

    async fn forget(&self, id: ProcessId) -> ProcessState {
        self.call(ForgetProcess { id }).await.expect("it was there").state
    }

    async fn refused<R: Request>(&self, request: R) -> AgentErrorKind {
        match self.call(request).await {
            Ok(reply) => panic!("answered by {reply:?}"),
            Err(error) => error.kind,
        }
    }
}

fn outcome(state: ProcessState) -> Outcome {
    match state {
        ProcessState::Ended { exit } => exit.outcome,
        ProcessState::Running { .. } | ProcessState::Lost => panic!("{state:?}"),
    }
}

fn text(slice: &Slice) -> &str {
    std::str::from_utf8(&slice.data.0).expect("text")
}

#[tokio::test]
async fn it_lives_on_and_its_end_is_kept() {
    let host = Host::new();
    let mut call = sh("read line; echo out; echo err >&2; exit 7");
    call.stdin = true;
    let id = host.keep_program(call).await.expect("sh starts");
    // The connection that started it is closed; it waits for us all the same.
    let listed = host.list().await;
    assert!(matches!(listed[0].state, ProcessState::Running { .. }), "{listed:?}");
    let data = "go\n".into();
    host.call(WriteProcess { id, data, end: true, wait_ms: LONG }).await.expect("it reads");
    let waited = host.wait(id).await;
    assert_eq!(outcome(waited.state), Outcome::Exited { code: 7 });
    assert_eq!((text(&waited.stdout), text(&waited.stderr)), ("out\n", "err\n"));
    // Asked again it says the same.
    assert_eq!(host.wait(id).await, waited);
    assert_eq!(host.list().await.len(), 1);
}

#[tokio::test]
async fn what_never_ran_is_not_kept() {
    let host = Host::new();
    let mut call = sh("true");
    call.argv = vec!["/pyro/absent".into()];
    let kind = host.refused(KeepProcess { program: call.clone() }).await;
    assert_eq!(kind, AgentErrorKind::ProgramNotFound);
    call.argv = Vec::new();
    let kind = host.refused(KeepProcess { program: call.clone() }).await;
    assert_eq!(kind, AgentErrorKind::InvalidArgument);
    call.argv = vec!["true".into()];
    call.user = Some("nobody-of-that-name".into());
    let kind = host.refused(KeepProcess { program: call }).await;
    assert_eq!(kind, AgentErrorKind::UserNotFound);
    assert_eq!(host.list().await, []);
}

#[tokio::test]
async fn strangers_ids_are_refused_by_every_call() {
    let host = Host::new();
    let own = host.keep("true").await;
    host.wait(own).await;
    for id in [ProcessId([0; 6]), ProcessId([255; 6])] {
        let poll = PollProcess {
            id,
            stdout_cursor: 0,
            stderr_cursor: 0,
            max_bytes: 0,
            wait_ms: LONG,
            until: PollUntil::End,
        };
        assert_eq!(host.refused(poll).await, AgentErrorKind::NotFound);
        assert_eq!(host.refused(ForgetProcess { id }).await, AgentErrorKind::NotFound);
        let signal = SignalProcess { id, number: 9 };
        assert_eq!(host.refused(signal).await, AgentErrorKind::NotFound);
    }
}

#[tokio::test]
async fn there_is_a_limit_to_how_many_run_and_none_to_how_many_have_run() {
    let host = Host::new();
    let mut ids = Vec::new();
    for _ in 0..RUNNING_MAX {
        ids.push(host.keep("exec sleep 1000").await);
    }
    let kind = host.refused(KeepProcess { program: sh("true") }).await;
    assert_eq!(kind, AgentErrorKind::OutOfResources);
    assert_eq!(host.list().await.len(), RUNNING_MAX);
    // An attached one is no kept one.
    assert_eq!(host.script("echo still").await.text(), "still\n");
    host.forget(ids.pop().expect("there are some")).await;
    // Its place is free once its task is over.
    soon("the end of one", async {
        while host.call(KeepProcess { program: sh("exec sleep 1000") }).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for process in host.list().await {
        host.forget(process.id).await;
    }
    assert_eq!(host.list().await, []);
}

#[tokio::test]
async fn of_those_that_ended_the_earliest_end_is_forgotten_first() {
    let host = Host::new();
    let server = host.keep("exec sleep 1000").await;
    let first = host.keep("true").await;
    host.wait(first).await;
    for _ in 0..pyro_protocol::kept::ENDED_MAX - 1 {
        let id = host.keep("true").await;
        host.wait(id).await;
    }
    assert!(host.list().await.iter().any(|process| process.id == first));
    // The server was started first and ends last.
    host.call(SignalProcess { id: server, number: 15 }).await.expect("it runs");
    host.wait(server).await;
    let listed = host.list().await;
    assert_eq!(listed.len(), pyro_protocol::kept::ENDED_MAX);
    assert!(!listed.iter().any(|process| process.id == first));
    assert_eq!(listed.last().map(|process| process.id), Some(server));
}

#[tokio::test]
async fn lists_show_the_beginning_of_long_commands() {
    let host = Host::new();
    let mut call = sh("true");
    call.argv.extend((0..1000).map(|n| format!("{n:0100}").as_str().into()));
    call.argv.push("x".repeat(100_000).as_str().into());
    let id = host.keep_program(call).await.expect("it starts");
    host.wait(id).await;
    let listed = host.list().await;
    assert_eq!(listed[0].argv[..3], ["/bin/sh".into(), "-c".into(), "true".into()]);
    assert!(listed[0].argv.iter().map(|word| word.0.len()).sum::<usize>() <= 1024);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 8, ..Default::default() })]

    /// Whatever the sizes of writes and reads: put together, the slices are the
    /// stream.
    #[test]
    fn cursors_are_byte_exact(
        writes in proptest::collection::vec(1_usize..200_000, 1..6),
        reads in proptest::collection::vec(1_u32..100_000, 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let host = Host::new();
            let mut script = String::new();
            let mut expected = Vec::new();
            for (number, length) in writes.iter().enumerate() {
                script += &format!("head -c {length} /dev/zero | tr '\\0' '\\{:03o}';", number + 65);
                expected.extend(vec![u8::try_from(number + 65).expect("small"); *length]);
            }
            let id = host.keep(&script).await;
            let (mut seen, mut cursor) = (Vec::new(), 0);
            for max_bytes in reads.iter().cycle() {
                let poll = PollProcess {
                    id,
                    stdout_cursor: cursor,
                    stderr_cursor: 0,
                    max_bytes: *max_bytes,
                    wait_ms: LONG,
                    until: PollUntil::Output,
                };
                let polled = host.call(poll).await.expect("it is kept");
                assert_eq!(polled.stdout.start, cursor);
                assert!(polled.stdout.data.0.len() <= *max_bytes as usize);
                cursor = polled.stdout.next_cursor();
                seen.extend(polled.stdout.data.0);
                if cursor == polled.stdout.end && !matches!(polled.state, ProcessState::Running { .. }) {
                    break;
                }
            }
            assert!(seen == expected, "{} bytes instead of {}", seen.len(), expected.len());
        });
    }
}
