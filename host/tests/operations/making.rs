//! The instant between the rename that makes a workspace official and its
//! supervisor's word that it is kept.

use crate::fake_vmm::{FakeVmm, serve_agent};
use crate::home::{ENVIRONMENT, Home};
use futures::future::{Either, select};
use pyro::operation::{WorkspaceCreate, WorkspaceDelete, WorkspaceStart, WorkspaceStop};
use pyro::store::lock::{Lock, Mode::Exclusive};
use pyro::workspace::{Live, Place, State};
use pyro::{Context, Pyro};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;
use std::fs::{self, File};
use std::path::PathBuf;
use std::pin::pin;

/// A home whose supervisors stop short as they keep a guest: they write down that
/// it started, and the log is a FIFO that nobody reads.
fn hesitant() -> (Home, Pyro) {
    let home = Home::new();
    let (guest, workspaces) = (home.path("guest"), home.path("state/workspaces"));
    fs::create_dir_all(&guest).unwrap();
    let pyro = home.pyro(FakeVmm::new(move |inside| {
        let guest = guest.clone();
        let making = fs::read_dir(&workspaces).unwrap().next().unwrap().unwrap();
        let log = making.path().join("events.jsonl");
        fs::remove_file(&log).unwrap();
        mknodat(CWD, &log, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        serve_agent(inside.channel, guest)
    }));
    (home, pyro)
}

fn wanted() -> WorkspaceCreate {
    serde_json::from_value(json!({ "environment": ENVIRONMENT, "mem_mib": 128, "name": "w" }))
        .unwrap()
}

async fn official(pyro: &Pyro) -> Place {
    loop {
        match pyro::workspace::find::find(&pyro.config, "w") {
            Ok(place) => return place,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// Lets the supervisor go on; as long as the file is open.
fn read_log(log: PathBuf) -> File {
    File::options().read(true).write(true).open(log).unwrap()
}

#[tokio::test]
async fn r2_whoever_finds_it_before_it_is_kept_waits_until_it_is() {
    let (_home, pyro) = hesitant();
    let finding = async {
        let place = official(&pyro).await;
        // Who starts, stops or opens it takes this first, unless it runs.
        let life = Lock::try_take(&place.path().join("life.lock"), Exclusive).unwrap();
        assert!(life.is_none(), "its maker has it until it is kept");
        let context = Context::default();
        let log = place.path().join("events.jsonl");
        let opening = pin!(Live::open(&pyro, "w", &context));
        // It has been asked for before the supervisor goes on.
        tokio::join!(biased; opening, async { read_log(log) })
    };
    let (made, (opened, _log)) = tokio::join!(pyro.call(wanted()), finding);
    made.unwrap();
    opened.expect("it runs");
}

#[tokio::test]
async fn r9_one_whose_maker_leaves_before_it_is_kept_is_no_orphan() {
    let (home, pyro) = hesitant();
    let place = {
        let making = pin!(pyro.call(wanted()));
        match select(making, pin!(official(&pyro))).await {
            Either::Left((made, _)) => panic!("it is kept: {made:?}"),
            Either::Right((place, _making)) => place,
        }
    };
    let _log = read_log(place.path().join("events.jsonl"));
    assert!(place.is_there());
    let delete = json!({ "workspace_id": "w" });
    let deleted = pyro.call(serde_json::from_value::<WorkspaceDelete>(delete).unwrap()).await;
    assert!(deleted.unwrap().deleted);
    assert_eq!(place.state(), State::Damaged, "it is gone, and nothing has its lock");
    home.assert_nothing_left();
}

/// As a supervisor that was killed leaves it, for as long as the kernel takes to
/// end the VMM.
#[tokio::test]
async fn r9_a_machine_is_not_started_before_the_one_before_is_gone() {
    let home = Home::new();
    fs::create_dir_all(home.path("guest")).unwrap();
    let vmm = FakeVmm::honest(home.path("guest"));
    let pyro = home.pyro(vmm.clone());
    pyro.call(wanted()).await.unwrap();
    let place = pyro::workspace::find::find(&pyro.config, "w").unwrap();
    let vmm_lock = place.path().join("vmm.lock");
    let taken = Lock::try_take(&vmm_lock, Exclusive).unwrap();
    assert!(taken.is_none(), "a machine has it for as long as it is there");
    let id = json!({ "workspace_id": "w" });
    pyro.call(serde_json::from_value::<WorkspaceStop>(id.clone()).unwrap()).await.unwrap();
    let dying = Lock::try_take(&vmm_lock, Exclusive).unwrap().expect("it is gone");
    let start = serde_json::from_value::<WorkspaceStart>(id).unwrap();
    let (started, ()) = tokio::join!(pyro.call(start), async {
        // Its supervisor is at work.
        while place.state() != State::Changing {
            tokio::task::yield_now().await;
        }
        assert_eq!(vmm.started(), 1);
        drop(dying);
    });
    assert_eq!(started.unwrap().state, State::Running);
    assert_eq!(vmm.started(), 2);
}
