//! Guests that are restored from templates, and what becomes of templates that are
//! of no use.

use crate::fake_vmm::FakeVmm;
use crate::home::{ENVIRONMENT, Home, run_shell};
use futures::future::BoxFuture;
use pyro::event_log::{EventLog, Happening};
use pyro::operation::run::RunAnswer;
use pyro::operation::{Operation, WorkspaceCreate, WorkspaceReset, WorkspaceStart, WorkspaceStop};
use pyro::vmm::{Beginning, Machine, Metrics, Place, Started, Vmm, VmmProcess};
use pyro::{Context, Error, ErrorKind, Event, Events, Pyro, Result};
use serde_json::{Value, json};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// What becomes of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is restored.
    Well,
    /// The VMM refuses it.
    Refused,
    /// What is restored says nothing.
    Silent,
    /// No machine is saved.
    Unsaved,
}

/// Machines that are saved and restored: a restored one is one that has booted.
#[derive(Clone)]
struct Saving {
    inner: FakeVmm,
    silent: FakeVmm,
    fate: Arc<Mutex<Fate>>,
    booted: Arc<AtomicUsize>,
    saved: Arc<AtomicUsize>,
    restored: Arc<AtomicUsize>,
}

impl Saving {
    fn new() -> Self {
        let silent = FakeVmm::new(|inside| async move {
            let _kept = inside;
            futures::future::pending().await
        });
        let (booted, saved, restored) = Default::default();
        let (inner, fate) = (FakeVmm::honest("/tmp"), Arc::new(Mutex::new(Fate::Well)));
        Self { inner, silent, fate, booted, saved, restored }
    }

    fn meets(&self, fate: Fate) {
        *self.fate.lock().unwrap() = fate;
    }

    /// How many were booted, saved and restored so far.
    fn counts(&self) -> [usize; 3] {
        [&self.booted, &self.saved, &self.restored].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Vmm for Saving {
    fn likeness(&self, machine: &Machine) -> Option<String> {
        Some(format!("{} MiB", machine.mem_mib))
    }

    fn start<'a>(
        &'a self,
        machine: &'a Machine,
        place: Place<'a>,
    ) -> BoxFuture<'a, Result<Started>> {
        Box::pin(async move {
            let fate = *self.fate.lock().unwrap();
            match &machine.beginning {
                Beginning::Boot => {
                    self.booted.fetch_add(1, Ordering::Relaxed);
                    self.inner.start(machine, place).await
                }
                Beginning::BootToSave(_) => {
                    let started = self.inner.start(machine, place).await?;
                    let (machine, saved) = (machine.clone(), self.saved.clone());
                    let inner = started.process;
                    let process = Box::new(SavingProcess { inner, machine, fate, saved });
                    Ok(Started { process, ..started })
                }
                Beginning::Restore(from) => {
                    assert_eq!(fs::read(&from.state).unwrap(), b"a state");
                    self.restored.fetch_add(1, Ordering::Relaxed);
                    match fate {
                        Fate::Well | Fate::Unsaved => self.inner.start(machine, place).await,
                        Fate::Silent => self.silent.start(machine, place).await,
                        Fate::Refused => {
                            Err(Error::new(ErrorKind::Internal, "that is no state of mine"))
                        }
                    }
                }
            }
        })
    }
}

struct SavingProcess {
    inner: Box<dyn VmmProcess>,
    machine: Machine,
    fate: Fate,
    saved: Arc<AtomicUsize>,
}

impl VmmProcess for SavingProcess {
    fn pid(&self) -> Option<u32> {
        self.inner.pid()
    }

    fn wait(&mut self) -> BoxFuture<'_, String> {
        self.inner.wait()
    }

    fn kill(&mut self) {
        self.inner.kill();
    }

    fn metrics(&mut self) -> BoxFuture<'_, Result<Metrics>> {
        self.inner.metrics()
    }

    fn save(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            let Beginning::BootToSave(to) = &self.machine.beginning else { unreachable!() };
            if self.fate == Fate::Unsaved {
                return Err(Error::new(ErrorKind::Internal, "nothing is saved today"));
            }
            self.saved.fetch_add(1, Ordering::Relaxed);
            let memory = File::create_new(&to.memory).unwrap();
            memory.set_len(u64::from(self.machine.mem_mib) << 20).unwrap();
            memory.write_all_at(b"a memory", 8 << 20).unwrap();
            fs::write(&to.state, "a state").unwrap();
            Ok(())
        })
    }
}

