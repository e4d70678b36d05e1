//! What pyro asks of a virtual machine monitor. Only `vmm/` and `vsock/` know
//! which one it is.

pub mod firecracker;
mod installed;
mod metrics;
mod qemu;
mod rung;

pub use installed::{Installed, find, programs};
pub use metrics::Metrics;
pub use rung::{Rung, UnknownRung};

use crate::error::{Error, ErrorKind, Result};
use crate::id::WorkspaceId;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::num::{NonZeroU32, NonZeroU64};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tokio::net::{UnixListener, UnixStream};

/// The kernel's word by which the agent knows that its machine is to be saved, and
/// does beforehand what others then need not.
const REHEARSE: &str = "pyro.rehearse";

/// The kernels that pyro boots; they need different treatment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KernelFlavor {
    /// Built by `make kernel`: everything built in, no ACPI needed.
    Tuned,
    /// Debian's cloud kernel: needs ACPI and modules from an initial RAM disk.
    Stock,
}

impl KernelFlavor {
    /// Both, the quicker to boot first.
    pub const ALL: [Self; 2] = [Self::Tuned, Self::Stock];

    /// Its name, as in commands and directories.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tuned => "tuned",
            Self::Stock => "stock",
        }
    }
}

/// A word that names no kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernels are `tuned` and `stock`")]
pub struct UnknownKernel;

impl FromStr for KernelFlavor {
    type Err = UnknownKernel;

    fn from_str(name: &str) -> Result<Self, UnknownKernel> {
        Self::ALL.into_iter().find(|flavor| flavor.as_str() == name).ok_or(UnknownKernel)
    }
}

impl fmt::Display for KernelFlavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a disk is ever read again once its guest has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Never: what the guest wants written out need not be.
    Scratch,
    /// It is, also after a crash of the host.
    Kept,
}

/// How fast a guest may use a disk, reading and writing taken together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// MiB in a second; as fast as it goes if not said.
    pub mib_per_second: Option<NonZeroU32>,
    /// Reads and writes in a second, however large.
    pub operations_per_second: Option<NonZeroU32>,
}

impl RateLimit {
    /// As fast as it goes.
    pub const NONE: Self = Self { mib_per_second: None, operations_per_second: None };

    /// What moves in a second at most.
    #[must_use]
    pub fn bytes_per_second(self) -> Option<NonZeroU64> {
        const MIB: NonZeroU64 = NonZeroU64::new(1 << 20).expect("it is not zero");
        self.mib_per_second.map(|mib| NonZeroU64::from(mib).saturating_mul(MIB))
    }
}

/// What a guest may do with the workspace's disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Write it: it is the guest's own.
    #[default]
    Write,
    /// Look at it.
    Read,
}

/// A computer to start. Its disks are, in this order: the read-only root image
/// (vda), the workspace's own disk (vdb), the read-only seed (vdc), whether
/// the workspace has one or not, and, where the guest is to make a copy, what it
/// makes that in (vdd).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// 1 to 32.
    pub vcpu_count: u32,
    /// At least 128.
    pub mem_mib: u32,
    /// An uncompressed ELF kernel with a PVH entry.
    pub kernel: PathBuf,
    /// What the kernel is.
    pub kernel_flavor: KernelFlavor,
    /// The initial RAM disk, when the kernel needs one.
    pub initrd: Option<PathBuf>,
    /// The environment's root image.
    pub root_image: PathBuf,
    /// The workspace's disk.
    pub disk: PathBuf,
    /// What may be done with that.
    #[serde(default)]
    pub disk_access: Access,
    /// Whether that is read again.
    pub durability: Durability,
    /// How fast the guest may use it.
    #[serde(default)]
    pub disk_limit: RateLimit,
    /// The seed's image.
    pub seed: PathBuf,
    /// What the guest copies to; nobody reads that before the guest has gone, and
    /// what it wants written out need not be.
    #[serde(default)]
    pub copy: Option<PathBuf>,
    /// Whether the guest is to have a network. A VMM that can gives it a NIC.
    #[serde(default)]
    pub networked: bool,
    /// Whether the kernel is to tell on the console all it does; it boots
    /// slower.
    pub verbose: bool,
    /// What it begins with.
    #[serde(default)]
    pub beginning: Beginning,
}

