//! Diffs and patches over a connection. Layers are plain directories here: what
//! an overlay makes of them, the walk's own tests show.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::host::{Host, guest_path};
use pyro_agent::{Guest, LayerPaths, Phase};
use pyro_protocol::diff::{
    ApplyPatch, Diff, DiffDetail, DiffRecord, DiffScope, DiffStatus, DiffSummary, PATCH_MAX,
};
use pyro_protocol::{AgentErrorKind, Call, FrameKind, codec};
use std::fs;
use tempfile::TempDir;

const FORWARD: ApplyPatch = ApplyPatch { strip: None, dry_run: false, reverse: false };

const PATCH: &[u8] = b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n";

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory of our own")
}

/// A guest whose upper layer is its workspace.
fn layered() -> (Host, TempDir) {
    let (workspace, below) = (directory(), directory());
    for name in ["lower", "work/index"] {
        fs::create_dir_all(below.path().join(name)).expect("a directory in ours");
    }
    let layers = LayerPaths {
        lower: below.path().join("lower"),
        upper: workspace.path().to_owned(),
        work: below.path().join("work"),
        hard_links: None,
    };
    let guest = Guest::in_process_on_layers(workspace.path(), layers, Phase::Activated);
    (Host { guest, workspace }, below)
}

fn diff(paths: &[&str]) -> Diff {
    let paths = paths.iter().map(guest_path).collect();
    Diff { scope: DiffScope::Workspace, paths, detail: DiffDetail::Patch }
}

/// The paths and the patch that a diff tells.
async fn told(host: &Host, call: Diff) -> (Vec<String>, String, DiffSummary) {
    let mut connection = host.connect().await;
    connection.call(call).await.expect("it begins");
    let (mut paths, mut patch) = (Vec::new(), Vec::new());
    loop {
        let frame = connection.next().await;
        if frame.kind != FrameKind::Data {
            let summary = frame.decode(FrameKind::DataEnd).expect("the end");
            return (paths, String::from_utf8(patch).expect("text"), summary);
        }
        for record in codec::decode::<Vec<DiffRecord>>(&frame.payload).expect("records") {
            match record {
                DiffRecord::Entry(entry) => paths.push(entry.path.to_string()),
                DiffRecord::Patch(piece) => patch.extend(piece.0),
            }
        }
    }
}

#[tokio::test]
async fn a_diff_tells_entries_and_their_patch() {
    let (host, below) = layered();
    fs::write(below.path().join("lower/x"), "a\n").unwrap();
    host.write("x", "b\n", 0o644);
    host.write("y", "y\n", 0o644);
    let (paths, patch, summary) = told(&host, diff(&[])).await;
    assert_eq!(paths, ["x", "y"]);
    assert!(patch.starts_with("diff --git a/x b/x\nindex 7898192..6178079 100644\n"), "{patch}");
    assert_eq!((summary.total, summary.modified, summary.added), (2, 1, 1));
    for path in ["y", "/workspace/y", "./y"] {
        assert_eq!(told(&host, diff(&[path])).await.0, ["y"]);
    }
    assert_eq!(told(&host, diff(&["absent"])).await.0, [""; 0]);
}

/// Git refuses a patch that changes its own files, and then all of it.
#[tokio::test]
async fn r7_what_git_keeps_for_itself_is_told_only_when_asked_for() {
    let (host, _below) = layered();
    for path in [".git/index", "sub/.git", "sub/.gitignore"] {
        fs::create_dir_all(host.workspace.path().join(path).parent().unwrap()).unwrap();
        host.write(path, "x", 0o644);
    }
    assert_eq!(told(&host, diff(&[])).await.0, ["sub/.gitignore"]);
    assert_eq!(told(&host, diff(&["sub"])).await.0, ["sub/.gitignore"]);
    assert_eq!(told(&host, diff(&[".git"])).await.0, [".git/index"]);
    assert_eq!(told(&host, diff(&["sub/.git"])).await.0, ["sub/.git"]);
}

#[tokio::test]
async fn s8_a_diff_is_of_the_workspace_alone() {
    let (host, _below) = layered();
    for path in ["../x", "/etc", "/workspaces", "a/../../x"] {
        let refused = host.call(diff(&[path])).await.expect_err("it is outside");
        assert_eq!(refused.kind, AgentErrorKind::OutOfTree, "{path}");
    }
    let system = Diff { scope: DiffScope::System, ..diff(&[]) };
    assert_eq!(host.call(system).await.expect_err("no layers").kind, AgentErrorKind::System);
}

#[tokio::test]
async fn a_patch_too_large_for_one_frame_streams_both_ways() {
    let (host, _below) = layered();
    let lines: String = (0..60_000).map(|number| format!("{number}\n")).collect();
    host.write("x", &lines, 0o644);
    let (_, patch, _) = told(&host, diff(&[])).await;
    assert!(patch.len() > 4 * FrameKind::Data.limit());
    fs::remove_file(host.at("x")).unwrap();
    let applied = host.give(FORWARD, patch.as_bytes()).await.expect("it applies");
    assert_eq!((applied.total, applied.entries[0].status), (1, DiffStatus::Added));
    assert_eq!(fs::read_to_string(host.at("x")).unwrap(), lines);
}

#[tokio::test]
async fn a_patch_that_does_not_arrive_whole_counts_for_nothing() {
    let host = Host::new();
    host.write("x", "a\n", 0o644);
    let mut connection = host.connect().await;
    connection.send(FrameKind::Call, &Call::from(FORWARD)).await;
    connection.writer.send_raw(FrameKind::Data, PATCH).await.expect("the agent listens");
    drop(connection);
    // The next one waits for its turn, so the first is over when it is done.
    host.give(FORWARD, PATCH).await.expect("the file is as it was");
    assert_eq!(fs::read_to_string(host.at("x")).unwrap(), "b\n");
}

#[tokio::test]
async fn r16_a_patch_that_does_not_apply_is_told_at_once() {
    let host = Host::new();
    host.write("x", "c\n", 0o644);
    let refused = host.give(FORWARD, PATCH).await.expect_err("it does not apply");
    assert_eq!(refused.kind, AgentErrorKind::Conflict);
    assert!(refused.message.contains("x: hunk 1"), "{}", refused.message);
    assert_eq!(fs::read_to_string(host.at("x")).unwrap(), "c\n");
}

#[tokio::test]
async fn s4_a_patch_without_end_is_refused() {
    let host = Host::new();
    let mut connection = host.connect().await;
    connection.send(FrameKind::Call, &Call::from(FORWARD)).await;
    let chunk = vec![b'\n'; FrameKind::Data.limit()];
    for _ in 0..=PATCH_MAX / chunk.len() as u64 {
        if connection.writer.send_raw(FrameKind::Data, &chunk).await.is_err() {
            break;
        }
    }
    let frame = connection.next().await;
    let error: pyro_protocol::AgentError = frame.decode(FrameKind::Error).expect("a refusal");
    assert_eq!(error.kind, AgentErrorKind::TooLarge);
}

#[tokio::test]
async fn neither_is_for_a_guest_without_a_workspace() {
    let host = Host::in_phase(Phase::Waiting);
    let refused = host.call(diff(&[])).await.expect_err("nothing to compare");
    assert_eq!(refused.kind, AgentErrorKind::WrongState);
    let refused = host.give(FORWARD, PATCH).await.expect_err("nothing to patch");
    assert_eq!(refused.kind, AgentErrorKind::WrongState);
}
