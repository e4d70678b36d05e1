//! What can only be seen by booting a guest.

use super::{Check, State, Trial, Tried};
use crate::environment::Environments;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events};
use crate::facts;
use crate::supervisor::Ready;
use crate::vmm::{self, Rung};
use crate::{Pyro, confine, workspace};
use tokio_util::sync::CancellationToken;

/// Boots a guest on every rung, the best first, and remembers which work. Also
/// tells what the VMM of the best guest that booted could do.
pub async fn all(
    pyro: &Pyro,
    events: &Events,
    cancel: &CancellationToken,
) -> (Vec<Tried>, Option<Check>) {
    let environment = match built_environment(pyro) {
        Ok(environment) => environment,
        Err(error) => {
            let rows = Rung::ALL.map(|rung| row(rung, Trial::Skipped { reason: error.chain() }));
            return (rows.into(), None);
        }
    };
    let mut rows = Vec::new();
    let mut confinement = None;
    let mut hung = Vec::new();
    for rung in Rung::ALL {
        if cancel.is_cancelled() {
            break;
        }
        events.emit(Event::Stage { name: "trying", subject: rung.to_string() }).await;
        let tried = match possible(pyro, rung) {
            Ok(()) => workspace::trial(pyro, &environment, rung, cancel, look).await,
            Err(error) => Err(error),
        };
        let trial = match tried {
            Ok((ready, seen)) => {
                facts::remember(&pyro.config, rung, true);
                // Where a guest boots at all it is the other rungs that are at fault.
                for rung in hung.drain(..) {
                    facts::remember(&pyro.config, rung, false);
                }
                confinement.get_or_insert(seen);
                Trial::Proven { boot_ms: ready.boot_us / 1000 }
            }
            Err(error) => {
                if error.kind() == ErrorKind::BootFailed {
                    hung.push(rung);
                }
                failed(rung, &error)
            }
        };
        rows.push(row(rung, trial));
    }
    (rows, confinement)
}

fn failed(rung: Rung, error: &Error) -> Trial {
    let reason = error.chain();
    let next_step = error.next_step().map(str::to_owned);
    // The device opens, a machine can be made, and no guest ever runs: seen on
    // virtual machines whose own host keeps virtualisation from them.
    if rung.needs_kvm() && error.kind() == ErrorKind::BootFailed && !facts::processor_claims_kvm() {
        return Trial::Failed {
            reason: format!(
                "{reason}; /dev/kvm opens, but the processor offers no virtualisation (no svm or vmx flag)"
            ),
            next_step: Some(
                "if this is a virtual machine, turn on nested virtualisation in its host".into(),
            ),
        };
    }
    Trial::Failed { reason, next_step }
}

fn row(name: Rung, trial: Trial) -> Tried {
    Tried { name, vmm: name.vmm().into(), accelerator: name.accelerator().into(), trial }
}

/// Any environment serves; the smallest comes first in the list.
fn built_environment(pyro: &Pyro) -> Result<String> {
    let built =
        Environments::new(&pyro.config).list()?.into_iter().find(|one| one.installed.is_some());
    built.map(|one| one.name).ok_or_else(|| {
        Error::new(
            ErrorKind::EnvironmentMissing,
            "no environment is built, so no guest can be booted",
        )
        .hint("run `pyro env build debian:12`")
    })
}

/// What can be known without trying.
fn possible(pyro: &Pyro, rung: Rung) -> Result<()> {
    vmm::programs(&pyro.config, rung)?;
    if rung.needs_kvm() { facts::open_kvm() } else { Ok(()) }
}

fn look(ready: &Ready) -> Check {
    let name = "confinement of the VMM".to_string();
    match ready.vmm_pid.map(confine::inspect) {
        Some(Ok(seen)) if seen.gaps().is_empty() => {
            Check { name, state: State::Ok, detail: seen.to_string(), next_step: None }
        }
        Some(Ok(seen)) => Check {
            name,
            state: State::Warning,
            detail: format!("{seen}; not {}", seen.gaps().join(", not ")),
            next_step: Some("see docs/security.md for what the host must allow".into()),
        },
        Some(Err(error)) => {
            Check { name, state: State::Failed, detail: error.chain(), next_step: None }
        }
        None => Check {
            name,
            state: State::Skipped,
            detail: "the VMM is no process".into(),
            next_step: None,
        },
    }
}
