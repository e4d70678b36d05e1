//! Copies of disks that come to nothing: whoever wanted them leaves, the machine
//! dies, or the host cannot.

use crate::snapshots::Bench;
use crate::workspaces::await_state;
use futures::future::{Either, select};
use pyro::ErrorKind;
use pyro::operation::{WorkspaceExec, WorkspaceReset, WorkspaceStart, WorkspaceStatus};
use pyro::workspace::State;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::pin::pin;

/// Lets whoever opens it wait.
fn make_fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// A disk of the host's that hangs. Who waits for it is let go in the end.
struct Hanging(PathBuf);

impl Drop for Hanging {
    fn drop(&mut self) {
        drop(File::options().read(true).write(true).open(&self.0));
    }
}

impl Bench {
    fn disk(&self) -> PathBuf {
        self.place.path().join(self.place.record().unwrap().disk)
    }

    /// Its disk hangs from now on; the guests of these tests do not look at it.
    fn hang(&self) -> Hanging {
        fs::rename(self.disk(), self.disk().with_extension("real")).unwrap();
        make_fifo(&self.disk());
        Hanging(self.disk())
    }

    fn heal(&self, hanging: Hanging) {
        let path = hanging.0.clone();
        drop(hanging);
        fs::rename(path.with_extension("real"), path).unwrap();
    }

    async fn stands_still(&self, times: usize) {
        while self.vmm.stilled() < times {
            tokio::task::yield_now().await;
        }
    }

    /// Its guest answers, and nothing but the one snapshot is there or left.
    async fn is_as_before(&self) {
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        let user = format!("{}:{}", user.as_raw(), group.as_raw());
        let exec = json!({ "command": ["true"], "user": user });
        assert_eq!(self.ask::<WorkspaceExec>(exec).await.unwrap().exit_code, Some(0));
        let names: Vec<_> = self.listed().await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["baseline", "before"]);
        let made: Vec<_> =
            fs::read_dir(self.place.path().join("snapshots/.making")).unwrap().collect();
        assert!(made.is_empty(), "{made:?}");
    }
}

#[tokio::test]
async fn r9_whoever_leaves_during_a_copy_leaves_a_machine_that_goes_on() {
    let bench = Bench::new().await;
    bench.snapshot("before").await.unwrap();
    let hanging = bench.hang();
    for (times, forks) in [(2, false), (3, true)] {
        let taking = async {
            match forks {
                false => bench.snapshot("half").await.map(drop),
                true => bench.create(json!({ "from": "w" })).await.map(drop),
            }
        };
        match select(pin!(taking), pin!(bench.stands_still(times))).await {
            Either::Left((taken, _)) => panic!("its disk hangs: {taken:?}"),
            // It leaves here.
            Either::Right(((), _taking)) => {}
        }
        // The copy itself hangs still.
        bench.is_as_before().await;
        assert_eq!(bench.home.workspaces().len(), 1, "no fork is left");
    }
    assert_eq!(bench.vmm.started(), 1, "it is the same machine");
    bench.heal(hanging);
}

#[tokio::test]
async fn r9_a_machine_that_dies_during_a_copy_leaves_no_half_of_one() {
    let bench = Bench::new().await;
    bench.snapshot("before").await.unwrap();
    let hanging = bench.hang();
    let (taken, ()) = tokio::join!(bench.snapshot("half"), async {
        bench.stands_still(2).await;
        bench.vmm.crash();
    });
    assert_eq!(taken.unwrap_err().kind(), ErrorKind::GuestLost);
    // The supervisor's threads end before it does.
    bench.heal(hanging);
    await_state(&bench.place, State::Crashed).await;
    bench.ask::<WorkspaceStart>(json!({})).await.unwrap();
    bench.is_as_before().await;
    bench.snapshot("after").await.unwrap();
}

#[tokio::test]
async fn r13_a_copy_that_the_host_refuses_changes_nothing() {
    let bench = Bench::new().await;
    bench.snapshot("before").await.unwrap();
    let at_rest = bench.place.path().join("snapshots/before/disk.ext4");
    for disk in [bench.disk(), at_rest] {
        // Opened like a file, and then refused.
        fs::rename(&disk, disk.with_extension("real")).unwrap();
        fs::create_dir(&disk).unwrap();
    }
    let refused = [
        bench.snapshot("half").await.map(drop),
        bench.create(json!({ "from": "w" })).await.map(drop),
        bench.create(json!({ "from": "w@before" })).await.map(drop),
        bench.ask::<WorkspaceReset>(json!({ "snapshot": "before" })).await.map(drop),
    ];
    for refused in refused {
        assert_eq!(refused.expect_err("no file").kind(), ErrorKind::Io);
    }
    bench.is_as_before().await;
    let status = bench.ask::<WorkspaceStatus>(json!({})).await.unwrap();
    assert_eq!((status.workspace.state, status.workspace.reset_count), (State::Running, 0));
    assert_eq!((bench.vmm.started(), bench.home.workspaces().len()), (1, 1));
    assert!(!bench.place.path().join("disk-1.ext4").exists());
}
