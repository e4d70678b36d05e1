//! What the life of a workspace must not cost.

use crate::alone::start_no_process;
use crate::fake_vmm::{FakeVmm, serve_channel};
use crate::home::{ENVIRONMENT, Home};
use crate::watch::Watch;
use futures::future::BoxFuture;
use pyro::operation::{
    DiskList, FileList, FileRead, FileSearch, FileStat, NetworkExplain, NetworkStatus, Operation,
    PortList, PortPublish, ProcessList, ProcessPoll, ProcessWait, ProcessWrite, SecretList,
    SecretSet, ServiceList, ServiceLogs, ServiceStart, ServiceStatus, ShellList, ShellOpen,
    ShellRead, ShellWrite, WorkspaceCreate, WorkspaceDelete, WorkspaceEvents, WorkspaceExec,
    WorkspaceList, WorkspaceLogs, WorkspaceReset, WorkspaceStart, WorkspaceStatus, WorkspaceStop,
};
use pyro::vmm::{Machine, Place, Started, Vmm};
use pyro::{Context, Pyro, Result};
use pyro_agent::{Guest, Phase, serve_connection};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The most that is on the disk of a workspace in which nothing was done: the
/// journal and the tables of an empty file system, and the seed.
const BYTES_MAX: u64 = 32 << 20;

/// Machines, and what each was made of.
#[derive(Clone)]
struct Recorded {
    vmm: FakeVmm,
    machines: Arc<Mutex<Vec<Machine>>>,
}

impl Recorded {
    fn honest(home: &Home) -> Self {
        let guest = home.path("guest");
        fs::create_dir_all(&guest).unwrap();
        Self { vmm: FakeVmm::honest(guest), machines: Arc::default() }
    }

    fn machines(&self) -> Vec<Machine> {
        self.machines.lock().unwrap().clone()
    }
}

impl Vmm for Recorded {
    fn start<'a>(
        &'a self,
        machine: &'a Machine,
        place: Place<'a>,
    ) -> BoxFuture<'a, Result<Started>> {
        self.machines.lock().unwrap().push(machine.clone());
        self.vmm.start(machine, place)
    }
}

async fn ask<O: Operation>(pyro: &Pyro, arguments: Value) -> O::Output {
    pyro.call(serde_json::from_value::<O>(arguments).unwrap()).await.unwrap()
}

/// Makes a workspace of this name with a seed; a name's workspace is `this`.
async fn create(pyro: &Pyro, home: &Home, name: &str) -> Value {
    let seed = home.path("seed");
    fs::create_dir_all(&seed).unwrap();
    fs::write(seed.join("file"), "content").unwrap();
    let arguments = json!({
        "environment": ENVIRONMENT, "mem_mib": 128, "name": name, "seed_path": seed,
    });
    ask::<WorkspaceCreate>(pyro, arguments).await;
    json!({ "workspace_id": name })
}

fn image(pyro: &Pyro) -> PathBuf {
    let images = pyro.config.cache_dir.join("images");
    fs::read_dir(images).unwrap().next().unwrap().unwrap().path().join("root.erofs")
}

fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let bytes = |path: PathBuf| match path.is_dir() {
        true => bytes_below(&path),
        false => path.symlink_metadata().unwrap().blocks() * 512,
    };
    entries.map(bytes).sum()
}

/// The kernel is not asked to tell of itself, and one machine is enough.
#[tokio::test]
async fn p1_a_boot_that_succeeds_is_one_and_quiet() {
    let home = Home::new();
    let vmm = Recorded::honest(&home);
    let pyro = home.pyro(vmm.clone());
    let this = create(&pyro, &home, "w").await;
    let machines = vmm.machines();
    assert_eq!(machines.len(), 1);
    assert!(!machines[0].verbose);
    ask::<WorkspaceDelete>(&pyro, this).await;
}

#[tokio::test]
async fn p2_workspaces_share_the_image_and_have_sparse_disks() {
    let home = Home::new();
    let vmm = Recorded::honest(&home);
    let pyro = home.pyro(vmm.clone());
    for name in ["one", "two"] {
        create(&pyro, &home, name).await;
    }
    for machine in vmm.machines() {
        assert_eq!(machine.root_image, image(&pyro), "no copy of it");
    }
    for workspace in home.workspaces() {
        assert!(workspace.join("disk-0.ext4").metadata().unwrap().len() >= 16 << 30);
        let bytes = bytes_below(&workspace);
        assert!(bytes < BYTES_MAX, "{} has {bytes} bytes", workspace.display());
    }
    let of = |name: &str| json!({ "workspace_id": name });
    ask::<WorkspaceReset>(&pyro, of("one")).await;
    assert_eq!(vmm.machines()[2].root_image, image(&pyro));
    for name in ["one", "two"] {
        ask::<WorkspaceDelete>(&pyro, of(name)).await;
    }
}

