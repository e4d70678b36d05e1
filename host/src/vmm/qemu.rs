//! QEMU's `microvm` machine, with KVM or without.

mod command_line;

use super::{Link, Machine, Place, Rung, Started, Vmm, VmmProcess};
use crate::confine::{self, Confined, Confinement};
use crate::error::{Error, ErrorKind, Result};
use command_line::{CommandLine, Descriptors};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// The program's name on `PATH`.
const PROGRAM: &str = "qemu-system-x86_64";

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
    fn start<'a>(
        &'a self,
        machine: &'a Machine,
        place: Place<'a>,
    ) -> BoxFuture<'a, Result<Started>> {
        Box::pin(async move { self.spawn(machine, place) })
    }
}

impl Qemu {
    fn spawn(&self, machine: &Machine, place: Place<'_>) -> Result<Started> {
        let (channel, channel_end) = socket_pair()?;
        let (console, console_end) = socket_pair()?;
        let (errors, errors_end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| Error::io("cannot make a pipe", error.into()))?;
        let root_image = open(&machine.root_image, false)?;
        let disk = open(&machine.disk, true)?;
        let seed = open(&machine.seed, false)?;

        let mut confinement = Confinement::new(&self.program);
        confinement.see(LIBRARIES.iter().map(Path::new));
        confinement.see_as(&machine.kernel, command_line::KERNEL);
        if let Some(initrd) = &machine.initrd {
            confinement.see_as(initrd, command_line::INITRD);
        }
        if self.accelerator == Accelerator::Kvm {
            confinement.see_device(Path::new("/dev/kvm"), place.directory)?;
        }
        let descriptors = Descriptors {
            channel: confinement.pass(channel_end),
            console: confinement.pass(console_end),
            root_image: confinement.pass(root_image),
            disk: confinement.pass(disk),
            seed: confinement.pass(seed),
        };
        // It does not know of it, and has it nevertheless.
        let lock =
            place.lock.try_clone().map_err(|error| Error::io("cannot share a lock", error))?;
        confinement.pass(lock);
        confinement.stderr(errors_end);
        let arguments = CommandLine { machine, qemu: self, descriptors }.arguments();
        let process = confine::spawn(confinement, &arguments)?;
        let channel = std::os::unix::net::UnixStream::from(channel);
        channel
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(channel))
            .map(|channel| Started {
                link: Link::Stream(channel),
                console: vec![console, errors],
                process: Box::new(QemuProcess(process)),
            })
            .map_err(|error| Error::io("cannot watch QEMU's channel", error))
    }
}

struct QemuProcess(Confined);

impl VmmProcess for QemuProcess {
    fn pid(&self) -> Option<u32> {
        Some(self.0.pid())
    }

    fn wait(&mut self) -> BoxFuture<'_, String> {
        Box::pin(self.0.wait())
    }

    fn kill(&mut self) {
        self.0.kill();
    }
}

fn socket_pair() -> Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|error| Error::io("cannot make a pair of sockets", error.into()))
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
