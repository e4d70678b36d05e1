//! The VMMs of this host, and which rungs of the ladder they make.

use super::firecracker::{self, Firecracker};
use super::qemu::{self, Qemu};
use super::{Rung, Vmm};
use crate::config::Config;
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A VMM as it is installed on this host, with all that is needed to start it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Installed {
    /// See [`Firecracker`].
    Firecracker(Firecracker),
    /// QEMU, with what runs its guests.
    Qemu(Qemu),
}

impl AsRef<dyn Vmm> for Installed {
    fn as_ref(&self) -> &(dyn Vmm + 'static) {
        match self {
            Self::Firecracker(firecracker) => firecracker,
            Self::Qemu(qemu) => qemu,
        }
    }
}

impl Installed {
    /// Which rung of the ladder it makes.
    #[must_use]
    pub const fn rung(&self) -> Rung {
        match self {
            Self::Firecracker(_) => Rung::Firecracker,
            Self::Qemu(qemu) => qemu.accelerator.rung(),
        }
    }
}

/// Finds what stands on a rung.
///
/// # Errors
/// `HostRequirement` when it is not installed, with how to install it.
pub fn find(config: &Config, rung: Rung, tsc_khz: u64) -> Result<Installed> {
    match rung {
        Rung::Firecracker => firecracker::find(config).map(Installed::Firecracker),
        Rung::QemuKvm | Rung::QemuTcg => qemu::find(config)
            .map(|program| Qemu { program, tsc_khz, accelerator: qemu::Accelerator::of(rung) })
            .map(Installed::Qemu),
    }
}

/// The programs that a rung stands on: another file of one of them is another
/// VMM, and what was proven of it must be proven again.
///
/// # Errors
/// As [`find`].
pub fn programs(config: &Config, rung: Rung) -> Result<Vec<PathBuf>> {
    Ok(match find(config, rung, 0)? {
        Installed::Firecracker(Firecracker { program, jailer }) => {
            std::iter::once(program).chain(jailer).collect()
        }
        Installed::Qemu(Qemu { program, .. }) => vec![program],
    })
}
