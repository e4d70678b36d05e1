//! What is told of commands and files as it is, and what is told of them
//! nowhere.

use crate::exec::Bench;
use pyro::operation::{
    FileEdit, FileWrite, ProcessWait, ProcessWrite, WorkspaceExec, WorkspaceStop,
};
use serde_json::json;
use std::fs;
use std::path::PathBuf;

#[tokio::test]
async fn r25_output_and_names_are_told_as_they_are() {
    let bench = Bench::new().await;
    for stay in [json!(null), json!(60)] {
        let script = r"printf 'a\r\nb\r'; printf ' \r' >&2";
        let asked = json!({ "command": script, "yield_seconds": stay });
        let output = bench.exec(asked).await.output;
        assert_eq!((&*output.stdout, &*output.stderr), ("a\r\nb\r", " \r"));
    }
    assert!(bench.logs().await.iter().all(|entry| entry.output.stdout == "a\r\nb\r"));
    bench.ask::<FileWrite>(json!({ "path": " blanks ", "text": " x\r\n" })).await.unwrap();
    assert_eq!(fs::read_to_string(bench.file(" blanks ")).unwrap(), " x\r\n");
    bench.end().await;
}

#[tokio::test]
async fn s6_values_of_variables_are_written_nowhere() {
    let bench = Bench::new().await;
    let secret = "hunter2-of-the-tests";
    let asked = json!({ "command": "test -n \"$TOKEN\"", "env": { "TOKEN": secret } });
    assert_eq!(bench.exec(asked).await.exit_code, Some(0));
    let script = "cat > /dev/null";
    let env = json!({ "TOKEN": secret });
    let asked = json!({ "command": script, "detach": true, "keep_stdin": true, "env": env });
    let id = bench.exec(asked).await.process_id.unwrap();
    let input = json!({ "process_id": id, "text": secret, "end": true });
    bench.ask::<ProcessWrite>(input).await.unwrap();
    bench.ask::<ProcessWait>(json!({ "process_id": id })).await.unwrap();
    bench.ask::<FileWrite>(json!({ "path": "key", "text": secret })).await.unwrap();
    let edit = json!({ "path": "key", "old": secret, "new": "gone" });
    bench.ask::<FileEdit>(edit).await.unwrap();
    // Nor of what fails, with and without a guest.
    let never = json!({ "command": ["no-such-program"], "env": { "TOKEN": secret } });
    bench.ask::<WorkspaceExec>(never.clone()).await.expect_err("it cannot run");
    bench.ask::<WorkspaceStop>(json!({})).await.unwrap();
    bench.ask::<WorkspaceExec>(never).await.expect_err("it is stopped");
    let told = fs::read_to_string(bench.directory().join("events.jsonl")).unwrap();
    for operation in ["workspace exec", "workspace process write", "workspace file edit"] {
        assert!(told.contains(operation), "{told}");
    }
    assert_written_nowhere(&bench.directory(), secret);
    bench.end().await;
}

/// Nor anywhere in what is kept of a workspace.
pub fn assert_written_nowhere(directory: &std::path::Path, secret: &str) {
    for entry in walk(directory) {
        let bytes = fs::read(&entry).unwrap_or_default();
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{}", entry.display());
    }
}

/// Every file below, but for disks.
fn walk(directory: &std::path::Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files.extend(walk(&entry.path())),
            kind if kind.is_file() && entry.metadata().unwrap().len() < 1 << 24 => {
                files.push(entry.path());
            }
            _ => {}
        }
    }
    files
}
