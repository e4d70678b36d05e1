//! QEMU's `microvm` machine, with KVM or without.

mod command_line;
mod qmp;

use super::{Access, Beginning, Link, Machine, Metrics, Place, Rung, Started, Vmm, VmmProcess};
use crate::confine::{self, Confined, Confinement, Limits};
use crate::error::{Error, ErrorKind, Result};
use crate::guest_text;
use command_line::{CommandLine, Descriptors};
use futures::future::BoxFuture;
use qmp::Monitor;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// The program's name on `PATH`.
const PROGRAM: &str = "qemu-system-x86_64";

/// What QEMU needs besides its guest's memory, generously: itself, page tables,
/// and the host's cache of the disks, which is given back when it runs short.
const OWN_MEMORY: u64 = 256 << 20;

/// Code that was translated is kept, up to this.
const TRANSLATED_MAX: u64 = 1 << 30;

/// The most of its own words that an error has.
const WORDS_MAX: u64 = 1024;

/// Threads: one for each virtual processor; those that read and write disks, 64 at
/// most; and some of its own.
const OWN_THREADS: u32 = 128;

/// Where QEMU's firmware and modules are; a confined QEMU sees these only.
const LIBRARIES: &[&str] = &[
    "/usr/lib",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/share/qemu",
    "/usr/share/seabios",
    "/lib",
    "/lib64",
];

/// How QEMU runs a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// The processor does.
    Kvm,
    /// It translates them.
    Tcg,
}

impl Accelerator {
    /// That of a rung.
    pub(super) const fn of(rung: Rung) -> Self {
        if rung.needs_kvm() { Self::Kvm } else { Self::Tcg }
    }

    /// The rung that it makes.
    pub(super) const fn rung(self) -> Rung {
        match self {
            Self::Kvm => Rung::QemuKvm,
            Self::Tcg => Rung::QemuTcg,
        }
    }
}

/// QEMU, as it is installed on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qemu {
    /// The program.
    pub program: PathBuf,
    /// How it runs the guest.
    pub accelerator: Accelerator,
    /// The rate of the host's time stamp counter. Guests without a paravirtual
    /// clock cannot find it out by themselves.
    pub tsc_khz: u64,
}

impl Vmm for Qemu {
    fn likeness(&self, machine: &Machine) -> Option<String> {
        command_line::likeness(machine, self)
    }

    fn start<'a>(
        &'a self,
        machine: &'a Machine,
        place: Place<'a>,
    ) -> BoxFuture<'a, Result<Started>> {
        Box::pin(async move {
            let Spawned { link, nic, console, errors, mut process, restored } =
                self.spawn(machine, place)?;
            if let Some(state) = restored {
                let restoring = process.monitor.restore(state);
                if let Err(error) = restoring.await {
                    return Err(process.explain(error, errors).await);
                }
            }
            Ok(Started { link, nic, console: vec![console, errors], process: Box::new(process) })
        })
    }
}

/// A QEMU that runs.
struct Spawned {
    link: Link,
    nic: Option<UnixStream>,
    console: OwnedFd,
    errors: OwnedFd,
    process: QemuProcess,
    /// What it waits to be restored from, by its number there.
    restored: Option<RawFd>,
}

impl Qemu {
    /// What it may take besides what its guest has.
    fn limits(&self, machine: &Machine) -> Limits {
        let own = match self.accelerator {
            Accelerator::Kvm => OWN_MEMORY,
            Accelerator::Tcg => OWN_MEMORY + TRANSLATED_MAX,
        };
        let guest = u64::from(machine.mem_mib) << 20;
        Limits {
            memory_bytes: Some(guest + guest / 16 + own),
            pids: Some(machine.vcpu_count + OWN_THREADS),
        }
    }

