//! The template that a guest is restored from, made when there is none. What goes
//! wrong with one is told and costs a boot, nothing else.

use super::admission;
use super::directory::Directory;
use super::machine::{Caller, Plan};
use crate::blocking::blocking;
use crate::disk;
use crate::egress;
use crate::error::{ErrorKind, Result};
use crate::event::Event;
use crate::pyro::Pyro;
use crate::supervisor::{Assignment, Came, Lifetime, Purpose, Ready};
use crate::template::{Content, Making, Template, Templates, Wanted};
use crate::vmm::{Beginning, Durability, Machine, Rung};

/// How a guest is to come up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Start {
    /// From a template if that can be.
    #[default]
    Quick,
    /// Its kernel boots.
    Cold,
}

impl Start {
    /// Quick, unless it is to be cold.
    #[must_use]
    pub const fn unless(cold: bool) -> Self {
        if cold { Self::Cold } else { Self::Quick }
    }
}

/// A template that fits a guest; it stays while this lives.
pub(super) struct Fitting {
    wanted: Wanted,
    template: Template,
}

impl Fitting {
    /// What a machine begins with that is restored from it.
    pub(super) fn beginning(&self) -> Beginning {
        Beginning::Restore(self.template.saved())
    }

    /// Tells when it came to nothing, and sees to it that another is made.
    pub(super) async fn judge(self, pyro: &Pyro, ready: &Ready, caller: &Caller<'_>) {
        let Self { wanted, template } = self;
        let templates = Templates::new(&pyro.config);
        let why = match &ready.came {
            Came::BootedInstead(why) => why.clone(),
            Came::Restored | Came::Booted => return templates.served(&wanted),
        };
        // Held, it could not be removed.
        drop(template);
        let told = format!("the template was of no use, so the kernel booted: {why}");
        let noted = blocking(move || {
            templates.failed(&wanted, &why);
            Ok(())
        });
        // Then the next one learns it anew.
        drop(noted.await);
        caller.events.emit(Event::Warning(told)).await;
    }
}

/// Finds the template that fits a plan, or makes it.
///
/// # Errors
/// Only when the caller changes its mind: without a template the guest boots.
pub(super) async fn fitting(
    pyro: &Pyro,
    plan: &Plan<'_>,
    rung: Rung,
    assignment: &Assignment,
    caller: &Caller<'_>,
) -> Result<Option<Fitting>> {
    if plan.start == Start::Cold || !pyro.config.templates {
        return Ok(None);
    }
    match find_or_make(pyro, plan, rung, assignment, caller).await {
        Ok(fitting) => Ok(fitting),
        Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
        Err(error) => {
            let warning = format!("there is no template, so the kernel boots: {}", error.chain());
            caller.events.emit(Event::Warning(warning)).await;
            Ok(None)
        }
    }
}

async fn find_or_make(
    pyro: &Pyro,
    plan: &Plan<'_>,
    rung: Rung,
    assignment: &Assignment,
    caller: &Caller<'_>,
) -> Result<Option<Fitting>> {
    let vmm = pyro.launcher.vmm(&assignment.vmm);
    let content = Content {
        environment: &plan.bootable.environment,
        root: plan.bootable.root_digest,
        kernel: plan.bootable.kernel.digest,
    };
    let wanted = Wanted::of(&pyro.config, vmm, rung, &assignment.machine, content)?;
    let Some(wanted) = wanted else { return Ok(None) };
    let templates = Templates::new(&pyro.config);
    if templates.given_up(&wanted) {
        return Ok(None);
    }
    if let Some(template) = find(&templates, &wanted, caller).await? {
        return Ok(Some(Fitting { wanted, template }));
    }
    let making = caller.unless_cancelled(templates.make()).await?;
    // While others made it, perhaps.
    if let Some(template) = find(&templates, &wanted, caller).await? {
        return Ok(Some(Fitting { wanted, template }));
    }
    caller.stage("making a template of", &wanted.environment).await;
    match make(pyro, assignment, &templates, &wanted, making, caller).await {
        Ok(template) => Ok(Some(Fitting { wanted, template })),
        Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
        Err(error) => {
            templates.failed(&wanted, &error.chain());
            Err(error)
        }
    }
}

/// One that is damaged is told, and another made.
async fn find(
    templates: &Templates,
    wanted: &Wanted,
    caller: &Caller<'_>,
) -> Result<Option<Template>> {
    let (templates, wanted) = (templates.clone(), wanted.clone());
    match blocking(move || templates.find(&wanted)).await {
        Ok(found) => Ok(found),
        Err(error) if error.kind() == ErrorKind::EnvironmentCorrupt => {
            caller.events.emit(Event::Warning(error.chain())).await;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Boots a guest that is like the one that is wanted and has nothing, and saves it.
async fn make(
    pyro: &Pyro,
    like: &Assignment,
    templates: &Templates,
    wanted: &Wanted,
    making: Making,
    caller: &Caller<'_>,
) -> Result<Template> {
    let directory = Directory::create(&pyro.config)?;
    let disk = directory.path().join("disk.ext4");
    disk::create(&pyro.config, &disk, disk::DEFAULT_MIB, Durability::Scratch).await?;
    let assignment = Assignment {
        workspace: directory.id(),
        directory: directory.path().to_owned(),
        lifetime: Lifetime::Lease,
        seeded: false,
        purpose: Purpose::Template,
        machine: Machine {
            disk,
            seed: disk::no_seed(&pyro.config)?,
            beginning: Beginning::BootToSave(making.saved()),
            ..like.machine.clone()
        },
        network: egress::Network::default(),
        ..like.clone()
    };
    admission::admit(&pyro.config, directory.path(), assignment.machine.mem_mib).await?;
    let launching = pyro.launcher.launch(&pyro.config, &assignment, directory.lock());
    let mut lease = caller.unless_cancelled(launching).await?;
    let saved = caller.unless_cancelled(lease.ready()).await;
    // It is to be gone before its memory is looked at.
    let released = lease.release().await;
    saved?;
    released?;
    let (templates, wanted) = (templates.clone(), wanted.clone());
    blocking(move || templates.publish(&wanted, &making)).await
}
