//! Workspaces that are kept, on machines without a VMM.

use crate::fake_vmm::{FakeVmm, serve_agent};
use crate::home::{DEADLINES, ENVIRONMENT, Home};
use pyro::operation::workspace::WorkspaceSummary;
use pyro::operation::{
    Operation, WorkspaceCreate, WorkspaceDelete, WorkspaceList, WorkspaceReset, WorkspaceStart,
    WorkspaceStatus, WorkspaceStop, WorkspaceUpdate,
};
use pyro::workspace::{Live, Place, State};
use pyro::{Context, ErrorKind, Pyro};
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

fn ask<O: Operation>(arguments: Value) -> O {
    serde_json::from_value(arguments).unwrap()
}

async fn create(pyro: &Pyro, more: Value) -> pyro::Result<WorkspaceSummary> {
    let mut arguments = json!({ "environment": ENVIRONMENT, "mem_mib": 128 });
    arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pyro.call(ask::<WorkspaceCreate>(arguments)).await
}

async fn state(pyro: &Pyro, workspace: &str) -> State {
    pyro.call(ask::<WorkspaceStatus>(json!({ "workspace_id": workspace })))
        .await
        .unwrap()
        .workspace
        .state
}

/// Machines with the real agent in them.
fn honest(home: &Home) -> FakeVmm {
    let workspace = home.path("guest");
    fs::create_dir_all(&workspace).unwrap();
    FakeVmm::honest(workspace)
}

#[tokio::test]
async fn it_lives_until_it_is_deleted() {
    let home = Home::new();
    let pyro = home.pyro(honest(&home));
    let made = create(&pyro, json!({ "name": "first", "labels": { "a": "b" } })).await.unwrap();
    assert_eq!((made.state, made.name.as_deref()), (State::Running, Some("first")));
    // Another process finds it: only files tell.
    let other = home.pyro(honest(&home));
    for reference in ["first", &made.workspace_id, &made.workspace_id[..4]] {
        assert_eq!(state(&other, reference).await, State::Running, "{reference}");
    }
    let stop = ask::<WorkspaceStop>(json!({ "workspace_id": "first" }));
    assert_eq!(other.call(stop).await.unwrap().state, State::Stopped);
    let error = Live::open(&other, "first", &Context::default()).await.expect_err("stopped");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.next_step().is_some_and(|hint| hint.contains("workspace start")), "{error:?}");
    let start = ask::<WorkspaceStart>(json!({ "workspace_id": "first" }));
    assert_eq!(other.call(start.clone()).await.unwrap().state, State::Running);
    assert_eq!(other.call(start).await.unwrap().state, State::Running, "it is left alone");
    Live::open(&pyro, "first", &Context::default()).await.expect("it runs");
    let delete = ask::<WorkspaceDelete>(json!({ "workspace_id": "first" }));
    assert!(pyro.call(delete.clone()).await.unwrap().deleted);
    let error = pyro.call(delete).await.expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let again = json!({ "workspace_id": "first", "ignore_missing": true });
    assert!(!pyro.call(ask::<WorkspaceDelete>(again)).await.unwrap().deleted);
    home.assert_nothing_left();
}

