//! What can only be seen by booting a guest.

use super::{Accelerator as Row, Check, State, Trial};
use crate::environment::Environments;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events};
use crate::facts::{self, Facts};
use crate::supervisor::Ready;
use crate::vmm::Accelerator;
use crate::{Pyro, confine, workspace};
use std::fs::File;

/// Boots a guest every way there is, the fastest first, and remembers whether
/// KVM works. Also tells what the VMM of the guest that booted could do.
pub async fn all(pyro: &Pyro, events: &Events) -> (Vec<Row>, Option<Check>) {
    let environment = match built_environment(pyro) {
        Ok(environment) => environment,
        Err(error) => {
            let rows = [Accelerator::Kvm, Accelerator::Tcg]
                .map(|accelerator| row(accelerator, Trial::Skipped { reason: error.chain() }));
            return (rows.into(), None);
        }
    };
    let mut rows = Vec::new();
    let mut confinement = None;
    for accelerator in [Accelerator::Kvm, Accelerator::Tcg] {
        events.emit(Event::Stage { name: "trying", subject: accelerator.to_string() }).await;
        let tried = match openable(accelerator) {
            Ok(()) => workspace::trial(pyro, &environment, accelerator, look).await,
            Err(error) => Err(error),
        };
        if accelerator == Accelerator::Kvm {
            remember(pyro, tried.is_ok());
        }
        let trial = match tried {
            Ok((ready, seen)) => {
                confinement = Some(seen);
                Trial::Proven { boot_ms: ready.boot_us / 1000 }
            }
            Err(error) => failed(accelerator, &error),
        };
        rows.push(row(accelerator, trial));
    }
    (rows, confinement)
}

fn failed(accelerator: Accelerator, error: &Error) -> Trial {
    let reason = error.chain();
    let next_step = error.next_step().map(str::to_owned);
    // The device opens, a machine can be made, and no guest ever runs: seen on
    // virtual machines whose own host keeps virtualisation from them.
    if accelerator == Accelerator::Kvm
        && error.kind() == ErrorKind::BootFailed
        && !facts::processor_claims_kvm()
    {
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

fn row(accelerator: Accelerator, trial: Trial) -> Row {
    Row { name: accelerator.to_string(), vmm: "qemu".into(), trial }
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

fn openable(accelerator: Accelerator) -> Result<()> {
    match accelerator {
        Accelerator::Tcg => Ok(()),
        Accelerator::Kvm => {
            File::options().read(true).write(true).open("/dev/kvm").map(drop).map_err(|error| {
                let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
                let hint = if denied {
                    "join the group that owns it: `adduser $USER kvm`"
                } else {
                    "turn on virtualisation in the firmware, or in the host of this virtual machine"
                };
                Error::new(ErrorKind::HostRequirement, "cannot open /dev/kvm")
                    .because(error)
                    .hint(hint)
            })
        }
    }
}

/// So that `pyro run` need not guess. That it cannot be remembered costs a
/// guess and nothing else.
fn remember(pyro: &Pyro, kvm_boots: bool) {
    if let Ok(mut facts) = Facts::gather(&pyro.config) {
        facts.kvm_boots = Some(kvm_boots);
        drop(facts.keep(&pyro.config));
    }
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
