//! The canary in what lives on: shells and services.

use super::told::TELL;
use super::{Bench, CANARY};
use pyro::operation::{
    ServiceList, ServiceLogs, ServiceStart, ServiceStatus, ServiceStop, ShellClose, ShellList,
    ShellOpen, ShellRead, ShellWrite, WorkspaceEvents,
};
use pyro::secret::redact::MARK;
use serde_json::json;

#[tokio::test]
async fn s6_a_shell_shows_no_secret() {
    let bench = Bench::new().await;
    let open = json!({ "secret_env": { "CANARY": "KEY" }, "cols": 500 });
    let shell = bench.ask::<ShellOpen>(open).await.unwrap().shell_id;
    let write = json!({ "shell_id": shell, "input": format!("{TELL}; echo fin''ished") });
    bench.ask::<ShellWrite>(write).await.unwrap();
    let mut seen = String::new();
    let mut cursor = 0;
    while !seen.contains("finished") {
        let read =
            json!({ "shell_id": shell, "cursor": cursor, "max_bytes": 7, "wait_seconds": 60 });
        let read = bench.ask::<ShellRead>(read).await.unwrap();
        assert_eq!(read.cursor, cursor);
        seen.push_str(&read.output);
        cursor = read.next_cursor;
    }
    assert_eq!(seen.matches(MARK).count(), 7, "{seen}");
    for step in 0..cursor {
        let read = json!({ "shell_id": shell, "cursor": step, "max_bytes": 4096 });
        bench.ask::<ShellRead>(read).await.unwrap();
    }
    for step in (0..cursor).step_by(13) {
        let read = json!({ "shell_id": shell, "cursor": step, "plain": true });
        bench.ask::<ShellRead>(read).await.unwrap();
    }
    let all = bench.ask::<ShellRead>(json!({ "shell_id": shell, "plain": true })).await.unwrap();
    assert!(all.output.contains(MARK) && all.output.contains("finished"), "{}", all.output);
    // What only the screen puts together.
    let (first, second) = CANARY.split_at(5);
    let draw = format!(
        "printf '\\033[2J\\033[H     %s\\r%s\\033[5;1Hdra''wn' {} {}",
        quoted(second),
        quoted(first)
    );
    bench.ask::<ShellWrite>(json!({ "shell_id": shell, "input": draw })).await.unwrap();
    let mut plain = String::new();
    while !plain.contains("drawn") {
        let read = json!({
            "shell_id": shell, "cursor": cursor, "plain": true, "wait_for_idle_ms": 50,
        });
        plain = bench.ask::<ShellRead>(read).await.unwrap().output;
    }
    assert!(plain.contains(MARK), "{plain}");
    bench.ask::<ShellList>(json!({})).await.unwrap();
    bench.ask::<ShellClose>(json!({ "shell_id": shell })).await.unwrap();
    bench.ask::<WorkspaceEvents>(json!({})).await.unwrap();
    bench.assert_untold();
    bench.end().await;
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[tokio::test]
async fn s6_a_service_shows_no_secret() {
    let bench = Bench::new().await;
    let start = json!({
        "service_name": "teller", "secret_env": { "CANARY": "KEY" },
        "command": format!("{TELL}; sleep 1000 # {CANARY}"),
        "ready_command": format!("true {CANARY:?}"),
    });
    bench.ask::<ServiceStart>(start).await.unwrap();
    let logs = json!({ "service_name": "teller" });
    let told = loop {
        let told = bench.ask::<ServiceLogs>(logs.clone()).await.unwrap();
        if told.output.stderr == MARK {
            break told;
        }
    };
    assert_eq!(told.output.stdout.matches(MARK).count(), 6, "{}", told.output.stdout);
    let stamped = json!({ "service_name": "teller", "timestamps": true, "tail_lines": 2 });
    bench.ask::<ServiceLogs>(stamped).await.unwrap();
    bench.ask::<ServiceList>(json!({})).await.unwrap();
    bench.ask::<ServiceStatus>(logs.clone()).await.unwrap();
    bench.ask::<ServiceStop>(logs).await.unwrap();
    let fails = json!({
        "service_name": "failing", "secret_env": { "CANARY": "KEY" },
        "command": format!("{TELL}; exit 3"), "ready_file": "/nonexistent/ready",
    });
    let failed = bench.ask::<ServiceStart>(fails).await.unwrap();
    assert_eq!(failed.output.stderr, MARK);
    bench.ask::<WorkspaceEvents>(json!({})).await.unwrap();
    bench.assert_untold();
    bench.end().await;
}
