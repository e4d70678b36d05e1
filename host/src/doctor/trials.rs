//! What can only be seen by booting a guest.

use super::{Accelerator as Row, Check, State, Trial};
use crate::environment::Environments;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events};
use crate::facts;
use crate::supervisor::Ready;
use crate::vmm::Accelerator;
use crate::{Pyro, confine, workspace};
use std::fs::File;
use tokio_util::sync::CancellationToken;

/// Boots a guest every way there is, the fastest first, and remembers whether
/// KVM works. Also tells what the VMM of the guest that booted could do.
pub async fn all(
    pyro: &Pyro,
    events: &Events,
    cancel: &CancellationToken,
) -> (Vec<Row>, Option<Check>) {
    let environment = match built_environment(pyro) {
        Ok(environment) => environment,
        Err(error) => {
            let rows = [Accelerator::Kvm, Accelerator::Tcg]
                .map(|accelerator| row(accelerator, Trial::Skipped { reason: error.chain() }));
            return (rows.into(), None);
        }
    };
    let mut rows = Vec::new();
    let mut kvm_hangs = false;
    let mut confinement = None;
    for accelerator in [Accelerator::Kvm, Accelerator::Tcg] {
        if cancel.is_cancelled() {
            break;
        }
        events.emit(Event::Stage { name: "trying", subject: accelerator.to_string() }).await;
        let tried = match openable(accelerator) {
            Ok(()) => workspace::trial(pyro, &environment, accelerator, cancel, look).await,
            Err(error) => Err(error),
        };
        match (accelerator, &tried) {
            (Accelerator::Kvm, Ok(_)) => facts::remember_kvm(&pyro.config, true),
            (Accelerator::Kvm, Err(error)) => kvm_hangs = error.kind() == ErrorKind::BootFailed,
            // Only where a guest boots at all it is KVM that is at fault.
            (Accelerator::Tcg, Ok(_)) if kvm_hangs => facts::remember_kvm(&pyro.config, false),
            (Accelerator::Tcg, _) => {}
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
