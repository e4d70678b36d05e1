//! Disks of workspaces that are stopped, looked at in machines that are threads.

use crate::fake_vmm::FakeVmm;
use crate::home::{ENVIRONMENT, Home};
use pyro::operation::{
    DiskExport, DiskList, DiskRead, Operation, WorkspaceCreate, WorkspaceDelete, WorkspacePause,
    WorkspaceStart, WorkspaceStop,
};
use pyro::store::lock::{Lock, Mode};
use pyro::workspace::State;
use pyro::workspace::inspect::AtRest;
use pyro::{Context, ErrorKind, Pyro, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// A workspace named `w` in a home of its own, and what its programs see.
struct Bench {
    home: Home,
    vmm: FakeVmm,
    pyro: Pyro,
    tree: PathBuf,
}

impl Bench {
    async fn running() -> Self {
        let home = Home::new();
        let tree = home.path("tree");
        fs::create_dir_all(tree.join("workspace/src")).unwrap();
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::write(tree.join("etc/motd"), "hello\n").unwrap();
        fs::write(tree.join("workspace/src/main.rs"), "one\ntwo\n").unwrap();
        let vmm = FakeVmm::honest(tree.join("workspace"));
        let pyro = home.pyro(vmm.clone());
        let wanted = json!({ "environment": ENVIRONMENT, "mem_mib": 128, "name": "w" });
        pyro.call(serde_json::from_value::<WorkspaceCreate>(wanted).unwrap()).await.unwrap();
        Self { home, vmm, pyro, tree }
    }

    async fn stopped() -> Self {
        let bench = Self::running().await;
        bench.ask::<WorkspaceStop>(json!({})).await.unwrap();
        bench
    }

    async fn ask<O: Operation>(&self, mut more: Value) -> Result<Value> {
        more.as_object_mut().unwrap().insert("workspace_id".into(), "w".into());
        let operation: O = serde_json::from_value(more).unwrap();
        let answer = self.pyro.call_with(operation, Context::default()).await?;
        Ok(serde_json::to_value(answer).unwrap())
    }

    async fn done(self) {
        self.ask::<WorkspaceDelete>(json!({})).await.unwrap();
        self.home.assert_nothing_left();
    }
}

fn paths(listed: &Value) -> Vec<&str> {
    listed["entries"].as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_was_stopped_is_listed_and_read_and_stays_stopped() {
    let bench = Bench::stopped().await;
    let listed = bench.ask::<DiskList>(json!({ "recursive": true })).await.unwrap();
    assert_eq!(paths(&listed), ["/workspace/src", "/workspace/src/main.rs"]);
    let whole = json!({ "path": "/", "recursive": true, "limit": 2 });
    let first = bench.ask::<DiskList>(whole.clone()).await.unwrap();
    assert_eq!(paths(&first), ["/etc", "/etc/motd"]);
    let mut more = whole;
    more["cursor"] = first["next_cursor"].clone();
    let rest = bench.ask::<DiskList>(more).await.unwrap();
    assert_eq!(paths(&rest), ["/workspace", "/workspace/src"]);
    let lines = json!({ "path": "src/main.rs", "first_line": 2 });
    let read = bench.ask::<DiskRead>(lines).await.unwrap();
    assert_eq!((&read["content"], &read["offset"]), (&json!("two\n"), &json!(4)));
    let read = bench.ask::<DiskRead>(json!({ "path": "/etc/motd" })).await.unwrap();
    assert_eq!(read["content"], "hello\n");
    let place = pyro::workspace::find::find(&bench.pyro.config, "w").unwrap();
    assert_eq!(place.state(), State::Stopped);
    // Each look was a machine of its own, and none of them is left.
    assert_eq!((bench.vmm.started(), bench.home.workspaces().len()), (6, 1));
    bench.done().await;
}

#[tokio::test]
async fn what_runs_or_is_paused_is_refused_with_the_next_step() {
    let bench = Bench::running().await;
    let refused = |error: pyro::Error| {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        error.next_step().unwrap_or_default().to_owned()
    };
    let output = bench.home.path("out.ext4");
    for _ in 0..2 {
        let list = bench.ask::<DiskList>(json!({})).await.expect_err("in use");
        let hint = refused(list);
        assert!(hint.contains("pyro workspace stop") && hint.contains("file list"), "{hint}");
        refused(bench.ask::<DiskRead>(json!({ "path": "f" })).await.expect_err("in use"));
        let export = json!({ "output_path": output });
        refused(bench.ask::<DiskExport>(export).await.expect_err("in use"));
        // The second time it stands still.
        bench.ask::<WorkspacePause>(json!({})).await.unwrap();
    }
    assert!(!output.exists());
    bench.done().await;
}

#[tokio::test]
async fn one_that_crashed_is_looked_at_and_not_started() {
    let bench = Bench::running().await;
    bench.vmm.crash();
    let place = pyro::workspace::find::find(&bench.pyro.config, "w").unwrap();
    // Whoever has its lock is the supervisor, which goes now.
    let lock = place.path().join("lock");
    drop(Lock::take(&lock, Mode::Exclusive, std::time::Duration::from_secs(20)).await.unwrap());
    let read = bench.ask::<DiskRead>(json!({ "path": "src/main.rs" })).await.unwrap();
    assert_eq!(read["size_bytes"], 8);
    assert_eq!(place.state(), State::Crashed);
    bench.done().await;
}

#[tokio::test]
async fn several_look_at_once_and_a_start_waits_for_them() {
    let bench = Bench::stopped().await;
    let context = Context::default();
    let one = AtRest::open(&bench.pyro, "w", &context).await.unwrap();
    let two = AtRest::open(&bench.pyro, "w", &context).await.unwrap();
    let place = one.place().clone();
    let life = place.path().join("life.lock");
    assert!(Lock::try_take(&life, Mode::Exclusive).unwrap().is_none());
    let starting = bench.ask::<WorkspaceStart>(json!({}));
    let looking = async {
        let inspection = two.inspect(&bench.pyro, &context).await.unwrap();
        assert_eq!(place.state(), State::Stopped);
        let words = bench.pyro.deadlines.last_words;
        inspection.close(Ok(()), words).await.unwrap();
        drop((one, two));
    };
    let (started, ()) = tokio::join!(starting, looking);
    started.unwrap();
    assert_eq!(place.state(), State::Running);
    bench.done().await;
}

#[tokio::test]
async fn the_image_is_enough_when_the_environment_is_gone() {
    let bench = Bench::stopped().await;
    fs::remove_dir_all(bench.home.path("cache/environments")).unwrap();
    let read = bench.ask::<DiskRead>(json!({ "path": "src/main.rs" })).await.unwrap();
    assert_eq!(read["size_bytes"], 8);
    bench.done().await;
}

#[tokio::test]
async fn an_archive_has_the_whole_tree_and_replaces_nothing_unasked() {
    let bench = Bench::stopped().await;
    std::os::unix::fs::symlink("/etc/motd", bench.tree.join("workspace/link")).unwrap();
    let output = bench.home.path("out/all.tar");
    let asked = json!({ "output_path": output, "format": "tar" });
    let exported = bench.ask::<DiskExport>(asked.clone()).await.unwrap();
    assert_eq!((&exported["disk_format"], &exported["size_bytes"]), (&json!("tar"), &json!(null)));
    let listed = std::process::Command::new("tar").arg("-tf").arg(&output).output().unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    for name in ["./", "etc/motd", "workspace/link", "workspace/src/main.rs"] {
        assert!(names.lines().any(|line| line == name), "{name}: {names}");
    }
    let error = bench.ask::<DiskExport>(asked.clone()).await.expect_err("it is there");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let before = bench.vmm.started();
    let error = bench.ask::<DiskExport>(json!({ "output_path": output })).await;
    assert_eq!(error.expect_err("it is there").kind(), ErrorKind::Conflict);
    assert_eq!(bench.vmm.started(), before, "nothing is booted for what is refused");
    let mut again = asked;
    again["force"] = json!(true);
    bench.ask::<DiskExport>(again).await.unwrap();
    bench.done().await;
}

#[tokio::test]
async fn r13_an_export_that_fails_leaves_nothing() {
    let bench = Bench::stopped().await;
    let out = bench.home.path("out");
    // Machines that are threads have no disk to copy to, and mke2fs is not there.
    let asked = json!({ "output_path": out.join("all.ext4") });
    bench.ask::<DiskExport>(asked).await.expect_err("it cannot be made");
    let left: Vec<_> = fs::read_dir(&out).map(Iterator::collect).unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
    let stdout = json!({ "output_path": "-" });
    let error = bench.ask::<DiskExport>(stdout).await.expect_err("no file");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    bench.done().await;
}

#[tokio::test]
async fn s6_secrets_are_left_out_of_what_is_read() {
    let bench = Bench::running().await;
    let value = bench.home.path("value");
    fs::write(&value, "correct-horse-battery").unwrap();
    let secret = json!({ "name": "TOKEN", "file": value });
    bench.ask::<pyro::operation::SecretSet>(secret).await.unwrap();
    fs::write(bench.tree.join("workspace/leak"), "it is correct-horse-battery\n").unwrap();
    fs::write(bench.tree.join("workspace/correct-horse-battery"), "").unwrap();
    bench.ask::<WorkspaceStop>(json!({})).await.unwrap();
    let read = bench.ask::<DiskRead>(json!({ "path": "leak" })).await.unwrap();
    let listed = bench.ask::<DiskList>(json!({})).await.unwrap();
    for told in [read, listed] {
        assert!(!told.to_string().contains("battery"), "{told}");
    }
    bench.done().await;
}
