//! A host that went down and came up again.

use crate::fake_vmm::FakeVmm;
use crate::home::{ENVIRONMENT, Home};
use pyro::operation::{
    Operation, WorkspaceCreate, WorkspaceDelete, WorkspaceExec, WorkspaceList, WorkspaceStop,
};
use pyro::workspace::State;
use pyro::{Context, Event, Events, Pyro};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

async fn ask<O: Operation>(pyro: &Pyro, arguments: Value) -> O::Output {
    pyro.call(serde_json::from_value::<O>(arguments).unwrap()).await.unwrap()
}

/// As a host leaves a workspace that ran when it went down: its sockets answer
/// to nobody, and nothing that was in memory is there.
pub fn as_after_a_reboot(workspace: &Path) {
    let running = json!({
        "schema_version": 1, "since": "2026-01-01T00:00:00Z",
        "ready": { "vmm_pid": 1, "boot_us": 1, "activate_us": 1 },
    });
    fs::write(workspace.join("running.json"), running.to_string()).unwrap();
    for socket in ["vmm/vsock.sock", "control.sock"] {
        drop(fs::remove_file(workspace.join(socket)));
        drop(std::os::unix::net::UnixListener::bind(workspace.join(socket)).unwrap());
    }
}

#[tokio::test]
async fn r21_what_ran_when_the_host_went_down_goes_on_where_it_was() {
    let home = Home::new();
    let guest = home.path("guest");
    fs::create_dir_all(&guest).unwrap();
    let pyro = home.pyro(FakeVmm::honest(guest));
    for name in ["ran", "rested"] {
        let create = json!({ "environment": ENVIRONMENT, "mem_mib": 128, "name": name });
        ask::<WorkspaceCreate>(&pyro, create).await;
        ask::<WorkspaceStop>(&pyro, json!({ "workspace_id": name })).await;
    }
    let ran = pyro::workspace::find::find(&pyro.config, "ran").unwrap();
    fs::write(ran.path().join("disk-0.ext4"), "what the guest wrote").unwrap();
    as_after_a_reboot(ran.path());
    // The kernel's id of the boot is another; nothing else of the host is known.
    let facts = pyro.config.cache_dir.join("host.json");
    let mut host: Value = serde_json::from_slice(&fs::read(&facts).unwrap()).unwrap();
    let this_boot = host["boot_id"].take();
    host["boot_id"] = "00000000-0000-4000-8000-000000000000".into();
    fs::write(&facts, host.to_string()).unwrap();

    let pyro = home.pyro(FakeVmm::honest(home.path("guest")));
    let state = async |name: &str| {
        let listed = ask::<WorkspaceList>(&pyro, json!({ "name": name })).await;
        listed.workspaces[0].state
    };
    assert_eq!((state("ran").await, state("rested").await), (State::Crashed, State::Stopped));
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&warnings);
    let events = Events::discard().tap(move |event| {
        if let Event::Warning(warning) = event {
            heard.lock().unwrap().push(warning.clone());
        }
    });
    let own = rustix::process::geteuid().as_raw();
    let exec = json!({
        "workspace_id": "ran", "command": "echo on",
        "user": format!("{own}:{}", rustix::process::getegid().as_raw()),
    });
    let exec: WorkspaceExec = serde_json::from_value(exec).unwrap();
    let answer = pyro.call_with(exec, Context { events, ..Context::default() }).await.unwrap();
    assert_eq!(answer.output.stdout, "on\n");
    assert!(warnings.lock().unwrap()[0].contains("started again"), "{warnings:?}");
    let disk = fs::read_to_string(ran.path().join("disk-0.ext4")).unwrap();
    assert_eq!(disk, "what the guest wrote", "it has the disk that it had");
    let host: Value = serde_json::from_slice(&fs::read(&facts).unwrap()).unwrap();
    assert_eq!(host["boot_id"], this_boot, "the host was looked at anew");
    assert_eq!(state("rested").await, State::Stopped, "nobody asked for it");
    for name in ["ran", "rested"] {
        ask::<WorkspaceDelete>(&pyro, json!({ "workspace_id": name })).await;
    }
    home.assert_nothing_left();
}
