//! Shells of live workspaces.

use crate::exec::Bench;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pyro::operation::Encoding;
use pyro::operation::workspace::{ShellCondition, ShellFacts, ShellReadAnswer};
use pyro::operation::{
    Answer, ShellClose, ShellList, ShellOpen, ShellRead, ShellResize, ShellSignal, ShellWrite,
    WorkspaceReset, WorkspaceStart, WorkspaceStatus, WorkspaceStop,
};
use pyro::{Context, ErrorKind};
use serde_json::{Value, json};

impl Bench {
    async fn shell_counts(&self) -> (Option<u32>, Option<u32>) {
        let status = self.ask::<WorkspaceStatus>(json!({})).await.unwrap();
        (status.shell_count, status.running_shell_count)
    }

    async fn open_shell(&self) -> ShellFacts {
        self.ask::<ShellOpen>(json!({})).await.unwrap()
    }

    async fn read_shell(&self, id: &str, more: Value) -> ShellReadAnswer {
        let mut arguments = json!({ "shell_id": id });
        for (name, value) in more.as_object().unwrap() {
            arguments[name] = value.clone();
        }
        self.ask::<ShellRead>(arguments).await.unwrap()
    }

    async fn type_in(&self, id: &str, input: &str) {
        let write = json!({ "shell_id": id, "input": input });
        let written = self.ask::<ShellWrite>(write).await.unwrap();
        assert_eq!(written.taken_bytes as usize, input.len() + 1);
    }

    /// What is seen from a cursor on, once these words are.
    async fn sees(&self, id: &str, mut cursor: u64, words: &str) -> (String, u64) {
        let from = cursor;
        loop {
            let read = self.read_shell(id, json!({ "cursor": cursor, "wait_seconds": 60 })).await;
            cursor = read.next_cursor;
            let plain = self.read_shell(id, json!({ "cursor": from, "plain": true })).await;
            if plain.output.contains(words) {
                return (plain.output, plain.next_cursor);
            }
            assert_eq!(read.shell.state, ShellCondition::Running, "{:?}", plain.output);
        }
    }

    async fn shells(&self) -> usize {
        self.ask::<ShellList>(json!({})).await.unwrap().count
    }
}

/// What an answer spells.
fn bytes(read: &ShellReadAnswer) -> Vec<u8> {
    match read.encoding {
        Encoding::Utf8 => read.output.as_bytes().to_vec(),
        Encoding::Base64 => STANDARD.decode(&read.output).unwrap(),
    }
}

#[tokio::test]
async fn a_shell_keeps_what_a_command_forgets() {
    let bench = Bench::new().await;
    let shell = bench.open_shell().await;
    let id = &*shell.shell_id;
    assert_eq!((shell.cols, shell.rows, &*shell.cwd), (120, 30, "/workspace"));
    assert_eq!((shell.state, Answer::id(&shell)), (ShellCondition::Running, Some(id.into())));
    let (seen, cursor) = bench.sees(id, 0, "pyro$").await;
    assert_eq!(seen, "pyro$\n");
    assert_eq!(bench.shell_counts().await, (Some(1), Some(1)));
    bench.type_in(id, "mkdir sub; cd sub; NAME=value").await;
    bench.type_in(id, "echo $NAME in ${PWD##*/}").await;
    let (seen, cursor) = bench.sees(id, cursor, "value in sub").await;
    assert!(seen.starts_with("pyro$ mkdir sub; cd sub; NAME=value\n"), "{seen:?}");
    // What was seen is not told again.
    let idle = json!({ "cursor": cursor, "plain": true, "wait_for_idle_ms": 300 });
    let idle = bench.read_shell(id, idle).await;
    assert!(idle.idle && !idle.output.contains("value"), "{idle:?}");
    let closed = bench.ask::<ShellClose>(json!({ "shell_id": id })).await.unwrap();
    assert!(closed.closed && closed.shell.state == ShellCondition::Stopped);
    assert_eq!(bench.shells().await, 0);
    bench.end().await;
}

#[tokio::test]
async fn r22_raw_output_is_whole_and_plain_output_is_seen() {
    let bench = Bench::new().await;
    let shell = bench.open_shell().await;
    let id = &*shell.shell_id;
    let (_, start) = bench.sees(id, 0, "pyro$").await;
    bench
        .type_in(id, r"stty -echo; printf '10%%\r50%%\r\033[32m100%%\033[0m done\n\377\n'; exit 4")
        .await;
    let (seen, _) = bench.sees(id, start, "100% done").await;
    assert!(seen.contains("\n100% done\n"), "{seen:?}");
    let (mut cursor, mut raw) = (0, Vec::new());
    loop {
        // A little at a time: every byte comes once.
        let read = bench
            .read_shell(id, json!({ "cursor": cursor, "max_bytes": 7, "wait_seconds": 60 }))
            .await;
        assert_eq!((read.cursor, read.missed_bytes), (cursor, 0));
        raw.extend(bytes(&read));
        cursor = read.next_cursor;
        if read.shell.state == ShellCondition::Stopped && !read.truncated {
            assert_eq!(read.shell.exit_code, Some(4));
            break;
        }
    }
    assert_eq!(cursor, raw.len() as u64);
    assert_eq!(bench.shell_counts().await, (Some(1), Some(0)));
    let expected = b"10%\r50%\r\x1b[32m100%\x1b[0m done\r\n\xff\r\n";
    assert!(raw.windows(expected.len()).any(|window| window == expected), "{}", raw.escape_ascii());
    bench.end().await;
}