/// What a machine begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beginning {
    /// Its kernel.
    #[default]
    Boot,
    /// Its kernel; [`VmmProcess::save`] then makes these files, which nobody may
    /// have made before.
    BootToSave(Saved),
    /// What it was when it was saved, on a machine that was the same but for what
    /// is on its disks. Many may begin with the same files, which stay as they
    /// are.
    Restore(Saved),
}

/// A machine that was saved, as two files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// What its processors and devices were.
    pub state: PathBuf,
    /// What its memory was; a hole where that was never written.
    pub memory: PathBuf,
}

/// How bytes get in and out of the guest.
#[derive(Debug)]
pub enum Link {
    /// One byte stream, to be multiplexed.
    Stream(UnixStream),
    /// The VMM serves the endpoint itself, where `vsock` looks for it. What the
    /// guest opens to the announcement's port arrives here.
    Endpoint(UnixListener),
}

/// A virtual machine that was started.
pub struct Started {
    /// The way to the agent.
    pub link: Link,
    /// The other end of the guest's NIC, as
    /// [`Cable`](crate::egress::gateway::wire::Cable) takes it.
    pub nic: Option<UnixStream>,
    /// What the guest's console and the VMM itself print.
    pub console: Vec<OwnedFd>,
    /// The VMM's process.
    pub process: Box<dyn VmmProcess>,
}

/// A running VMM.
pub trait VmmProcess: Send {
    /// The process id on the host, where there is a process.
    fn pid(&self) -> Option<u32>;

    /// Is told that the guest has come up: what only its start needed can go.
    fn came_up(&mut self) {}

    /// Waits for its end and says how it ended.
    fn wait(&mut self) -> BoxFuture<'_, String>;

    /// Ends it at once; [`VmmProcess::wait`] then returns.
    fn kill(&mut self);

    /// Makes the guest stand still, its memory kept. Fine if it does already.
    ///
    /// # Errors
    /// `Unsupported`; `TimedOut` when the VMM does not say. Whether the guest
    /// stands still is then not known.
    fn pause(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(unsupported("pause a guest")) })
    }

    /// Lets a guest go on that stands still. Fine if it does not.
    ///
    /// # Errors
    /// As [`VmmProcess::pause`].
    fn resume(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(unsupported("resume a guest")) })
    }

    /// Saves a machine that began with [`Beginning::BootToSave`]. It stands still
    /// from then on and is good for nothing but its end.
    ///
    /// # Errors
    /// `Unsupported`; and when the VMM fails, or does not say in time.
    fn save(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(unsupported("save a guest")) })
    }

    /// What the VMM has counted so far.
    ///
    /// # Errors
    /// `Unsupported`; and when the VMM does not say.
    fn metrics(&mut self) -> BoxFuture<'_, Result<Metrics>> {
        Box::pin(async { Err(unsupported("count what a guest does")) })
    }
}

/// What a VMM cannot do.
fn unsupported(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("this VMM cannot {what}"))
}

/// Where a machine's files are and who holds it.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Whose machine it is.
    pub workspace: WorkspaceId,
    /// The workspace's directory, where the VMM may keep what is its own.
    pub directory: &'a Path,
    /// The VMM has this file open until it is gone, however it ends, and with it
    /// the lock: no other is to write the same disk before.
    pub lock: &'a File,
}

/// A virtual machine monitor.
pub trait Vmm: Send + Sync {
    /// What a machine that is saved and all that are restored from it have in
    /// common, in the VMM's own words, without a path of the host; `None` when it
    /// cannot save such a machine.
    fn likeness(&self, _machine: &Machine) -> Option<String> {
        None
    }

    /// Starts a machine. Returns once the VMM runs, long before the guest does.
    fn start<'a>(
        &'a self,
        machine: &'a Machine,
        place: Place<'a>,
    ) -> BoxFuture<'a, Result<Started>>;
}