/// Once there is an empty file system to be copied, all is done by `pyro`, its
/// supervisor and the VMM; here the first two are threads.
#[test]
fn p8_no_process_is_started_to_create_start_reset_list_or_delete() {
    let home = Home::new();
    let vmm = Recorded::honest(&home);
    let pyro = home.pyro(vmm.clone());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime().block_on(async {
        let this = create(&pyro, &home, "first").await;
        ask::<WorkspaceDelete>(&pyro, this).await;
    });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Whoever starts one from here on ends this test.
            start_no_process().unwrap();
            runtime().block_on(async {
                let this = create(&pyro, &home, "w").await;
                ask::<WorkspaceStop>(&pyro, this.clone()).await;
                let guest = json!({ "workspace_id": "w", "path": "/guest" });
                ask::<DiskList>(&pyro, guest).await;
                ask::<WorkspaceStart>(&pyro, this.clone()).await;
                ask::<WorkspaceReset>(&pyro, this.clone()).await;
                ask::<WorkspaceDelete>(&pyro, this).await;
            });
        });
    });
    assert_eq!(vmm.machines().len(), 5);
}

#[tokio::test]
async fn p9_neither_seed_nor_image_is_read_again() {
    let home = Home::new();
    let pyro = home.pyro(Recorded::honest(&home));
    // A file that was written a moment ago is not vouched for yet.
    while !image(&pyro).with_extension("erofs.verified").exists() {
        let this = create(&pyro, &home, "early").await;
        ask::<WorkspaceDelete>(&pyro, this).await;
    }
    let image = Watch::for_reading([&*image(&pyro)]);
    let this = create(&pyro, &home, "w").await;
    let seed = home.workspaces().remove(0).join("seed.erofs");
    let seed = Watch::for_opening([&*seed]);
    ask::<WorkspaceList>(&pyro, json!({})).await;
    ask::<WorkspaceStatus>(&pyro, this.clone()).await;
    ask::<WorkspaceStop>(&pyro, this.clone()).await;
    ask::<WorkspaceStart>(&pyro, this.clone()).await;
    ask::<WorkspaceReset>(&pyro, this.clone()).await;
    assert!(!seed.heard() && !image.heard());
    ask::<WorkspaceDelete>(&pyro, this).await;
}

/// Machines with the real agent, and how many connections they had.
fn counted(home: &Home) -> (Pyro, Arc<AtomicUsize>) {
    let (guest, calls) = (home.path("guest"), Arc::new(AtomicUsize::new(0)));
    fs::create_dir_all(&guest).unwrap();
    let count = Arc::clone(&calls);
    let pyro = home.pyro(FakeVmm::new(move |inside| {
        let agent = Guest::in_process(&guest, Phase::Waiting);
        let count = Arc::clone(&count);
        serve_channel(inside.channel, move |stream, _| {
            count.fetch_add(1, Ordering::Relaxed);
            serve_connection(stream, Arc::clone(&agent))
        })
    }));
    (pyro, calls)
}

#[tokio::test]
async fn p10_waiting_takes_one_connection_however_long() {
    let home = Home::new();
    let (pyro, calls) = counted(&home);
    create(&pyro, &home, "w").await;
    let own = rustix::process::geteuid().as_raw();
    let user = format!("{own}:{}", rustix::process::getegid().as_raw());
    let exec = |command: &str, detach: bool| {
        json!({
            "workspace_id": "w", "command": command, "user": user, "detach": detach,
            "keep_stdin": detach,
        })
    };
    let id = ask::<WorkspaceExec>(&pyro, exec("exec cat", true)).await.process_id.unwrap();
    // However many an exec takes, it is so many whatever it runs.
    let made = || calls.load(Ordering::Relaxed);
    let before = made();
    ask::<WorkspaceExec>(&pyro, exec("true", false)).await;
    let of_exec = made() - before;
    let before = made();
    let poll = json!({ "workspace_id": "w", "process_id": id, "wait_seconds": 60 });
    let meanwhile = async {
        ask::<WorkspaceExec>(&pyro, exec("sleep 0.5", false)).await;
        let write = json!({ "workspace_id": "w", "process_id": id, "text": "news" });
        ask::<ProcessWrite>(&pyro, write).await;
    };
    let (polled, ()) = tokio::join!(ask::<ProcessPoll>(&pyro, poll), meanwhile);
    assert_eq!(polled.stdout, "news");
    assert_eq!(made() - before, of_exec + 2, "the poll and the write are one each");
    ask::<WorkspaceDelete>(&pyro, json!({ "workspace_id": "w" })).await;
}