/// A run, and what was warned of.
async fn run(pyro: &Pyro) -> (RunAnswer, Vec<String>) {
    let (events, mut received) = Events::channel();
    let context = Context { events, ..Context::default() };
    let running = run_shell(pyro, "echo here", context);
    let listening = async {
        let mut warned = Vec::new();
        while let Some(event) = received.recv().await {
            if let Event::Warning(warning) = event {
                warned.push(warning);
            }
        }
        warned
    };
    let (answer, warned) = tokio::join!(running, listening);
    let answer = answer.unwrap();
    assert_eq!(answer.output.stdout, "here\n");
    (answer, warned)
}

/// The directories of templates.
fn templates(home: &Home) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.path("cache/templates")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}

fn only(home: &Home) -> PathBuf {
    let [only] = templates(home).try_into().expect("one template");
    only
}

#[tokio::test]
async fn the_first_makes_one_and_all_are_restored_from_it() {
    let (home, vmm) = (Home::new(), Saving::new());
    let pyro = home.pyro(vmm.clone());
    for restored in 1..=3 {
        let (answer, warned) = run(&pyro).await;
        assert!(answer.restored && warned.is_empty(), "{warned:?}");
        assert_eq!(vmm.counts(), [0, 1, restored]);
    }
    let template = only(&home);
    for file in ["state", "memory"] {
        let mode = template.join(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444, "{file}");
    }
    home.assert_nothing_left();
}

#[tokio::test]
async fn of_many_who_come_first_one_makes_it() {
    let (home, vmm) = (Home::new(), Saving::new());
    let pyro = home.pyro(vmm.clone());
    let answers = futures::future::join_all((0..8).map(|_| run(&pyro))).await;
    assert!(answers.iter().all(|(answer, warned)| answer.restored && warned.is_empty()));
    assert_eq!(vmm.counts(), [0, 1, 8]);
}

#[tokio::test]
async fn another_machine_has_another_and_a_cold_one_none() {
    let (home, vmm) = (Home::new(), Saving::new());
    let pyro = home.pyro(vmm.clone());
    run(&pyro).await;
    let asked = |more: Value| pyro.call(crate::home::request(&more));
    let larger = asked(json!({ "command": "true", "mem_mib": 256 })).await.unwrap();
    assert!(larger.restored);
    assert_eq!((vmm.counts(), templates(&home).len()), ([0, 2, 2], 2));
    let cold = asked(json!({ "command": "true", "cold": true })).await.unwrap();
    assert!(!cold.restored);
    assert_eq!(vmm.counts(), [1, 2, 2]);
    let mut never = pyro.clone();
    never.config.templates = false;
    let (answer, warned) = run(&never).await;
    assert!(!answer.restored && warned.is_empty(), "{warned:?}");
    assert_eq!(vmm.counts(), [2, 2, 2]);
}

#[tokio::test]
async fn one_that_is_of_no_use_is_told_and_made_again_but_not_for_ever() {
    for fate in [Fate::Refused, Fate::Silent] {
        let (home, vmm) = (Home::new(), Saving::new());
        let pyro = home.pyro(vmm.clone());
        vmm.meets(fate);
        for made in 1..=2 {
            let (answer, warned) = run(&pyro).await;
            let [warning] = &*warned else { panic!("{fate:?}: {warned:?}") };
            assert!(!answer.restored && warning.contains("of no use"), "{fate:?}: {warning}");
            assert_eq!(vmm.counts(), [made, made, made], "{fate:?}");
            assert_eq!(templates(&home), [] as [PathBuf; 0]);
        }
        let (answer, warned) = run(&pyro).await;
        assert!(!answer.restored && warned.is_empty(), "{fate:?}: {warned:?}");
        assert_eq!(vmm.counts(), [3, 2, 2], "{fate:?}: it was given up");
        vmm.meets(Fate::Well);
        pyro.call(prune(json!({}))).await.unwrap();
        assert!(run(&pyro).await.0.restored, "{fate:?}: pruning forgets that");
        home.assert_nothing_left();
    }
}

fn prune(arguments: Value) -> pyro::operation::EnvPrune {
    serde_json::from_value(arguments).unwrap()
}

#[tokio::test]
async fn one_that_cannot_be_made_costs_a_boot() {
    let (home, vmm) = (Home::new(), Saving::new());
    let pyro = home.pyro(vmm.clone());
    vmm.meets(Fate::Unsaved);
    let (answer, warned) = run(&pyro).await;
    let [warning] = &*warned else { panic!("{warned:?}") };
    assert!(!answer.restored && warning.contains("nothing is saved today"), "{warning}");
    assert_eq!(vmm.counts(), [1, 0, 0]);
    vmm.meets(Fate::Well);
    assert!(run(&pyro).await.0.restored);
    home.assert_nothing_left();
}

