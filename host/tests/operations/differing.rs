//! Diffs and patches as operations, on a workspace whose layers are plain
//! directories.

use crate::fake_vmm::{FakeVmm, serve_guest};
use crate::home::{ENVIRONMENT, Home};
use pyro::event::{Event, Events};
use pyro::operation::workspace::{ChangeStatus, WorkspaceSummary};
use pyro::operation::{Operation, PatchApply, WorkspaceCreate, WorkspaceDelete, WorkspaceDiff};
use pyro::{Context, ErrorKind, Pyro};
use pyro_agent::{Guest, LayerPaths, Phase};
use serde_json::{Value, json};
use std::fs;

fn ask<O: Operation>(arguments: Value) -> O {
    serde_json::from_value(arguments).unwrap()
}

/// A running workspace whose upper layer is `guest` in the home, over `seed`.
async fn layered(home: &Home) -> (Pyro, WorkspaceSummary) {
    for directory in ["guest", "seed", "work/index"] {
        fs::create_dir_all(home.path(directory)).unwrap();
    }
    let (workspace, layers) = (
        home.path("guest"),
        LayerPaths {
            lower: home.path("seed"),
            upper: home.path("guest"),
            work: home.path("work"),
            hard_links: None,
        },
    );
    let pyro = home.pyro(FakeVmm::new(move |inside| {
        let phase = Phase::Waiting;
        let guest = Guest::in_process_on_layers(workspace.clone(), layers.clone(), phase);
        serve_guest(inside.channel, guest)
    }));
    let create = json!({ "environment": ENVIRONMENT, "mem_mib": 128, "name": "w" });
    let made = pyro.call(ask::<WorkspaceCreate>(create)).await.unwrap();
    (pyro, made)
}

async fn delete(pyro: &Pyro) {
    pyro.call(ask::<WorkspaceDelete>(json!({ "workspace_id": "w" }))).await.unwrap();
}

/// What an operation answers, and what it wrote meanwhile.
async fn heard<O: Operation>(pyro: &Pyro, operation: O) -> (O::Output, String) {
    let (events, mut received) = Events::channel();
    let listening = async {
        let mut written = Vec::new();
        while let Some(event) = received.recv().await {
            if let Event::Output { bytes, .. } = event {
                written.extend(bytes);
            }
        }
        String::from_utf8(written).unwrap()
    };
    let context = Context { events, ..Context::default() };
    let (answer, written) = tokio::join!(pyro.call_with(operation, context), listening);
    (answer.unwrap(), written)
}

#[tokio::test]
async fn r7_a_diff_and_its_patch_there_and_back() {
    let home = Home::new();
    let (pyro, made) = layered(&home).await;
    fs::write(home.path("seed/x"), "a\n").unwrap();
    fs::write(home.path("guest/x"), "b\n").unwrap();
    fs::write(home.path("guest/new\n"), "n\n").unwrap();
    let diff = |more: Value| {
        let mut arguments = json!({ "workspace_id": "w" });
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ask::<WorkspaceDiff>(arguments)
    };
    let (answer, written) = heard(&pyro, diff(json!({}))).await;
    assert_eq!((answer.workspace_id.as_str(), answer.changed), (made.workspace_id.as_str(), true));
    assert_eq!(answer.patch, written);
    assert!(
        written.contains("diff --git \"a/new\\n\" \"b/new\\n\"\nnew file mode 100644\n"),
        "{written}"
    );
    let summary = (answer.summary.total, answer.summary.added, answer.summary.modified);
    assert_eq!((summary, answer.summary.text_patched), ((2, 1, 1), 2));
    assert_eq!(answer.entries[1].status, ChangeStatus::Modified);
    let (answer, written) = heard(&pyro, diff(json!({ "name_only": true }))).await;
    assert_eq!((answer.patch.as_str(), written.as_str()), ("", "\"new\\n\"\nx\n"));
    let (_, written) = heard(&pyro, diff(json!({ "stat": true, "paths": ["x"] }))).await;
    assert_eq!(written, " x |   2 +-\n 1 file changed, 1 insertion(+), 1 deletion(-)\n");
    let bounded = diff(json!({ "output_limit_bytes": 20 }));
    let (answer, _) = heard(&pyro, bounded).await;
    assert!(answer.patch.len() + answer.patch_tail.unwrap().len() <= 20);
    let patch = heard(&pyro, diff(json!({ "paths": ["x"] }))).await.0.patch;
    let back = json!({ "workspace_id": "w", "patch": patch, "reverse": true });
    let (answer, written) = heard(&pyro, ask::<PatchApply>(back.clone())).await;
    assert_eq!((answer.changed, answer.summary.modified), (true, 1));
    assert_eq!(written, "M x\n1 file changed: 0 added, 1 modified, 0 deleted, 0 renamed\n");
    assert_eq!(fs::read_to_string(home.path("guest/x")).unwrap(), "a\n");
    let error = pyro.call(ask::<PatchApply>(back)).await.expect_err("it was taken back");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("x: hunk 1"), "{error}");
    delete(&pyro).await;
}

#[tokio::test]
async fn nothing_changed_is_nothing_told() {
    let home = Home::new();
    let (pyro, _) = layered(&home).await;
    let (answer, written) = heard(
        &pyro,
        WorkspaceDiff::new("w".parse::<pyro::operation::argument::WorkspaceRef>().unwrap()),
    )
    .await;
    assert_eq!((answer.changed, answer.patch.as_str(), written.as_str()), (false, "", ""));
    let error = pyro.call(ask::<PatchApply>(json!({ "workspace_id": "w" }))).await;
    assert_eq!(error.expect_err("no patch").kind(), ErrorKind::InvalidInput);
    let file = home.path("fix.patch");
    fs::write(&file, "--- /dev/null\n+++ b/made\n@@ -0,0 +1 @@\n+x\n").unwrap();
    let apply = json!({ "workspace_id": "w", "patch_file": file, "dry_run": true });
    let (answer, _) = heard(&pyro, ask::<PatchApply>(apply)).await;
    assert_eq!((answer.dry_run, answer.summary.added), (true, 1));
    assert!(!home.path("guest/made").exists());
    delete(&pyro).await;
}