#[tokio::test]
async fn r17_signals_and_sizes_reach_the_job() {
    let bench = Bench::new().await;
    let shell = bench.open_shell().await;
    let id = &*shell.shell_id;
    bench.sees(id, 0, "pyro$").await;
    bench
        .type_in(
            id,
            "sh -c 'trap \"stty size\" WINCH; echo rea\"\"dy; while :; do sleep 0.1; done'",
        )
        .await;
    let (_, cursor) = bench.sees(id, 0, "\nready").await;
    let size = json!({ "shell_id": id, "cols": 90, "rows": 20 });
    let resized = bench.ask::<ShellResize>(size).await.unwrap();
    assert_eq!((resized.cols, resized.rows), (90, 20));
    let (_, cursor) = bench.sees(id, cursor, "20 90").await;
    let sent = bench.ask::<ShellSignal>(json!({ "shell_id": id })).await.unwrap();
    assert_eq!(sent.signal.to_string(), "INT");
    bench.sees(id, cursor, "pyro$").await;
    bench.end().await;
}

#[tokio::test]
async fn what_is_not_there_is_named_and_the_next_step_told() {
    let bench = Bench::new().await;
    let nobody = json!({ "shell_id": "0123456789ab" });
    let error = bench.ask::<ShellClose>(nobody).await.expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("0123456789ab"), "{}", error.message());
    assert!(error.next_step().unwrap().contains("shell list"), "{error:?}");
    let nowhere = json!({ "cwd": "/no/such/place" });
    let error = bench.ask::<ShellOpen>(nowhere).await.expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let shell = bench.open_shell().await;
    let id = &*shell.shell_id;
    let beyond = json!({ "shell_id": id, "cursor": 1_000_000 });
    let error = bench.ask::<ShellRead>(beyond).await.expect_err("nobody waits for a gap");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let much = json!({ "shell_id": id, "input": "x".repeat(1 << 20) });
    let error = bench.ask::<ShellWrite>(much).await.expect_err("it is too much");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    bench.end().await;
}

#[tokio::test]
async fn r10_shells_end_with_their_machine() {
    let bench = Bench::new().await;
    bench.open_shell().await;
    assert_eq!(bench.shells().await, 1);
    bench.ask::<WorkspaceStop>(json!({})).await.unwrap();
    assert_eq!(bench.shell_counts().await, (Some(0), Some(0)));
    bench.ask::<WorkspaceStart>(json!({})).await.unwrap();
    assert_eq!(bench.shells().await, 0);
    bench.open_shell().await;
    bench.ask::<WorkspaceReset>(json!({})).await.unwrap();
    assert_eq!(bench.shells().await, 0);
    bench.end().await;
}

#[tokio::test]
async fn p10_a_reader_who_gives_up_waits_no_more() {
    let bench = Bench::new().await;
    let shell = bench.open_shell().await;
    let id = &*shell.shell_id;
    let (_, cursor) = bench.sees(id, 0, "pyro$").await;
    let context = Context::default();
    let cancel = context.cancel.clone();
    let wait = json!({ "shell_id": id, "cursor": cursor, "wait_seconds": 300 });
    let reading = bench.ask_with::<ShellRead>(wait, context);
    cancel.cancel();
    assert_eq!(reading.await.expect_err("nobody waits").kind(), ErrorKind::Cancelled);
    bench.type_in(id, "echo still there").await;
    bench.sees(id, cursor, "\nstill there").await;
    bench.end().await;
}

#[tokio::test]
async fn s6_what_is_typed_is_written_down_nowhere() {
    let bench = Bench::new().await;
    let secret = "hunter2-of-the-shells";
    let open = json!({ "env": { "TOKEN": secret } });
    let shell = bench.ask::<ShellOpen>(open).await.unwrap();
    let id = &*shell.shell_id;
    bench.type_in(id, &format!("read x # {secret}")).await;
    bench.sees(id, 0, secret).await;
    bench.ask::<ShellClose>(json!({ "shell_id": id })).await.unwrap();
    let told = std::fs::read_to_string(bench.directory().join("events.jsonl")).unwrap();
    for operation in ["workspace shell open", "workspace shell write", "workspace shell close"] {
        assert!(told.contains(operation), "{told}");
    }
    crate::told::assert_written_nowhere(&bench.directory(), secret);
    bench.end().await;
}