#[tokio::test]
async fn one_that_is_not_what_it_was_is_never_restored() {
    type Harm = fn(&PathBuf);
    let rewrite = |file: &PathBuf, content: &[u8], at: u64| {
        fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
        File::options().write(true).open(file).unwrap().write_all_at(content, at).unwrap();
    };
    let harms: [(&str, Harm); 6] = [
        ("memory", |dir| {
            let memory = dir.join("memory");
            fs::set_permissions(&memory, Permissions::from_mode(0o644)).unwrap();
            let memory = File::options().write(true).open(memory).unwrap();
            memory.write_all_at(b"A", 8 << 20).unwrap();
        }),
        ("a shorter memory", |dir| {
            let memory = dir.join("memory");
            fs::set_permissions(&memory, Permissions::from_mode(0o644)).unwrap();
            File::options().write(true).open(memory).unwrap().set_len(64 << 20).unwrap();
        }),
        ("no memory", |dir| fs::remove_file(dir.join("memory")).unwrap()),
        ("no state", |dir| fs::remove_file(dir.join("state")).unwrap()),
        ("no description", |dir| fs::remove_file(dir.join("template.json")).unwrap()),
        ("an older description", |dir| {
            let path = dir.join("template.json");
            let text = fs::read_to_string(&path).unwrap();
            let older = text.replace(r#""schema_version": 1"#, r#""schema_version": 0"#);
            assert_ne!(text, older);
            fs::write(path, older).unwrap();
        }),
    ];
    let (home, vmm) = (Home::new(), Saving::new());
    let pyro = home.pyro(vmm.clone());
    run(&pyro).await;
    for (number, (what, harm)) in harms.into_iter().enumerate() {
        harm(&only(&home));
        let (answer, warned) = run(&pyro).await;
        let [warning] = &*warned else { panic!("{what}: {warned:?}") };
        assert!(warning.contains("is not what it was"), "{what}: {warning}");
        assert!(answer.restored, "{what}: from another one");
        assert_eq!(vmm.counts(), [0, number + 2, number + 2], "{what}");
    }
    rewrite(&only(&home).join("state"), b"another", 0);
    let (answer, warned) = run(&pyro).await;
    assert!(answer.restored && warned.len() == 1, "{warned:?}");
}

#[tokio::test]
async fn a_workspace_is_restored_whenever_it_starts() {
    let (home, vmm) = (Home::new(), Saving::new());
    let pyro = home.pyro(vmm.clone());
    async fn ask<O: Operation>(pyro: &Pyro, more: Value) {
        let mut arguments = json!({ "workspace_id": "w" });
        if O::PATH == WorkspaceCreate::PATH {
            arguments = json!({ "environment": ENVIRONMENT, "mem_mib": 128, "name": "w" });
        }
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let arguments: O = serde_json::from_value(arguments).unwrap();
        pyro.call(arguments).await.unwrap();
    }
    ask::<WorkspaceCreate>(&pyro, json!({})).await;
    ask::<WorkspaceReset>(&pyro, json!({})).await;
    ask::<WorkspaceReset>(&pyro, json!({ "cold": true })).await;
    ask::<WorkspaceStop>(&pyro, json!({})).await;
    ask::<WorkspaceStart>(&pyro, json!({})).await;
    vmm.meets(Fate::Refused);
    ask::<WorkspaceReset>(&pyro, json!({})).await;
    let [workspace] = home.workspaces().try_into().expect("one workspace");
    let started: Vec<_> = EventLog::within(&workspace)
        .newest(100)
        .unwrap()
        .into_iter()
        .filter_map(|line| {
            let Happening::Started { restored, template_failure, .. } = line.happening else {
                return None;
            };
            Some((restored, template_failure.is_some()))
        })
        .collect();
    let (quick, cold, failed) = ((true, false), (false, false), (false, true));
    assert_eq!(started, [quick, quick, cold, quick, failed]);
    let delete = json!({ "workspace_id": "w" });
    let delete: pyro::operation::WorkspaceDelete = serde_json::from_value(delete).unwrap();
    pyro.call(delete).await.unwrap();
}

#[tokio::test]
async fn who_changes_its_mind_while_one_is_made_leaves_nothing() {
    let home = Home::new();
    let mut vmm = Saving::new();
    vmm.inner = vmm.silent.clone();
    let pyro = home.pyro(vmm);
    let (events, mut received) = Events::channel();
    let cancel = CancellationToken::new();
    let context = Context { events, cancel: cancel.clone(), ..Context::default() };
    let running = run_shell(&pyro, "true", context);
    let changing = async {
        while let Some(event) = received.recv().await {
            if matches!(event, Event::Stage { name: "making a template of", .. }) {
                cancel.cancel();
            }
        }
    };
    let (ran, ()) = tokio::join!(running, changing);
    assert_eq!(ran.expect_err("it was cancelled").kind(), ErrorKind::Cancelled);
    home.assert_nothing_left();
    let staged = fs::read_dir(home.path("cache/staging")).unwrap().count();
    assert_eq!((staged, templates(&home).len()), (0, 0));
}
