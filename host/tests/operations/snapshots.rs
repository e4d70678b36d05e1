//! Snapshots of a workspace's disk, and workspaces made from others.

use crate::fake_vmm::FakeVmm;
use crate::home::{ENVIRONMENT, Home};
use pyro::event_log::{EventLog, Happening};
use pyro::operation::workspace::{SnapshotReport, SnapshotState};
use pyro::operation::{
    Operation, SnapshotCreate, SnapshotDelete, SnapshotList, SnapshotRename, WorkspaceCreate,
    WorkspaceDelete, WorkspacePause, WorkspaceReset, WorkspaceStart, WorkspaceStatus,
    WorkspaceStop,
};
use pyro::store::lock::{Lock, Mode};
use pyro::workspace::{Place, State};
use pyro::{Context, ErrorKind, Event, Events, Pyro};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex};

/// Where on its disk a guest of these tests writes.
const AT: u64 = 40 << 20;

pub struct Bench {
    pub home: Home,
    pub vmm: FakeVmm,
    pub pyro: Pyro,
    pub place: Place,
}

impl Bench {
    pub async fn new() -> Self {
        let home = Home::new();
        fs::create_dir_all(home.path("guest")).unwrap();
        let vmm = FakeVmm::honest(home.path("guest"));
        let pyro = home.pyro(vmm.clone());
        let wanted = json!({ "environment": ENVIRONMENT, "mem_mib": 256, "name": "w" });
        pyro.call(serde_json::from_value::<WorkspaceCreate>(wanted).unwrap()).await.unwrap();
        let place = pyro::workspace::find::find(&pyro.config, "w").unwrap();
        Self { home, vmm, pyro, place }
    }

    pub async fn ask<O: Operation>(&self, more: Value) -> pyro::Result<O::Output> {
        let mut asked = json!({ "workspace_id": "w" });
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.pyro.call(serde_json::from_value::<O>(asked).unwrap()).await
    }

    pub async fn snapshot(&self, name: &str) -> pyro::Result<SnapshotReport> {
        let answer = self.ask::<SnapshotCreate>(json!({ "snapshot_name": name })).await?;
        Ok(answer.snapshot)
    }

    pub async fn create(&self, asked: Value) -> pyro::Result<Place> {
        let create: WorkspaceCreate = serde_json::from_value(asked).unwrap();
        let made = self.pyro.call(create).await?;
        Ok(pyro::workspace::find::find(&self.pyro.config, &made.workspace_id).unwrap())
    }

    pub async fn listed(&self) -> Vec<(String, SnapshotState)> {
        let listed = self.ask::<SnapshotList>(json!({})).await.unwrap();
        assert_eq!(listed.count, listed.snapshots.len());
        let each = listed.snapshots.into_iter();
        each.map(|snapshot| (snapshot.snapshot_name, snapshot.state)).collect()
    }

    /// As its guest does.
    fn write(&self, what: &[u8; 4]) {
        let disk = self.place.path().join(self.place.record().unwrap().disk);
        File::options().write(true).open(disk).unwrap().write_all_at(what, AT).unwrap();
    }
}

fn read(place: &Place) -> [u8; 4] {
    let mut what = [0; 4];
    let disk = place.path().join(place.record().unwrap().disk);
    File::open(disk).unwrap().read_exact_at(&mut what, AT).unwrap();
    what
}

