//! Bringing a machine up for a workspace: what it boots, on which rung of the
//! ladder, and what becomes of the attempt.

use super::admission;
use super::shape::Shape;
use super::template::{self, Start};
use crate::blocking::blocking;
use crate::context::{Context, unless_cancelled};
use crate::disk;
use crate::egress::{self, NetworkPolicy};
use crate::environment::Bootable;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events};
use crate::facts::{self, Facts};
use crate::id::WorkspaceId;
use crate::pyro::Pyro;
use crate::supervisor::launch::Lease;
use crate::supervisor::{Assignment, Lifetime, Purpose, Ready};
use crate::vmm::{self, Access, Beginning, Durability, Machine, Rung};
use std::fs::File;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// All that is needed to boot a workspace.
pub(super) struct Plan<'a> {
    pub id: WorkspaceId,
    /// The workspace's directory.
    pub directory: PathBuf,
    /// The lock that the supervisor is to hold.
    pub lock: &'a File,
    pub bootable: &'a Bootable,
    pub shape: Shape,
    pub disk: PathBuf,
    /// The seed's image; `None` without one.
    pub seed: Option<PathBuf>,
    pub lifetime: Lifetime,
    /// Its network.
    pub network: egress::Network,
    /// What is done in it.
    pub form: Form,
    /// How it comes up.
    pub start: Start,
}

/// What is done in a guest.
pub(super) enum Form {
    /// Programs run, and the disk is its own.
    Work,
    /// The disk is looked at, and all that is seen there copied into a file, if
    /// there is one.
    Inspection { copy: Option<PathBuf> },
}

/// Measuring takes a while, once per boot of the host.
async fn gather(pyro: &Pyro) -> Result<Facts> {
    let config = pyro.config.clone();
    blocking(move || Facts::gather(&config)).await
}

async fn remember(pyro: &Pyro, rung: Rung, boots: bool) {
    let config = pyro.config.clone();
    let remember = move || {
        facts::remember(&config, rung, boots);
        Ok(())
    };
    // It is worth no failure.
    drop(blocking(remember).await);
}

/// Whether and how the caller can be told and can change its mind.
pub(super) struct Caller<'a> {
    pub events: &'a Events,
    pub cancel: &'a CancellationToken,
}

impl<'a> From<&'a Context> for Caller<'a> {
    fn from(context: &'a Context) -> Self {
        Self { events: &context.events, cancel: &context.cancel }
    }
}

impl Caller<'_> {
    /// The future's result, unless the caller changes its mind meanwhile.
    pub(super) async fn unless_cancelled<T>(
        &self,
        doing: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        unless_cancelled(self.cancel, doing).await
    }

    pub(super) async fn stage(&self, name: &'static str, subject: impl Into<String>) {
        self.events.emit(Event::Stage { name, subject: subject.into() }).await;
    }
}

/// What a supervisor is to do to boot a plan.
async fn assign(pyro: &Pyro, plan: &Plan<'_>, rung: Rung) -> Result<Assignment> {
    plan.shape.check()?;
    let (seed, seeded) = match &plan.seed {
        Some(seed) => (seed.clone(), true),
        None => (disk::no_seed(&pyro.config)?, false),
    };
    let (purpose, disk_access, copy) = match &plan.form {
        Form::Work => (Purpose::Work, Access::Write, None),
        Form::Inspection { copy } => (Purpose::Inspection, Access::Read, copy.clone()),
    };
    Ok(Assignment {
        workspace: plan.id,
        directory: plan.directory.clone(),
        secret_key: crate::secret::store::key_path(&pyro.config),
        lifetime: plan.lifetime,
        seeded,
        purpose,
        machine: Machine {
            vcpu_count: plan.shape.vcpu_count,
            mem_mib: plan.shape.mem_mib,
            kernel: plan.bootable.kernel.vmlinux.clone(),
            kernel_flavor: plan.bootable.kernel.flavor,
            initrd: plan.bootable.kernel.initrd.clone(),
            root_image: plan.bootable.root_image.clone(),
            disk: plan.disk.clone(),
            disk_access,
            durability: match plan.lifetime {
                Lifetime::Lease => Durability::Scratch,
                Lifetime::Made | Lifetime::Kept => Durability::Kept,
            },
            disk_limit: plan.shape.disk_limit,
            seed,
            copy,
            networked: plan.network.policy != NetworkPolicy::Off,
            verbose: false,
            beginning: Beginning::Boot,
        },
        vmm: vmm::find(&pyro.config, rung, gather(pyro).await?.tsc_khz)?,
        network: plan.network.clone(),
        resolvers: pyro.config.resolvers.clone(),
        boot_deadline: if rung.needs_kvm() {
            pyro.deadlines.kvm_boot
        } else {
            pyro.deadlines.tcg_boot
        },
        deadlines: pyro.deadlines,
    })
}