    fn spawn(&self, machine: &Machine, place: Place<'_>) -> Result<Spawned> {
        let (channel, channel_end) = socket_pair()?;
        let (console, console_end) = socket_pair()?;
        let (monitor, monitor_end) = socket_pair()?;
        let (nic, nic_end) = match machine.networked.then(socket_pair).transpose()? {
            Some((nic, nic_end)) => (Some(nic), Some(nic_end)),
            None => (None, None),
        };
        let (errors, errors_end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| Error::io("cannot make a pipe", error.into()))?;
        let root_image = open(&machine.root_image, false)?;
        let disk = open(&machine.disk, machine.disk_access == Access::Write)?;
        let seed = open(&machine.seed, false)?;
        let copy = machine.copy.as_deref().map(|copy| open(copy, true)).transpose()?;

        let mut confinement = Confinement::new(&self.program);
        confinement.see(LIBRARIES.iter().map(Path::new));
        confinement.see_as(&machine.kernel, command_line::KERNEL);
        if let Some(initrd) = &machine.initrd {
            confinement.see_as(initrd, command_line::INITRD);
        }
        if self.accelerator == Accelerator::Kvm {
            confinement.see_device(Path::new("/dev/kvm"), place.directory)?;
        }
        let (mut saved, mut restored) = (None, None);
        match &machine.beginning {
            Beginning::Boot => {}
            Beginning::BootToSave(to) => {
                let memory = make(&to.memory)?;
                memory.set_len(u64::from(machine.mem_mib) << 20).map_err(|error| {
                    Error::io(format!("cannot size {}", to.memory.display()), error)
                })?;
                confinement.see_writable(&to.memory, command_line::MEMORY)?;
                saved = Some(make(&to.state)?);
            }
            Beginning::Restore(from) => {
                confinement.lend(&from.memory, command_line::MEMORY)?;
                restored = Some(confinement.pass(open(&from.state, false)?));
            }
        }
        let descriptors = Descriptors {
            channel: confinement.pass(channel_end),
            console: confinement.pass(console_end),
            monitor: confinement.pass(monitor_end),
            nic: nic_end.map(|end| confinement.pass(end)),
            root_image: confinement.pass(root_image),
            disk: confinement.pass(disk),
            seed: confinement.pass(seed),
            copy: copy.map(|copy| confinement.pass(copy)),
        };
        confinement.limit(place.workspace, self.limits(machine));
        // It does not know of it, and has it nevertheless.
        let lock =
            place.lock.try_clone().map_err(|error| Error::io("cannot share a lock", error))?;
        confinement.pass(lock);
        confinement.stderr(errors_end);
        let arguments = CommandLine { machine, qemu: self, descriptors }.arguments();
        let process = confine::spawn(confinement, &arguments)?;
        let watched = |socket: OwnedFd| {
            let socket = std::os::unix::net::UnixStream::from(socket);
            socket
                .set_nonblocking(true)
                .and_then(|()| UnixStream::from_std(socket))
                .map_err(|error| Error::io("cannot watch QEMU's sockets", error))
        };
        let monitor = Monitor::new(watched(monitor)?);
        Ok(Spawned {
            link: Link::Stream(watched(channel)?),
            nic: nic.map(watched).transpose()?,
            console,
            errors,
            process: QemuProcess { process, monitor, saved },
            restored,
        })
    }
}

struct QemuProcess {
    process: Confined,
    monitor: Monitor,
    /// Where what its devices are is saved.
    saved: Option<File>,
}

impl QemuProcess {
    /// What QEMU itself has printed tells more than that its monitor is lost.
    async fn explain(&mut self, error: Error, errors: OwnedFd) -> Error {
        self.process.kill();
        self.process.wait().await;
        let mut words = Vec::new();
        // It is gone: all that it printed is there.
        drop(File::from(errors).take(WORDS_MAX).read_to_end(&mut words));
        if words.is_empty() {
            return error;
        }
        let words = guest_text::escaped(&String::from_utf8_lossy(&words), words.len());
        Error::new(error.kind(), format!("QEMU says {words}")).because(error)
    }
}

impl VmmProcess for QemuProcess {
    fn pid(&self) -> Option<u32> {
        Some(self.process.pid())
    }

    fn wait(&mut self) -> BoxFuture<'_, String> {
        let Self { process, monitor, saved: _ } = self;
        Box::pin(async {
            tokio::select! {
                how = process.wait() => how,
                never = monitor.heed_nothing() => match never {},
            }
        })
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn pause(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.monitor.stop())
    }

    fn resume(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.monitor.cont())
    }

    fn save(&mut self) -> BoxFuture<'_, Result<()>> {
        let Self { process: _, monitor, saved } = self;
        Box::pin(async {
            match saved {
                Some(state) => monitor.save(state.as_fd()).await,
                None => Err(super::unsupported("save a guest that it was not started to save")),
            }
        })
    }

    fn metrics(&mut self) -> BoxFuture<'_, Result<Metrics>> {
        Box::pin(self.monitor.metrics())
    }
}

fn socket_pair() -> Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|error| Error::io("cannot make a pair of sockets", error.into()))
}

/// A file that nobody has made before.
fn make(path: &Path) -> Result<File> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Error::io(format!("cannot make {}", path.display()), error))
}

fn open(path: &Path, write: bool) -> Result<OwnedFd> {
    File::options()
        .read(true)
        .write(write)
        .open(path)
        .map(|file| file.as_fd().try_clone_to_owned())
        .and_then(std::convert::identity)
        .map_err(|error| Error::io(format!("cannot open {}", path.display()), error))
}

/// Finds QEMU on this host.
///
/// # Errors
/// `HostRequirement` when it is not installed.
pub(super) fn find(config: &crate::Config) -> Result<PathBuf> {
    let missing = |what: String| {
        Error::new(ErrorKind::HostRequirement, what).hint(
            "install it with `apt-get install qemu-system-x86`, or set PYRO_QEMU to where it is",
        )
    };
    match &config.qemu {
        Some(path) if path.is_file() => Ok(path.clone()),
        Some(path) => {
            Err(missing(format!("PYRO_QEMU names {}, which is not a file", path.display())))
        }
        None => config
            .find_program(PROGRAM)
            .ok_or_else(|| missing(format!("{PROGRAM} is not installed"))),
    }
}