#[tokio::test]
async fn r15_a_workspace_goes_back_to_its_whole_disk() {
    let bench = Bench::new().await;
    bench.write(b"then");
    let taken = bench.snapshot("tested").await.unwrap();
    assert_eq!((taken.state, taken.deletable), (SnapshotState::Unverified, true));
    assert!(taken.size_bytes > 0);
    bench.write(b"now!");
    let reset = bench.ask::<WorkspaceReset>(json!({ "snapshot": "tested" })).await.unwrap();
    assert_eq!(reset.workspace_reset.snapshot_name, "tested");
    assert_eq!((reset.workspace.state, reset.workspace.reset_count), (State::Running, 1));
    assert_eq!(&read(&bench.place), b"then");
    // A guest has answered on it; and it is not what the guest writes now.
    bench.write(b"more");
    let listed = bench.listed().await;
    let good = |name: &str| (name.to_owned(), SnapshotState::Good);
    assert_eq!(listed, [good("baseline"), good("tested")]);
    bench.ask::<WorkspaceReset>(json!({ "snapshot": "tested" })).await.unwrap();
    assert_eq!(&read(&bench.place), b"then");
    bench.ask::<WorkspaceReset>(json!({ "snapshot": "baseline" })).await.unwrap();
    assert_eq!(&read(&bench.place), &[0; 4]);
    let told = EventLog::within(bench.place.path()).newest(100).unwrap();
    let resets = told.into_iter().filter_map(|line| {
        let Happening::Reset { snapshot } = line.happening else { return None };
        Some(snapshot)
    });
    let tested = || Some("tested".to_owned());
    assert_eq!(resets.collect::<Vec<_>>(), [tested(), tested(), None]);
}

#[tokio::test]
async fn one_that_is_verified_is_good_at_once() {
    let bench = Bench::new().await;
    let started = bench.vmm.started();
    let asked = json!({ "snapshot_name": "seen", "verify": true });
    let answer = bench.ask::<SnapshotCreate>(asked).await.unwrap();
    assert_eq!(answer.snapshot.state, SnapshotState::Good);
    assert_eq!(bench.vmm.started(), started + 1, "a guest has looked at it");
    assert_eq!(bench.place.state(), State::Running);
}