/// Starts a supervisor on a plan. Dropping the future midway leaves nothing.
async fn launch(pyro: &Pyro, plan: &Plan<'_>, assignment: &Assignment) -> Result<Lease> {
    admission::admit(&pyro.config, &plan.directory, plan.shape.mem_mib).await?;
    pyro.launcher.launch(&pyro.config, assignment, plan.lock).await
}

/// Brings a plan's guest up, from a template or by a boot, and waits until it serves
/// calls. A lease that is given back has a guest that does.
pub(super) async fn boot(
    pyro: &Pyro,
    plan: &Plan<'_>,
    rung: Rung,
    caller: &Caller<'_>,
) -> Result<(Lease, Ready)> {
    let mut assignment = caller.unless_cancelled(assign(pyro, plan, rung)).await?;
    let fitting = template::fitting(pyro, plan, rung, &assignment, caller).await?;
    if let Some(fitting) = &fitting {
        assignment.machine.beginning = fitting.beginning();
    }
    let mut lease = caller.unless_cancelled(launch(pyro, plan, &assignment)).await?;
    match caller.unless_cancelled(lease.ready()).await {
        Ok(ready) => {
            // Without it more counts as promised than is.
            drop(admission::taken_by(&plan.directory, plan.shape.mem_mib, ready.vmm_pid));
            if let Some(fitting) = fitting {
                fitting.judge(pyro, &ready, caller).await;
            }
            Ok((lease, ready))
        }
        Err(error) => {
            // Nothing of it is to be left; that it failed is what matters.
            drop(lease.release().await);
            Err(error)
        }
    }
}

/// A way up: the rungs that may do, the best first.
pub(super) struct Attempt {
    rungs: Vec<Step>,
    /// Where no guest came up, though it might have.
    failed: Vec<Rung>,
}

/// A rung that may do.
struct Step {
    rung: Rung,
    /// Nobody has seen a guest come up there yet.
    guess: bool,
}

impl Attempt {
    /// Where to begin. With a rung that was asked for there is no other.
    ///
    /// # Errors
    /// `HostRequirement` when nothing is installed that could run a guest.
    pub(super) async fn first(pyro: &Pyro, asked: Option<Rung>) -> Result<Self> {
        gather(pyro).await?;
        let rungs = match wanted(pyro, asked)? {
            Some(rung) => vec![Step { rung, guess: false }],
            None => ladder(pyro)?,
        };
        Ok(Self { rungs, failed: Vec::new() })
    }

    /// What to try now.
    pub(super) fn rung(&self) -> Rung {
        self.rungs[0].rung
    }

    /// Judges what the attempt came to; `None` when it is to be made again on
    /// what is the rung now. What is learned is remembered.
    pub(super) async fn judge<T>(
        &mut self,
        pyro: &Pyro,
        outcome: Result<T>,
        events: &Events,
    ) -> Option<Result<T>> {
        let Step { rung, guess } = self.rungs[0];
        match &outcome {
            Ok(_) => {
                if guess {
                    remember(pyro, rung, true).await;
                }
                // Only now it is these that were at fault.
                for rung in self.failed.drain(..) {
                    remember(pyro, rung, false).await;
                }
            }
            Err(error) if guess && self.rungs.len() > 1 && is_the_rungs(error) => {
                self.failed.push(self.rungs.remove(0).rung);
                let next = self.rung();
                let warning = format!("no guest boots on {rung}, so {next} it is: {error}");
                events.emit(Event::Warning(warning)).await;
                return None;
            }
            Err(_) => {}
        }
        Some(outcome)
    }
}

/// Whether another rung may do where this one did not.
fn is_the_rungs(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BootFailed | ErrorKind::HostRequirement | ErrorKind::Unsupported
    )
}

/// Boots a plan on the best rung there is.
pub(super) async fn boot_best(
    pyro: &Pyro,
    plan: &Plan<'_>,
    mut attempt: Attempt,
    caller: &Caller<'_>,
) -> Result<Lease> {
    loop {
        let booted = boot(pyro, plan, attempt.rung(), caller).await;
        if let Some(booted) = attempt.judge(pyro, booted, caller.events).await {
            return booted.map(|(lease, _)| lease);
        }
    }
}

