//! Workspaces whose time is over while they do not run.

use crate::fake_vmm::{FakeVmm, serve_agent};
use crate::home::{ENVIRONMENT, Home};
use pyro::Pyro;
use pyro::operation::{
    Operation, WorkspaceCreate, WorkspaceReset, WorkspaceStart, WorkspaceStop, WorkspaceUpdate,
};
use pyro::store::lock::{Lock, Mode};
use pyro::workspace::record::{Record, Ttl, TtlAction};
use pyro::workspace::{Place, State};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

async fn ask<O: Operation>(pyro: &Pyro, more: Value) -> pyro::Result<O::Output> {
    let mut asked = json!({ "workspace_id": "w" });
    if O::CREATES == pyro::operation::Creates::Something {
        asked = json!({ "environment": ENVIRONMENT, "mem_mib": 128, "name": "w" });
    }
    asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pyro.call(serde_json::from_value::<O>(asked).unwrap()).await
}

/// A home with a workspace whose time is over as soon as this returns.
async fn expiring(action: &str, stopped: bool) -> (Home, Pyro, Place) {
    let home = Home::new();
    std::fs::create_dir_all(home.path("guest")).unwrap();
    let pyro = home.pyro(FakeVmm::honest(home.path("guest")));
    let ttl = json!({ "ttl_seconds": 3600, "ttl_action": action });
    ask::<WorkspaceCreate>(&pyro, ttl).await.unwrap();
    if stopped {
        ask::<WorkspaceStop>(&pyro, json!({})).await.unwrap();
    }
    let place = pyro::workspace::find::find(&pyro.config, "w").unwrap();
    place.change(expire).await.unwrap();
    (home, pyro, place)
}

/// Its time is over; what did not have any has had one.
pub fn expire(record: &mut Record) -> pyro::Result<()> {
    let ttl = record.ttl.get_or_insert(Ttl::from_now(1, TtlAction::Stop));
    ttl.expires_at = jiff::Timestamp::UNIX_EPOCH;
    Ok(())
}

#[tokio::test]
async fn r8_one_that_is_to_be_deleted_is_by_whoever_comes_next() {
    let (home, pyro, place) = expiring("delete", true).await;
    assert!(place.is_there());
    drop(Pyro::new(pyro.config.clone()));
    home.assert_nothing_left();
}

#[tokio::test]
async fn r8_one_that_is_to_be_stopped_stays() {
    let (_home, pyro, place) = expiring("stop", true).await;
    assert_eq!(place.record().unwrap().ttl.unwrap().action, TtlAction::Stop);
    drop(Pyro::new(pyro.config.clone()));
    ask::<WorkspaceStart>(&pyro, json!({})).await.expect("it is there");
}

#[tokio::test]
async fn r8_one_whose_time_was_renewed_stays() {
    let (_home, pyro, place) = expiring("delete", true).await;
    ask::<WorkspaceUpdate>(&pyro, json!({ "ttl_seconds": 3600 })).await.unwrap();
    drop(Pyro::new(pyro.config.clone()));
    assert!(place.is_there());
}

/// Its own supervisor knows best when a running one is done.
#[tokio::test]
async fn r8_one_that_runs_or_is_in_anybodys_hands_stays() {
    let (_home, pyro, place) = expiring("delete", false).await;
    drop(Pyro::new(pyro.config.clone()));
    assert_eq!(place.state(), State::Running);
    ask::<WorkspaceStop>(&pyro, json!({})).await.unwrap();
    for lock in ["life.lock", "record.lock", "lock"] {
        let held = Lock::try_take(&place.path().join(lock), Mode::Exclusive).unwrap().unwrap();
        drop(Pyro::new(pyro.config.clone()));
        assert!(place.is_there(), "somebody has its {lock}");
        drop(held);
    }
    drop(Pyro::new(pyro.config.clone()));
    assert!(!place.is_there());
}

#[tokio::test]
async fn r8_a_reset_begins_the_time_anew() {
    let (_home, pyro, place) = expiring("delete", true).await;
    ask::<WorkspaceReset>(&pyro, json!({})).await.unwrap();
    let ttl = place.record().unwrap().ttl.expect("it has one");
    assert!(!ttl.is_over(), "it would be deleted at once");
}

/// Nobody takes orders yet while it comes up.
#[tokio::test]
async fn r8_a_time_that_is_set_while_it_starts_counts() {
    let home = Home::new();
    std::fs::create_dir_all(home.path("guest")).unwrap();
    let (booting, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait, workspace) = (Arc::clone(&booting), Arc::clone(&go_on), home.path("guest"));
    let pyro = home.pyro(FakeVmm::new(move |inside| {
        let (tell, wait, workspace) = (Arc::clone(&tell), Arc::clone(&wait), workspace.clone());
        async move {
            tell.notify_one();
            wait.notified().await;
            serve_agent(inside.channel, workspace).await
        }
    }));
    go_on.notify_one();
    ask::<WorkspaceCreate>(&pyro, json!({ "ttl_seconds": 3600 })).await.unwrap();
    booting.notified().await;
    ask::<WorkspaceStop>(&pyro, json!({})).await.unwrap();
    let place = pyro::workspace::find::find(&pyro.config, "w").unwrap();
    let (started, ()) = tokio::join!(ask::<WorkspaceStart>(&pyro, json!({})), async {
        booting.notified().await;
        ask::<WorkspaceUpdate>(&pyro, json!({ "ttl_seconds": 3600 })).await.unwrap();
        place.change(expire).await.unwrap();
        go_on.notify_one();
    });
    started.unwrap();
    // Its supervisor has the lock until its time is over.
    drop(place.take_run(Duration::from_secs(50)).await.expect("it ends by itself"));
    assert_eq!(place.state(), State::Stopped);
}