#[tokio::test]
async fn p9_each_is_whole_by_itself_whatever_becomes_of_others() {
    let bench = Bench::new().await;
    for (name, what) in [("one", b"1111"), ("two", b"2222"), ("three", b"3333")] {
        bench.write(what);
        bench.snapshot(name).await.unwrap();
    }
    let named = |name: &str| json!({ "snapshot_name": name });
    let deleted = bench.ask::<SnapshotDelete>(named("two")).await.unwrap();
    assert!(deleted.deleted);
    let again = json!({ "snapshot_name": "two", "ignore_missing": true });
    assert!(!bench.ask::<SnapshotDelete>(again).await.unwrap().deleted);
    let renamed = json!({ "snapshot_name": "one", "new_name": "first" });
    bench.ask::<SnapshotRename>(renamed).await.unwrap();
    let names: Vec<_> = bench.listed().await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["baseline", "three", "first"], "the newest first");
    bench.ask::<WorkspaceReset>(json!({ "snapshot": "first" })).await.unwrap();
    assert_eq!(&read(&bench.place), b"1111");
    bench.ask::<WorkspaceReset>(json!({ "snapshot": "three" })).await.unwrap();
    assert_eq!(&read(&bench.place), b"3333");
    let left: Vec<_> = fs::read_dir(bench.place.path().join("snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !matches!(name.as_str(), "first" | "three" | ".lock"))
        .flat_map(|name| fs::read_dir(bench.place.path().join("snapshots").join(name)).unwrap())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn what_is_asked_of_what_is_not_there_is_refused_and_nothing_is_lost() {
    let bench = Bench::new().await;
    bench.write(b"kept");
    bench.snapshot("there").await.unwrap();
    let error = bench.snapshot("there").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.next_step().unwrap().contains("snapshot delete"), "{error:?}");
    let absent = [
        bench.ask::<WorkspaceReset>(json!({ "snapshot": "gone" })).await.map(drop),
        bench.ask::<SnapshotDelete>(json!({ "snapshot_name": "gone" })).await.map(drop),
        bench
            .ask::<SnapshotRename>(json!({ "snapshot_name": "gone", "new_name": "x" }))
            .await
            .map(drop),
        bench.create(json!({ "from": "w@gone" })).await.map(drop),
    ];
    for refused in absent {
        let error = refused.expect_err("there is none");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.next_step().unwrap().contains("snapshot list"), "{error:?}");
    }
    bench.snapshot("other").await.unwrap();
    let taken = json!({ "snapshot_name": "other", "new_name": "there" });
    let error = bench.ask::<SnapshotRename>(taken).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let status = bench.ask::<WorkspaceStatus>(json!({})).await.unwrap();
    assert_eq!((status.workspace.state, status.workspace.reset_count), (State::Running, 0));
    assert_eq!(bench.listed().await.len(), 3);
    for bad in ["", "baseline", "../x", ".hidden", "a/b", &"x".repeat(65)] {
        let asked = json!({ "workspace_id": "w", "snapshot_name": bad });
        assert!(serde_json::from_value::<SnapshotCreate>(asked).is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn one_that_is_stopped_or_paused_stays_so() {
    let bench = Bench::new().await;
    bench.write(b"then");
    bench.ask::<WorkspacePause>(json!({})).await.unwrap();
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let heard = warnings.clone();
    let events = Events::discard().tap(move |event| {
        if let Event::Warning(warning) = event {
            heard.lock().unwrap().push(warning.clone());
        }
    });
    let asked = json!({ "workspace_id": "w", "snapshot_name": "paused" });
    let create: SnapshotCreate = serde_json::from_value(asked).unwrap();
    let context = Context { events, ..Context::default() };
    bench.pyro.call_with(create, context).await.unwrap();
    assert!(warnings.lock().unwrap()[0].contains("in its memory only"));
    assert_eq!(bench.place.state(), State::Paused);
    bench.ask::<WorkspaceStop>(json!({})).await.unwrap();
    let taken = bench.snapshot("stopped").await.unwrap();
    assert_eq!(taken.still_ms, Some(0));
    assert_eq!(bench.place.state(), State::Stopped);
    bench.write(b"now!");
    for name in ["paused", "stopped"] {
        bench.ask::<WorkspaceReset>(json!({ "snapshot": name })).await.unwrap();
        assert_eq!(&read(&bench.place), b"then", "{name}");
        bench.write(b"now!");
    }
}

/// The VMM of a supervisor that was killed may write for a moment longer.
#[tokio::test]
async fn r12_nothing_is_copied_while_a_dying_machine_may_write() {
    let bench = Bench::new().await;
    bench.ask::<WorkspaceStop>(json!({})).await.unwrap();
    let dying = bench.place.path().join("vmm.lock");
    let dying = Lock::try_take(&dying, Mode::Exclusive).unwrap().expect("it has gone");
    let (copying, mut copies) = tokio::sync::mpsc::unbounded_channel();
    let events = Events::discard().tap(move |event| {
        if let Event::Stage { name: "copying", .. } = event {
            copying.send(()).unwrap();
        }
    });
    let asked = json!({ "workspace_id": "w", "snapshot_name": "s" });
    let create: SnapshotCreate = serde_json::from_value(asked).unwrap();
    let context = Context { events, ..Context::default() };
    let taking = bench.pyro.call_with(create, context);
    let (taken, ()) = tokio::join!(taking, async {
        copies.recv().await.expect("it begins");
        bench.write(b"last");
        drop(dying);
    });
    taken.unwrap();
    bench.write(b"now!");
    bench.ask::<WorkspaceReset>(json!({ "snapshot": "s" })).await.unwrap();
    assert_eq!(&read(&bench.place), b"last");
}

#[tokio::test]
async fn r9_what_a_killed_caller_left_is_swept_and_never_listed() {
    let bench = Bench::new().await;
    bench.snapshot("whole").await.unwrap();
    let snapshots = bench.place.path().join("snapshots");
    for left in [".making/0123456789abcdef", ".gone-old"] {
        fs::create_dir_all(snapshots.join(left)).unwrap();
        fs::write(snapshots.join(left).join("disk.ext4"), "half").unwrap();
    }
    assert_eq!(bench.listed().await.len(), 2);
    bench.snapshot("next").await.unwrap();
    assert!(!snapshots.join(".gone-old").exists());
    assert_eq!(fs::read_dir(snapshots.join(".making")).unwrap().count(), 0);
    // One that is damaged harms only itself.
    fs::write(snapshots.join("whole/snapshot.json"), "{").unwrap();
    let listed = bench.listed().await;
    assert_eq!(
        listed[1..],
        [
            ("next".to_owned(), SnapshotState::Unverified),
            ("whole".to_owned(), SnapshotState::Damaged)
        ]
    );
}

#[tokio::test]
async fn r2_many_who_take_one_at_once_get_one_each() {
    let bench = Bench::new().await;
    let names: Vec<_> = (0..6).map(|n| format!("s{n}")).collect();
    let taking = names.iter().map(|name| bench.snapshot(name));
    let same = (0..3).map(|_| bench.snapshot("same"));
    let (taken, same) =
        tokio::join!(futures::future::join_all(taking), futures::future::join_all(same));
    assert!(taken.iter().all(Result::is_ok), "{taken:?}");
    assert_eq!(same.iter().filter(|taken| taken.is_ok()).count(), 1, "{same:?}");
    assert_eq!(bench.listed().await.len(), 8);
}

#[tokio::test]
async fn another_begins_with_what_it_has_and_goes_its_own_way() {
    let bench = Bench::new().await;
    bench.write(b"then");
    bench.snapshot("tested").await.unwrap();
    bench.write(b"now!");
    let live = bench.create(json!({ "from": "w", "name": "live" })).await.unwrap();
    let then = bench.create(json!({ "from": "w@tested", "mem_mib": 128 })).await.unwrap();
    let fresh = bench.create(json!({ "from": "w@baseline", "labels": { "a": "b" } })).await;
    let fresh = fresh.unwrap();
    assert_eq!([read(&live), read(&then), read(&fresh)], [*b"now!", *b"then", [0; 4]]);
    bench.write(b"more");
    assert_eq!(&read(&live), b"now!");
    let (source, record) = (bench.place.record().unwrap(), then.record().unwrap());
    assert_eq!((record.seed, record.root_digest), (source.seed, source.root_digest));
    assert_eq!((record.mem_mib, live.record().unwrap().mem_mib), (128, 256));
    let from = record.forked_from.unwrap();
    assert_eq!(from.workspace_id, bench.place.id().to_string());
    assert_eq!(from.snapshot_name.as_deref(), Some("tested"));
    assert_eq!(bench.listed().await[1].1, SnapshotState::Good, "a guest has answered on it");
    // They need nothing of it.
    let seed = |place: &Place| fs::metadata(place.path().join("seed.erofs")).unwrap();
    assert_eq!(seed(&live).ino(), seed(&bench.place).ino());
    bench.ask::<WorkspaceDelete>(json!({})).await.unwrap();
    for place in [&live, &then, &fresh] {
        let of = json!({ "workspace_id": place.id().to_string() });
        for _ in 0..2 {
            bench
                .pyro
                .call(serde_json::from_value::<WorkspaceStop>(of.clone()).unwrap())
                .await
                .unwrap();
            bench
                .pyro
                .call(serde_json::from_value::<WorkspaceStart>(of.clone()).unwrap())
                .await
                .unwrap();
        }
        bench.pyro.call(serde_json::from_value::<WorkspaceDelete>(of).unwrap()).await.unwrap();
    }
    bench.home.assert_nothing_left();
}

#[tokio::test]
async fn what_contradicts_itself_makes_nothing() {
    let bench = Bench::new().await;
    let started = bench.vmm.started();
    for asked in [
        json!({}),
        json!({ "environment": ENVIRONMENT, "from": "w" }),
        json!({ "from": "w", "disk_mib": 128 }),
        json!({ "from": "w", "seed_path": "/tmp" }),
    ] {
        let error = bench.create(asked.clone()).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{asked}");
        assert!(error.next_step().is_some(), "{asked}");
    }
    let error = bench.create(json!({ "from": "nobody" })).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(bench.vmm.started(), started);
}
