//! Workspaces that stand still.

use crate::expiring::expire;
use crate::fake_vmm::FakeVmm;
use crate::home::{DEADLINES, ENVIRONMENT, Home};
use crate::workspaces::await_state;
use pyro::event_log::{EventLog, Happening, StoppedBy};
use pyro::operation::workspace::MachineStatus;
use pyro::operation::{
    Operation, WorkspaceCreate, WorkspaceDelete, WorkspaceExec, WorkspaceList, WorkspacePause,
    WorkspaceReset, WorkspaceResume, WorkspaceStart, WorkspaceStatus, WorkspaceStop,
    WorkspaceUpdate,
};
use pyro::supervisor::control::give;
use pyro::supervisor::order::ReadTtl;
use pyro::vmm::{Metrics, Rung};
use pyro::workspace::{Live, Place, State};
use pyro::{Context, ErrorKind, Event, Events, Pyro};
use pyro_protocol::power::Ping;
use serde_json::{Value, json};
use std::fs;

/// A workspace that runs on a machine that is a thread.
struct Bench {
    home: Home,
    vmm: FakeVmm,
    pyro: Pyro,
    place: Place,
}

impl Bench {
    async fn new(vmm: impl FnOnce(FakeVmm) -> FakeVmm) -> Self {
        let home = Home::new();
        fs::create_dir_all(home.path("guest")).unwrap();
        let vmm = vmm(FakeVmm::honest(home.path("guest")));
        let pyro = home.pyro(vmm.clone());
        let wanted = json!({ "environment": ENVIRONMENT, "mem_mib": 128, "name": "w" });
        let create: WorkspaceCreate = serde_json::from_value(wanted).unwrap();
        pyro.call(create).await.unwrap();
        let place = pyro::workspace::find::find(&pyro.config, "w").unwrap();
        Self { home, vmm, pyro, place }
    }

    async fn paused() -> Self {
        let bench = Self::new(|vmm| vmm).await;
        bench.ask::<WorkspacePause>(json!({})).await.unwrap();
        bench
    }

    async fn ask<O: Operation>(&self, more: Value) -> pyro::Result<O::Output> {
        self.ask_with::<O>(more, Context::default()).await
    }

    async fn ask_with<O: Operation>(
        &self,
        more: Value,
        context: Context,
    ) -> pyro::Result<O::Output> {
        let mut asked = json!({ "workspace_id": "w" });
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.pyro.call_with(serde_json::from_value::<O>(asked).unwrap(), context).await
    }

    /// The answer, and what was warned of.
    async fn warned<O: Operation>(&self) -> (pyro::Result<O::Output>, Vec<String>) {
        let (events, mut heard) = Events::channel();
        let context = Context { events, ..Context::default() };
        let listening = async {
            let mut warnings = Vec::new();
            while let Some(event) = heard.recv().await {
                if let Event::Warning(warning) = event {
                    warnings.push(warning);
                }
            }
            warnings
        };
        tokio::join!(self.ask_with::<O>(json!({}), context), listening)
    }

    async fn machine(&self) -> Option<MachineStatus> {
        self.ask::<WorkspaceStatus>(json!({})).await.unwrap().machine
    }

    fn happened(&self) -> Vec<Happening> {
        let lines = EventLog::within(self.place.path()).newest(100).unwrap();
        let happened = lines.into_iter().map(|line| line.happening);
        happened.filter(|what| !matches!(what, Happening::Operation { .. })).collect()
    }
}

fn exec() -> Value {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    json!({ "command": ["true"], "user": format!("{}:{}", user.as_raw(), group.as_raw()) })
}

#[tokio::test]
async fn calls_are_refused_until_it_goes_on() {
    let bench = Bench::new(|vmm| vmm).await;
    let paused = bench.ask::<WorkspacePause>(json!({})).await.unwrap();
    assert_eq!(paused.state, State::Paused);
    let list: WorkspaceList = serde_json::from_value(json!({})).unwrap();
    assert_eq!(bench.pyro.call(list).await.unwrap().workspaces[0].state, State::Paused);
    for refused in [
        bench.ask::<WorkspaceExec>(exec()).await.map(drop),
        bench.ask::<WorkspaceStart>(json!({})).await.map(drop),
    ] {
        let error = refused.expect_err("it stands still");
        let id = bench.place.id();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(error.to_string(), format!("workspace {id} is paused"));
        assert!(error.next_step().unwrap().contains(&format!("pyro workspace resume {id}")));
    }
    assert_eq!(bench.ask::<WorkspaceResume>(json!({})).await.unwrap().state, State::Running);
    assert_eq!(bench.ask::<WorkspaceExec>(exec()).await.unwrap().exit_code, Some(0));
    let [Happening::Created, Happening::Started { .. }, Happening::Paused, Happening::Resumed] =
        bench.happened()[..]
    else {
        panic!("{:?}", bench.happened());
    };
}

#[tokio::test]
async fn what_is_so_already_is_no_error() {
    let bench = Bench::new(|vmm| vmm).await;
    let id = bench.place.id();
    let (resumed, warned) = bench.warned::<WorkspaceResume>().await;
    assert_eq!(resumed.unwrap().state, State::Running);
    assert_eq!(warned, [format!("workspace {id} was not paused")]);
    assert!(bench.warned::<WorkspacePause>().await.1.is_empty());
    let since = bench.machine().await.unwrap().paused_at;
    let (paused, warned) = bench.warned::<WorkspacePause>().await;
    assert_eq!(paused.unwrap().state, State::Paused);
    assert_eq!(warned, [format!("workspace {id} was paused already")]);
    assert_eq!((since.is_some(), bench.machine().await.unwrap().paused_at), (true, since));
}