#[tokio::test]
async fn names_and_prefixes_mean_one_or_none() {
    let home = Home::new();
    let pyro = home.pyro(honest(&home));
    let one = create(&pyro, json!({ "name": "alpha" })).await.unwrap();
    let error = create(&pyro, json!({ "name": "alpha" })).await.expect_err("taken");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let two =
        create(&pyro, json!({ "name": "beta", "labels": { "side": "right" } })).await.unwrap();
    let rename = json!({ "workspace_id": "beta", "name": "alpha" });
    let error = pyro.call(ask::<WorkspaceUpdate>(rename)).await.expect_err("taken");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let error = pyro
        .call(ask::<WorkspaceStatus>(json!({ "workspace_id": "no such" })))
        .await
        .expect_err("none");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    // The most recently used first.
    let label = json!({ "workspace_id": "alpha", "labels": { "side": "left" } });
    pyro.call(ask::<WorkspaceUpdate>(label)).await.unwrap();
    let ids = async |filter: Value| {
        let listed = pyro.call(ask::<WorkspaceList>(filter)).await.unwrap();
        listed.workspaces.into_iter().map(|w| w.workspace_id).collect::<Vec<_>>()
    };
    assert_eq!(ids(json!({})).await, [&*one.workspace_id, &*two.workspace_id]);
    assert_eq!(ids(json!({ "labels": { "side": "right" } })).await, [&*two.workspace_id]);
    assert_eq!(ids(json!({ "name": "alph" })).await, [&*one.workspace_id]);
    assert!(ids(json!({ "name": "alpha", "labels": { "side": "right" } })).await.is_empty());
    for workspace in ["alpha", "beta"] {
        let delete = json!({ "workspace_id": workspace });
        pyro.call(ask::<WorkspaceDelete>(delete)).await.unwrap();
    }
    home.assert_nothing_left();
}

#[tokio::test]
async fn r14_what_cannot_be_made_leaves_nothing() {
    let home = Home::new();
    let fails = FakeVmm::new(|_| async { "exited with status 1".into() });
    let started = fails.clone();
    let pyro = home.pyro(fails);
    let wrong = [
        json!({ "name": "a/b" }),
        json!({ "labels": { "": "x" } }),
        json!({ "seed_path": "/no/such/place" }),
        json!({ "environment": "no:such" }),
        json!({ "mem_mib": 1 << 30 }),
    ];
    for more in wrong {
        create(&pyro, more.clone()).await.expect_err(&more.to_string());
        home.assert_nothing_left();
    }
    assert_eq!(started.started(), 0, "nothing was booted in vain");
    let error = create(&pyro, json!({})).await.expect_err("no guest comes up");
    assert_eq!(error.kind(), ErrorKind::BootFailed);
    home.assert_nothing_left();
}

#[tokio::test]
async fn cancelled_while_it_boots_it_never_was() {
    let home = Home::new();
    let (booting, heard) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let tell = Arc::clone(&booting);
    let silent = FakeVmm::new(move |inside| {
        let tell = Arc::clone(&tell);
        async move {
            tell.notify_one();
            let _kept = inside;
            std::future::pending().await
        }
    });
    let pyro = home.pyro(silent);
    let context = Context::default();
    let cancel = context.cancel.clone();
    let creating = async {
        let create = ask::<WorkspaceCreate>(json!({ "environment": ENVIRONMENT, "mem_mib": 128 }));
        let error = pyro.call_with(create, context).await.expect_err("cancelled");
        heard.notify_one();
        error
    };
    let (error, ()) = tokio::join!(creating, async {
        booting.notified().await;
        cancel.cancel();
        heard.notified().await;
    });
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    home.assert_nothing_left();
}

/// Machines that end when they are told to, as if their VMM had died.
fn mortal(home: &Home) -> (FakeVmm, Arc<Notify>) {
    let die = Arc::new(Notify::new());
    let (told, workspace) = (Arc::clone(&die), home.path("guest"));
    fs::create_dir_all(&workspace).unwrap();
    let vmm = FakeVmm::new(move |inside| {
        let (told, workspace) = (Arc::clone(&told), workspace.clone());
        async move {
            tokio::select! {
                how = serve_agent(inside.channel, workspace) => how,
                () = told.notified() => "was killed by signal 9".into(),
            }
        }
    });
    (vmm, die)
}

/// The event log says what came of it, and the next command finds it.
pub async fn await_state(place: &Place, wanted: State) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while place.state() != wanted {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("it is {:?}, not {wanted:?}", place.state()));
}