/// What the caller asks for, else what the user always wants.
fn wanted(pyro: &Pyro, asked: Option<Rung>) -> Result<Option<Rung>> {
    let always = || {
        pyro.config.vmm.as_deref().map(|name| {
            name.parse().map_err(|error: vmm::UnknownRung| {
                Error::new(ErrorKind::InvalidInput, format!("PYRO_VMM is {name:?}"))
                    .hint(format!("{error}; or unset it"))
            })
        })
    };
    asked.map(Ok).or_else(always).transpose()
}

/// The rungs that may do, up to the first that is known to.
fn ladder(pyro: &Pyro) -> Result<Vec<Step>> {
    let facts = Facts::gather(&pyro.config)?;
    let mut rungs = Vec::new();
    let mut missing = None;
    let mut passed_over = String::new();
    for rung in Rung::ALL {
        if let Err(error) = vmm::programs(&pyro.config, rung) {
            missing = Some(error);
            continue;
        }
        let mut pass_over = |why: String| passed_over += &format!("; {rung} is passed over: {why}");
        match facts.boots(&pyro.config, rung) {
            Some(true) => {
                rungs.push(Step { rung, guess: false });
                break;
            }
            Some(false) if rung.needs_kvm() => pass_over("no guest booted on it lately".into()),
            None if rung.needs_kvm() && !facts::kvm_is_likely() => {
                let closed = facts::open_kvm().err().map(|error| error.chain());
                let unlikely = || "the processor claims no virtualisation".to_owned();
                pass_over(closed.unwrap_or_else(unlikely));
            }
            // What translates needs nothing of the host, whatever went wrong once.
            None | Some(false) => rungs.push(Step { rung, guess: true }),
        }
    }
    match (rungs.is_empty(), missing) {
        // The last one's is the one that every host can have.
        (true, Some(error)) => {
            let told = Error::new(error.kind(), format!("{}{passed_over}", error.chain()));
            Err(match error.next_step() {
                Some(step) => told.hint(step),
                None => told,
            })
        }
        (true, None) | (false, _) => Ok(rungs),
    }
}

/// Where guests run that nobody asks a rung for: as the user always wants, or on
/// the best rung that may do.
///
/// # Errors
/// `HostRequirement` when nothing is installed that could run a guest.
pub fn choose(pyro: &Pyro) -> Result<Rung> {
    match wanted(pyro, None)? {
        Some(rung) => Ok(rung),
        None => ladder(pyro).map(|rungs| rungs[0].rung),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn i7_what_is_missing_is_told_with_what_was_passed_over() {
        let home = tempfile::tempdir().expect("a directory");
        let program = home.path().join("firecracker");
        std::fs::write(&program, "").expect("written");
        let config = Config { firecracker: Some(program), ..Config::within(home.path()) };
        facts::remember(&config, Rung::Firecracker, false);
        let error = choose(&Pyro::new(config)).expect_err("there is nothing");
        assert_eq!(error.kind(), ErrorKind::HostRequirement);
        let said = error.chain();
        assert!(said.contains("qemu-system-x86_64 is not installed"), "{said}");
        assert!(
            said.contains("firecracker is passed over: no guest booted on it lately"),
            "{said}"
        );
        assert!(error.next_step().is_some_and(|step| step.contains("apt-get install")));
    }

    #[test]
    fn i5_the_best_proven_rung_is_chosen_unless_one_is_asked_for() {
        let home = tempfile::tempdir().expect("a directory");
        let program = home.path().join("a-vmm");
        std::fs::write(&program, "").expect("written");
        let config = Config {
            firecracker: Some(program.clone()),
            qemu: Some(program),
            ..Config::within(home.path())
        };
        facts::remember(&config, Rung::Firecracker, false);
        facts::remember(&config, Rung::QemuKvm, true);
        let chosen = |config: &Config| choose(&Pyro::new(config.clone()));
        assert_eq!(chosen(&config).expect("proven"), Rung::QemuKvm);
        facts::remember(&config, Rung::Firecracker, true);
        assert_eq!(chosen(&config).expect("proven"), Rung::Firecracker);
        let asked = Config { vmm: Some("qemu-tcg".into()), ..config.clone() };
        assert_eq!(chosen(&asked).expect("asked for"), Rung::QemuTcg);
        let wrong = Config { vmm: Some("hvf".into()), ..config };
        assert_eq!(chosen(&wrong).expect_err("no rung").kind(), ErrorKind::InvalidInput);
    }
}