#[tokio::test]
async fn a_call_that_is_underway_stands_still_with_it() {
    let bench = Bench::new(|vmm| vmm).await;
    let live = Live::open(&bench.pyro, "w", &Context::default()).await.unwrap();
    let mut call = live.agent().connect().await.unwrap();
    bench.ask::<WorkspacePause>(json!({})).await.unwrap();
    let (pong, resumed) =
        tokio::join!(call.call(Ping, DEADLINES.reply), bench.ask::<WorkspaceResume>(json!({})));
    resumed.unwrap();
    pong.expect("it goes on");
}

#[tokio::test]
async fn what_does_not_run_cannot_stand_still() {
    let bench = Bench::new(|vmm| vmm).await;
    bench.ask::<WorkspaceStop>(json!({})).await.unwrap();
    for asked in [
        bench.ask::<WorkspacePause>(json!({})).await,
        bench.ask::<WorkspaceResume>(json!({})).await,
    ] {
        let error = asked.expect_err("it is stopped");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.next_step().unwrap().contains("workspace start"), "{error:?}");
    }
    assert_eq!(bench.machine().await, None);
}

#[tokio::test]
async fn it_is_stopped_in_good_order() {
    let bench = Bench::paused().await;
    let (stopped, warned) = bench.warned::<WorkspaceStop>().await;
    assert_eq!((stopped.unwrap().state, warned), (State::Stopped, vec![]));
    let last = bench.happened().pop();
    assert_eq!(last, Some(Happening::Stopped { by: StoppedBy::Request, clean: true }));
    bench.ask::<WorkspaceStart>(json!({})).await.unwrap();
    assert_eq!(bench.machine().await.unwrap().paused_at, None);
}

#[tokio::test]
async fn it_can_be_killed_reset_and_deleted() {
    let bench = Bench::paused().await;
    let stopped = bench.ask::<WorkspaceStop>(json!({ "force": true })).await.unwrap();
    assert_eq!(stopped.state, State::Stopped);
    bench.ask::<WorkspaceStart>(json!({})).await.unwrap();
    bench.ask::<WorkspacePause>(json!({})).await.unwrap();
    let reset = bench.ask::<WorkspaceReset>(json!({})).await.unwrap();
    assert_eq!(reset.workspace.state, State::Running);
    bench.ask::<WorkspacePause>(json!({})).await.unwrap();
    bench.ask::<WorkspaceDelete>(json!({})).await.unwrap();
    bench.home.assert_nothing_left();
}

/// The call would defer it; but nothing of it will ever come.
#[tokio::test]
async fn r8_its_time_is_over_whatever_stands_still_with_it() {
    let bench = Bench::new(|vmm| vmm).await;
    bench.ask::<WorkspaceUpdate>(json!({ "ttl_seconds": 3600 })).await.unwrap();
    let live = Live::open(&bench.pyro, "w", &Context::default()).await.unwrap();
    let _call = live.agent().connect().await.unwrap();
    bench.ask::<WorkspacePause>(json!({})).await.unwrap();
    bench.place.change(expire).await.unwrap();
    give(ReadTtl, bench.place.path(), DEADLINES.reply).await.unwrap();
    drop(bench.place.take_run(DEADLINES.tcg_boot * 4).await.expect("it ends by itself"));
    assert_eq!(bench.place.state(), State::Stopped);
    let last = bench.happened().pop();
    assert_eq!(last, Some(Happening::Stopped { by: StoppedBy::Ttl, clean: true }));
}

#[tokio::test]
async fn r10_one_that_goes_away_meanwhile_has_crashed_as_any_other() {
    let bench = Bench::paused().await;
    bench.vmm.crash();
    await_state(&bench.place, State::Crashed).await;
    assert_eq!(bench.machine().await, None);
    let (answer, warned) = {
        let (events, mut heard) = Events::channel();
        let context = Context { events, ..Context::default() };
        tokio::join!(bench.ask_with::<WorkspaceExec>(exec(), context), async {
            let mut warned = Vec::new();
            while let Some(event) = heard.recv().await {
                warned.extend(matches!(event, Event::Warning(_)).then_some(event));
            }
            warned
        })
    };
    assert_eq!((answer.unwrap().exit_code, warned.len()), (Some(0), 1));
    assert_eq!(bench.place.state(), State::Running);
    assert_eq!(bench.machine().await.unwrap().paused_at, None);
}

#[tokio::test]
async fn a_vmm_that_does_not_obey_leaves_it_running_and_said_to_run() {
    let bench = Bench::new(FakeVmm::deaf).await;
    let error = bench.ask::<WorkspacePause>(json!({})).await.expect_err("it is deaf");
    assert_eq!(error.to_string(), "the machine is deaf");
    assert!(error.next_step().unwrap().contains("--force"), "{error:?}");
    assert_eq!(bench.place.state(), State::Running);
    assert_eq!(bench.ask::<WorkspaceExec>(exec()).await.unwrap().exit_code, Some(0));
    let machine = bench.machine().await.expect("it runs");
    assert_eq!((machine.paused_at, machine.metrics), (None, None));
}

#[tokio::test]
async fn its_status_tells_of_its_machine() {
    let bench = Bench::new(|vmm| vmm).await;
    let counted = Metrics { disk_write_bytes: 4096, disk_write_count: 1, ..Metrics::default() };
    let running = bench.machine().await.unwrap();
    assert_eq!((running.vmm, running.paused_at), (Some(Rung::QemuTcg), None));
    assert_eq!(running.metrics, Some(counted));
    bench.ask::<WorkspacePause>(json!({})).await.unwrap();
    let paused = bench.machine().await.unwrap();
    assert_eq!(paused.metrics, Some(counted), "the VMM still answers");
    assert!(paused.paused_at >= Some(running.started_at));
}