/// Silence of a shell, readiness and the log of a service: one each.
#[tokio::test]
async fn p10_shells_and_services_are_waited_for_on_one_connection() {
    let home = Home::new();
    let (pyro, calls) = counted(&home);
    create(&pyro, &home, "w").await;
    let own = rustix::process::geteuid().as_raw();
    let user = format!("{own}:{}", rustix::process::getegid().as_raw());
    let of = |more: Value| {
        let mut all = json!({ "workspace_id": "w" });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let shell = ask::<ShellOpen>(&pyro, of(json!({ "user": user }))).await.shell_id;
    let type_in = async |input: &str| {
        let write = json!({ "shell_id": shell, "input": input });
        ask::<ShellWrite>(&pyro, of(write)).await;
    };
    type_in("for i in 1 2 3 4 5; do sleep 0.1; echo $i; done; echo fin''ished").await;
    let made = || calls.load(Ordering::Relaxed);
    for plain in [false, true] {
        let before = made();
        let read = json!({
            "shell_id": shell, "wait_for_idle_ms": 1000, "wait_seconds": 60, "plain": plain,
        });
        let read = ask::<ShellRead>(&pyro, of(read)).await;
        assert!(read.idle && read.output.contains("finished"), "{read:?}");
        // What a person sees takes all that is kept, once it is silent.
        assert_eq!(made() - before, 1 + usize::from(plain));
    }
    let before = made();
    let start = json!({
        "service_name": "web", "user": user, "command": "echo 1; sleep 0.5; echo 2; touch ready; \
         sleep 0.5; echo 3", "ready_file": "ready",
    });
    ask::<ServiceStart>(&pyro, of(start)).await;
    let follow = json!({ "service_name": "web", "follow": true, "all": true });
    let follow: ServiceLogs = serde_json::from_value(of(follow)).unwrap();
    let context = Context { takes_output: true, ..Context::default() };
    pyro.call_with(follow, context).await.unwrap();
    assert_eq!(made() - before, 2);
    ask::<WorkspaceDelete>(&pyro, json!({ "workspace_id": "w" })).await;
}

/// Every file of a workspace's directory with what changes when it is written;
/// that it was asked is a line in its log.
fn written(directory: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            files.extend(written(&path));
        }
        if meta.is_dir() || path.ends_with("events.jsonl") {
            continue;
        }
        files.insert(path, (meta.ino(), meta.ctime(), meta.ctime_nsec()));
    }
    files
}

#[tokio::test]
async fn p11_who_only_asks_writes_nothing_down() {
    let home = Home::new();
    let pyro = home.pyro(Recorded::honest(&home));
    let this = create(&pyro, &home, "w").await;
    let own = rustix::process::geteuid().as_raw();
    let user = format!("{own}:{}", rustix::process::getegid().as_raw());
    let of = |more: Value| {
        let mut all = this.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let exec = json!({ "command": "echo > file; exec cat", "user": user, "detach": true });
    let id = ask::<WorkspaceExec>(&pyro, of(exec)).await.process_id.unwrap();
    ask::<ProcessWait>(&pyro, of(json!({ "process_id": id }))).await;
    let shell = ask::<ShellOpen>(&pyro, of(json!({ "user": user }))).await.shell_id;
    let web = json!({ "service_name": "web" });
    let start = json!({ "service_name": "web", "command": "exec sleep 1000", "user": user });
    ask::<ServiceStart>(&pyro, of(start)).await;
    ask::<PortPublish>(&pyro, of(json!({ "ports": ["80"] }))).await;
    let value = home.path("value");
    fs::write(&value, "a value").unwrap();
    ask::<SecretSet>(&pyro, of(json!({ "name": "TOKEN", "file": value }))).await;
    let before = written(&home.workspaces().remove(0));
    assert!(before.keys().any(|path| path.ends_with("record.json")), "{before:?}");
    ask::<WorkspaceList>(&pyro, json!({})).await;
    ask::<WorkspaceStatus>(&pyro, this.clone()).await;
    ask::<WorkspaceLogs>(&pyro, this.clone()).await;
    ask::<WorkspaceEvents>(&pyro, this.clone()).await;
    ask::<ProcessList>(&pyro, this.clone()).await;
    ask::<ProcessPoll>(&pyro, of(json!({ "process_id": id }))).await;
    ask::<FileList>(&pyro, this.clone()).await;
    ask::<FileRead>(&pyro, of(json!({ "path": "file" }))).await;
    ask::<FileStat>(&pyro, of(json!({ "path": "file" }))).await;
    ask::<FileSearch>(&pyro, of(json!({ "pattern": "x" }))).await;
    ask::<ShellList>(&pyro, this.clone()).await;
    ask::<ShellRead>(&pyro, of(json!({ "shell_id": shell, "plain": true }))).await;
    ask::<ServiceList>(&pyro, this.clone()).await;
    ask::<ServiceStatus>(&pyro, of(web.clone())).await;
    ask::<ServiceLogs>(&pyro, of(web)).await;
    ask::<PortList>(&pyro, this.clone()).await;
    ask::<SecretList>(&pyro, this.clone()).await;
    ask::<NetworkStatus>(&pyro, this.clone()).await;
    ask::<NetworkExplain>(&pyro, of(json!({ "host": "pypi.org" }))).await;
    assert_eq!(written(&home.workspaces().remove(0)), before);
    ask::<WorkspaceDelete>(&pyro, this).await;
}
