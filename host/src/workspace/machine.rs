//! Bringing a machine up for a workspace: what it boots, with which
//! accelerator, and what becomes of the attempt.

use super::admission;
use super::shape::Shape;
use crate::blocking::blocking;
use crate::context::{Context, unless_cancelled};
use crate::disk;
use crate::environment::Bootable;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events};
use crate::facts::{self, Facts};
use crate::id::WorkspaceId;
use crate::pyro::Pyro;
use crate::supervisor::launch::Lease;
use crate::supervisor::{Assignment, Lifetime, Ready};
use crate::vmm::{Accelerator, Durability, Machine, qemu};
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
}

/// Measuring takes a while, once per boot of the host.
async fn gather(pyro: &Pyro) -> Result<Facts> {
    let config = pyro.config.clone();
    blocking(move || Facts::gather(&config)).await
}

async fn remember_kvm(pyro: &Pyro, boots: bool) {
    let config = pyro.config.clone();
    let remember = move || {
        facts::remember_kvm(&config, boots);
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

/// Starts a supervisor on a plan. Dropping the future midway leaves nothing.
pub(super) async fn launch(
    pyro: &Pyro,
    plan: &Plan<'_>,
    accelerator: Accelerator,
) -> Result<Lease> {
    plan.shape.check()?;
    admission::admit(&pyro.config, &plan.directory, plan.shape.mem_mib).await?;
    let (seed, seeded) = match &plan.seed {
        Some(seed) => (seed.clone(), true),
        None => (disk::no_seed(&pyro.config)?, false),
    };
    let assignment = Assignment {
        workspace: plan.id,
        directory: plan.directory.clone(),
        lifetime: plan.lifetime,
        seeded,
        machine: Machine {
            vcpu_count: plan.shape.vcpu_count,
            mem_mib: plan.shape.mem_mib,
            kernel: plan.bootable.kernel.vmlinux.clone(),
            kernel_flavor: plan.bootable.kernel.flavor,
            initrd: plan.bootable.kernel.initrd.clone(),
            root_image: plan.bootable.root_image.clone(),
            disk: plan.disk.clone(),
            durability: match plan.lifetime {
                Lifetime::Lease => Durability::Scratch,
                Lifetime::Made | Lifetime::Kept => Durability::Kept,
            },
            seed,
            accelerator,
            verbose: false,
        },
        qemu: qemu::find(&pyro.config)?,
        tsc_khz: gather(pyro).await?.tsc_khz,
        deadlines: pyro.deadlines,
    };
    pyro.launcher.launch(&pyro.config, &assignment, plan.lock).await
}

/// Boots a plan and waits until the guest serves calls. A lease that is given
/// back has a guest that does.
pub(super) async fn boot(
    pyro: &Pyro,
    plan: &Plan<'_>,
    accelerator: Accelerator,
    caller: &Caller<'_>,
) -> Result<(Lease, Ready)> {
    let mut lease = caller.unless_cancelled(launch(pyro, plan, accelerator)).await?;
    match caller.unless_cancelled(lease.ready()).await {
        Ok(ready) => {
            // Without it more counts as promised than is.
            drop(admission::taken_by(&plan.directory, plan.shape.mem_mib, ready.vmm_pid));
            Ok((lease, ready))
        }
        Err(error) => {
            // Nothing of it is to be left; that it failed is what matters.
            drop(lease.release().await);
            Err(error)
        }
    }
}

/// With which accelerator to boot, and whether it is a guess.
pub(super) enum Attempt {
    /// What was asked for or proven: there is no other.
    Sure(Accelerator),
    /// KVM seems to be there.
    Guess,
    /// The guess came to nothing.
    Second,
}

impl Attempt {
    pub(super) async fn first(pyro: &Pyro) -> Result<Self> {
        gather(pyro).await?;
        Ok(match choose(pyro)? {
            (Accelerator::Kvm, false) => Self::Guess,
            (accelerator, _) => Self::Sure(accelerator),
        })
    }

    pub(super) fn accelerator(&self) -> Accelerator {
        match self {
            Self::Sure(accelerator) => *accelerator,
            Self::Guess => Accelerator::Kvm,
            Self::Second => Accelerator::Tcg,
        }
    }

    /// Judges what the attempt came to; `None` when it is to be made again with
    /// what is the accelerator now. What is learned of KVM is remembered.
    pub(super) async fn judge<T>(
        &mut self,
        pyro: &Pyro,
        outcome: Result<T>,
        events: &Events,
    ) -> Option<Result<T>> {
        match (&self, &outcome) {
            (Self::Guess, Ok(_)) => remember_kvm(pyro, true).await,
            (Self::Guess, Err(error)) if error.kind() == ErrorKind::BootFailed => {
                let warning = format!("no guest boots with KVM, so it is translated: {error}");
                events.emit(Event::Warning(warning)).await;
                *self = Self::Second;
                return None;
            }
            // Only now it is KVM that was at fault.
            (Self::Second, Ok(_)) => remember_kvm(pyro, false).await,
            (Self::Sure(_) | Self::Guess | Self::Second, _) => {}
        }
        Some(outcome)
    }
}

/// Boots a plan with the best accelerator there is.
pub(super) async fn boot_best(pyro: &Pyro, plan: &Plan<'_>, caller: &Caller<'_>) -> Result<Lease> {
    let mut attempt = Attempt::first(pyro).await?;
    loop {
        let booted = boot(pyro, plan, attempt.accelerator(), caller).await;
        if let Some(booted) = attempt.judge(pyro, booted, caller.events).await {
            return booted.map(|(lease, _)| lease);
        }
    }
}

/// What the user asked for, else what was proven to work, else a good guess;
/// and whether it is more than a guess.
pub fn choose(pyro: &Pyro) -> Result<(Accelerator, bool)> {
    match pyro.config.accelerator.as_deref() {
        Some("kvm") => Ok((Accelerator::Kvm, true)),
        Some("tcg") => Ok((Accelerator::Tcg, true)),
        Some(other) => {
            Err(Error::new(ErrorKind::InvalidInput, format!("PYRO_ACCELERATOR is {other:?}"))
                .hint("set it to kvm or tcg, or unset it"))
        }
        None => {
            let proven = Facts::gather(&pyro.config)?.kvm_boots();
            let kvm = proven.unwrap_or_else(facts::processor_claims_kvm);
            let accelerator = if kvm { Accelerator::Kvm } else { Accelerator::Tcg };
            Ok((accelerator, proven.is_some()))
        }
    }
}
