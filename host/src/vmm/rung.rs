//! The ways to run a guest, as a ladder: whoever stands higher is preferred
//! wherever a guest was seen to come up there.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One way to run a guest: a VMM, and what runs the guest's instructions.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// Firecracker, on the processor's own virtualisation.
    Firecracker,
    /// QEMU, on the same.
    QemuKvm,
    /// QEMU, which translates: slower, and works everywhere.
    QemuTcg,
}

impl Rung {
    /// All, the best first.
    pub const ALL: [Self; 3] = [Self::Firecracker, Self::QemuKvm, Self::QemuTcg];

    /// Its name, as in options, records and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firecracker => "firecracker",
            Self::QemuKvm => "qemu-kvm",
            Self::QemuTcg => "qemu-tcg",
        }
    }

    /// The VMM, as its makers write it.
    #[must_use]
    pub const fn vmm(self) -> &'static str {
        match self {
            Self::Firecracker => "Firecracker",
            Self::QemuKvm | Self::QemuTcg => "QEMU",
        }
    }

    /// Whether the processor itself runs the guest.
    #[must_use]
    pub const fn needs_kvm(self) -> bool {
        match self {
            Self::Firecracker | Self::QemuKvm => true,
            Self::QemuTcg => false,
        }
    }

    /// What runs the guest's instructions.
    #[must_use]
    pub const fn accelerator(self) -> &'static str {
        if self.needs_kvm() { "kvm" } else { "tcg" }
    }
}

/// A word that names no rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ways to run a guest are `firecracker`, `qemu-kvm` and `qemu-tcg`")]
pub struct UnknownRung;

impl FromStr for Rung {
    type Err = UnknownRung;

    fn from_str(name: &str) -> Result<Self, UnknownRung> {
        Self::ALL.into_iter().find(|rung| rung.as_str() == name).ok_or(UnknownRung)
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