#[tokio::test]
async fn r10_one_that_went_away_is_known_at_once_and_started_again() {
    let home = Home::new();
    let (vmm, die) = mortal(&home);
    let pyro = home.pyro(vmm);
    let made = create(&pyro, json!({})).await.unwrap();
    let place = pyro::workspace::find::find(&pyro.config, &made.workspace_id).unwrap();
    die.notify_one();
    await_state(&place, State::Crashed).await;
    let events = fs::read_to_string(place.path().join("events.jsonl")).unwrap();
    assert!(events.contains(r#""event":"crashed","how":"was killed by signal 9""#), "{events}");
    let (events, mut heard) = pyro::Events::channel();
    let context = Context { events, ..Context::default() };
    let (live, warned) = tokio::join!(
        async {
            let live = Live::open(&pyro, &made.workspace_id, &context).await;
            drop(context);
            live
        },
        async {
            let mut warned = false;
            while let Some(event) = heard.recv().await {
                warned |= matches!(event, pyro::Event::Warning(_));
            }
            warned
        }
    );
    live.expect("it was started again");
    assert!(warned, "nobody is left in the dark about it");
    let stop = ask::<WorkspaceStop>(json!({ "workspace_id": made.workspace_id }));
    pyro.call(stop).await.unwrap();
    // One that crashed is stopped without more ado.
    pyro.call(ask::<WorkspaceStart>(json!({ "workspace_id": made.workspace_id }))).await.unwrap();
    die.notify_one();
    await_state(&place, State::Crashed).await;
    let stop = ask::<WorkspaceStop>(json!({ "workspace_id": made.workspace_id }));
    assert_eq!(pyro.call(stop).await.unwrap().state, State::Stopped);
}

#[tokio::test]
async fn r13_a_reset_that_fails_keeps_the_old_disk() {
    let home = Home::new();
    let broken = Arc::new(AtomicBool::new(false));
    let (is_broken, workspace) = (Arc::clone(&broken), home.path("guest"));
    fs::create_dir_all(&workspace).unwrap();
    let pyro = home.pyro(FakeVmm::new(move |inside| {
        let (is_broken, workspace) = (Arc::clone(&is_broken), workspace.clone());
        async move {
            match is_broken.load(Ordering::Relaxed) {
                true => "exited with status 1".into(),
                false => serve_agent(inside.channel, workspace).await,
            }
        }
    }));
    let made = create(&pyro, json!({})).await.unwrap();
    let place = pyro::workspace::find::find(&pyro.config, &made.workspace_id).unwrap();
    let disks = || {
        let names = fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name());
        let mut disks: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
        disks.retain(|name| name.starts_with("disk-"));
        disks
    };
    assert_eq!(disks(), ["disk-0.ext4"]);
    broken.store(true, Ordering::Relaxed);
    let reset = ask::<WorkspaceReset>(json!({ "workspace_id": made.workspace_id }));
    let error = pyro.call(reset.clone()).await.expect_err("no guest comes up");
    assert_eq!(error.kind(), ErrorKind::BootFailed);
    assert_eq!((disks(), place.state()), (vec!["disk-0.ext4".into()], State::Stopped));
    broken.store(false, Ordering::Relaxed);
    let after = pyro.call(reset).await.unwrap();
    assert_eq!((after.workspace.reset_count, after.workspace.state), (1, State::Running));
    assert!(after.workspace.last_reset_at.is_some());
    assert_eq!(disks(), ["disk-1.ext4"]);
    let delete = ask::<WorkspaceDelete>(json!({ "workspace_id": made.workspace_id }));
    pyro.call(delete).await.unwrap();
    home.assert_nothing_left();
}

#[tokio::test]
async fn r3_a_damaged_record_harms_only_itself() {
    let home = Home::new();
    let pyro = home.pyro(honest(&home));
    let (well, ill) =
        (create(&pyro, json!({})).await.unwrap(), create(&pyro, json!({})).await.unwrap());
    let place = pyro::workspace::find::find(&pyro.config, &ill.workspace_id).unwrap();
    fs::write(place.path().join("record.json"), "{ torn").unwrap();
    let listed = pyro.call(WorkspaceList::default()).await.unwrap();
    let find = |id: &str| listed.workspaces.iter().find(|w| w.workspace_id == id).unwrap();
    assert_eq!(find(&well.workspace_id).problem, None);
    assert_eq!(find(&ill.workspace_id).state, State::Damaged);
    assert_eq!(state(&pyro, &well.workspace_id).await, State::Running);
    let status = ask::<WorkspaceStatus>(json!({ "workspace_id": ill.workspace_id }));
    let error = pyro.call(status).await.expect_err("it is damaged");
    assert_eq!(error.kind(), ErrorKind::StateCorrupt);
    create(&pyro, json!({ "name": "new" })).await.expect("others can be made");
    let delete = ask::<WorkspaceDelete>(json!({ "workspace_id": ill.workspace_id }));
    assert!(pyro.call(delete).await.unwrap().deleted, "it can be removed");
}

#[tokio::test]
async fn r2_concurrent_changes_are_all_there() {
    let home = Home::new();
    let pyro = home.pyro(honest(&home));
    let made = create(&pyro, json!({})).await.unwrap();
    let changes = (0..16).map(|n| {
        let labels = json!({ format!("k{n}"): "v" });
        let update = json!({ "workspace_id": made.workspace_id, "labels": labels });
        pyro.call(ask::<WorkspaceUpdate>(update))
    });
    for changed in futures::future::join_all(changes).await {
        changed.unwrap();
    }
    let status = ask::<WorkspaceStatus>(json!({ "workspace_id": made.workspace_id }));
    assert_eq!(pyro.call(status).await.unwrap().workspace.labels.len(), 16);
}

#[tokio::test]
async fn r8_its_time_stops_it_and_can_be_renewed() {
    let home = Home::new();
    let pyro = home.pyro(honest(&home));
    let made = create(&pyro, json!({ "ttl_seconds": 3600 })).await.unwrap();
    let place = pyro::workspace::find::find(&pyro.config, &made.workspace_id).unwrap();
    assert!(made.expires_at.is_some());
    // As if an hour had passed.
    let expire = |record: &mut pyro::workspace::Record| {
        if let Some(ttl) = &mut record.ttl {
            ttl.expires_at = jiff::Timestamp::UNIX_EPOCH;
        }
        Ok(())
    };
    place.change(expire).await.unwrap();
    let live = Live::open(&pyro, &made.workspace_id, &Context::default()).await.unwrap();
    let running = live.agent().connect().await.expect("a call that is underway");
    let order = pyro::supervisor::order::ReadTtl;
    pyro::supervisor::control::give(order, place.path(), DEADLINES.reply).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(place.state(), State::Running, "a call defers it");
    drop(running);
    await_state(&place, State::Stopped).await;
    let start = ask::<WorkspaceStart>(json!({ "workspace_id": made.workspace_id }));
    let started = pyro.call(start).await.unwrap();
    assert!(started.expires_at > Some(jiff::Timestamp::now()), "its time begins anew");
    let renew = json!({ "workspace_id": made.workspace_id, "ttl_seconds": 7200 });
    let renewed = pyro.call(ask::<WorkspaceUpdate>(renew)).await.unwrap();
    assert!(renewed.expires_at > started.expires_at);
    let forever = json!({ "workspace_id": made.workspace_id, "clear_ttl": true });
    assert_eq!(pyro.call(ask::<WorkspaceUpdate>(forever)).await.unwrap().expires_at, None);
}

#[tokio::test]
async fn many_who_start_and_stop_one_get_in_nobodys_way() {
    let home = Home::new();
    let vmm = honest(&home);
    let pyro = home.pyro(vmm);
    let made = create(&pyro, json!({})).await.unwrap();
    let done = AtomicUsize::new(0);
    let asked = (0..12).map(|n| {
        let (pyro, done) = (&pyro, &done);
        let id = json!({ "workspace_id": made.workspace_id });
        async move {
            match n % 3 {
                0 => pyro.call(ask::<WorkspaceStop>(id)).await.map(drop).unwrap(),
                1 => pyro.call(ask::<WorkspaceStart>(id)).await.map(drop).unwrap(),
                _ => pyro.call(ask::<WorkspaceReset>(id)).await.map(drop).unwrap(),
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    });
    futures::future::join_all(asked).await;
    assert_eq!(done.into_inner(), 12);
    let delete = ask::<WorkspaceDelete>(json!({ "workspace_id": made.workspace_id }));
    pyro.call(delete).await.unwrap();
    home.assert_nothing_left();
}

#[tokio::test]
async fn r12_a_stop_is_in_good_order() {
    let home = Home::new();
    let pyro = home.pyro(honest(&home));
    let made = create(&pyro, json!({})).await.unwrap();
    let place = pyro::workspace::find::find(&pyro.config, &made.workspace_id).unwrap();
    let stop = ask::<WorkspaceStop>(json!({ "workspace_id": made.workspace_id }));
    pyro.call(stop).await.unwrap();
    let events = fs::read_to_string(place.path().join("events.jsonl")).unwrap();
    assert!(events.contains(r#""event":"stopped","by":"request","clean":true"#), "{events}");
}

/// One boots for as long as it likes; that is nobody else's affair.
#[tokio::test]
async fn r18_a_slow_start_blocks_nobody() {
    let home = Home::new();
    let (booting, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait, first) =
        (Arc::clone(&booting), Arc::clone(&go_on), Arc::new(AtomicBool::new(true)));
    let workspace = home.path("guest");
    fs::create_dir_all(&workspace).unwrap();
    let pyro = home.pyro(FakeVmm::new(move |inside| {
        let (tell, wait, workspace) = (Arc::clone(&tell), Arc::clone(&wait), workspace.clone());
        let is_first = first.swap(false, Ordering::Relaxed);
        async move {
            if is_first {
                tell.notify_one();
                wait.notified().await;
            }
            serve_agent(inside.channel, workspace).await
        }
    }));
    let others = async {
        booting.notified().await;
        let quick = create(&pyro, json!({ "name": "quick" })).await.unwrap();
        assert_eq!(state(&pyro, "quick").await, State::Running);
        let listed = pyro.call(WorkspaceList::default()).await.unwrap();
        assert_eq!(listed.count, 1, "what is not made yet is not there");
        go_on.notify_one();
        quick
    };
    let (slow, quick) = tokio::join!(create(&pyro, json!({ "name": "slow" })), others);
    assert_ne!(slow.unwrap().workspace_id, quick.workspace_id);
}

#[tokio::test]
async fn r24_there_is_no_number_of_workspaces_that_is_too_many() {
    let home = Home::new();
    let pyro = home.pyro(honest(&home));
    let making = (0..10).map(|_| create(&pyro, json!({})));
    for made in futures::future::join_all(making).await {
        let stop = ask::<WorkspaceStop>(json!({ "workspace_id": made.unwrap().workspace_id }));
        pyro.call(stop).await.unwrap();
    }
    create(&pyro, json!({})).await.expect("stopped ones take no place");
    assert_eq!(pyro.call(WorkspaceList::default()).await.unwrap().count, 11);
}

/// What a record says of processes is history: this very one is named in it,
/// and lives.
#[tokio::test]
async fn s5_no_recorded_process_id_is_trusted() {
    let home = Home::new();
    let pyro = home.pyro(honest(&home));
    let made = create(&pyro, json!({})).await.unwrap();
    let place = pyro::workspace::find::find(&pyro.config, &made.workspace_id).unwrap();
    let stop = ask::<WorkspaceStop>(json!({ "workspace_id": made.workspace_id }));
    pyro.call(stop.clone()).await.unwrap();
    let running = json!({
        "schema_version": 1, "since": "2026-01-01T00:00:00Z",
        "ready": { "vmm_pid": std::process::id(), "boot_us": 1, "activate_us": 1 },
    });
    fs::write(place.path().join("running.json"), running.to_string()).unwrap();
    assert_eq!(place.state(), State::Crashed, "nobody holds its lock");
    assert_eq!(pyro.call(stop).await.unwrap().state, State::Stopped);
    let delete = ask::<WorkspaceDelete>(json!({ "workspace_id": made.workspace_id }));
    assert!(pyro.call(delete).await.unwrap().deleted);
}
