//! I6: what only looks costs no more than looking.

use crate::alone::start_no_process;
use crate::fake_vmm::FakeVmm;
use crate::home::{ENVIRONMENT, Home};
use crate::watch::Watch;
use pyro::operation::{WorkspaceCreate, WorkspaceStop};
use serde_json::{Value, json};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// `pyro` at home there, with nothing to read.
fn pyro(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyro"));
    command.env("PYRO_HOME", home).stdin(Stdio::null());
    command
}

fn alone(mut command: Command) -> Command {
    // SAFETY: it may be called between fork and exec.
    unsafe { command.pre_exec(start_no_process) };
    command
}

#[tokio::test]
async fn i6_looking_opens_no_image_and_starts_no_process() {
    let home = Home::new();
    let guest = home.path("guest");
    std::fs::create_dir_all(&guest).unwrap();
    let within = home.pyro(FakeVmm::honest(guest));
    let create = json!({ "environment": ENVIRONMENT, "mem_mib": 128, "name": "w" });
    let create: WorkspaceCreate = serde_json::from_value(create).unwrap();
    within.call(create).await.unwrap();
    let stop: WorkspaceStop = serde_json::from_value(json!({ "workspace_id": "w" })).unwrap();
    within.call(stop).await.unwrap();

    let image = within.config.cache_dir.join("images");
    let image = std::fs::read_dir(image).unwrap().next().unwrap().unwrap().path();
    let workspace = home.workspaces().remove(0);
    let files =
        [image.join("root.erofs"), workspace.join("seed.erofs"), workspace.join("disk-0.ext4")];
    let watch = Watch::for_opening(files.iter().map(|file| &**file));
    // `env inspect` is not among them: to verify an image is what it is for.
    for words in [
        "--version",
        "--help",
        "workspace list --json",
        "workspace status w --json",
        "workspace logs w --json",
        "workspace events w --json",
        "env list --json",
    ] {
        let mut command = alone(pyro(&home.path("")));
        let output = command.args(words.split(' ')).output().unwrap();
        assert!(output.status.success(), "{words}: {output:?}");
        assert!(!watch.heard(), "{words} opens an image or a disk");
        if words.ends_with("--json") {
            serde_json::from_slice::<Value>(&output.stdout).unwrap();
        }
    }
    // The eye and the leash work.
    drop(std::fs::File::open(&files[0]).unwrap());
    assert!(watch.heard());
    let mut shell = Command::new("sh");
    shell.args(["-c", "true | true"]);
    assert_eq!(alone(shell).status().unwrap().signal(), Some(libc::SIGSYS));
}
