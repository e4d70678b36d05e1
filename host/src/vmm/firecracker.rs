//! Firecracker, on KVM.
//!
//! ```text
//! pyro's supervisor ── vmm/config.json, once ──────────▶ Firecracker
//! pyro's supervisor ── API, vmm/api.sock ──────────────▶    │
//! callers ──────────── CONNECT, vmm/vsock.sock ────────▶    │ serves the endpoint
//! pyro's supervisor ◀─ vmm/vsock.sock_<announcement> ──     │ itself
//! pyro's supervisor ◀─ console, a pipe ────────────────     ▼
//! ```

mod alignment;
mod api;
mod machine;
mod metrics;
pub mod release;
mod saved;

use super::{Access, Beginning, Link, Machine, Metrics, Place, Started, Vmm, VmmProcess};
use crate::config::Config;
use crate::confine::{self, Confined, Confinement, Jailer, Limits};
use crate::error::{Error, ErrorKind, Result};
use crate::vsock::{DIRECTORY, SOCKET_NAME, Socket, short_path};
use api::Api;
use api::arrival::Watch;
use futures::future::BoxFuture;
use machine::{Action, Configuration, VmState};
use metrics::Counted;
use pyro_protocol::ANNOUNCE_PORT;
use saved::Saving;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// The program's name on `PATH`.
const PROGRAM: &str = "firecracker";

/// Its companion, which confines it as root; it lies beside it.
const JAILER: &str = "jailer";

/// The API's socket in the VMM's directory.
const API_NAME: &str = "api.sock";

/// What is to be started, there too.
const CONFIG_NAME: &str = "config.json";

/// Where the jail is in a workspace's directory, for the VMM only.
const JAIL: &str = "jail";

/// What Firecracker needs besides its guest's memory, generously: itself, page
/// tables, and the host's cache of the disks, which is given back when it runs
/// short.
const OWN_MEMORY: u64 = 128 << 20;

/// Threads: one for each virtual processor, and some of its own.
const OWN_THREADS: u32 = 32;

/// Where things are for a confined Firecracker.
mod seen {
    pub const KERNEL: &str = "/kernel";
    pub const INITRD: &str = "/initrd";
    pub const ROOT_IMAGE: &str = "/root.img";
    pub const DISK: &str = "/disk.img";
    pub const SEED: &str = "/seed.img";
    pub const COPY: &str = "/copy.img";
    pub const STATE: &str = "/state";
    pub const MEMORY: &str = "/memory";
    pub const SOCKETS: &str = "/sockets";
    pub const API: &str = "/sockets/api.sock";
    pub const VSOCK: &str = "/sockets/vsock.sock";
    pub const METRICS: &str = "/sockets/metrics";
    pub const CONFIG: &str = "/sockets/config.json";
    pub const SAVED_STATE: &str = "/sockets/state";
    pub const SAVED_MEMORY: &str = "/sockets/memory";
}

/// Firecracker, as it is installed on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firecracker {
    /// The program.
    pub program: PathBuf,
    /// The jailer that came with it.
    pub jailer: Option<PathBuf>,
}

impl Vmm for Firecracker {
    fn likeness(&self, machine: &Machine) -> Option<String> {
        machine::likeness(machine)
    }

    fn start<'a>(
        &'a self,
        machine: &'a Machine,
        place: Place<'a>,
    ) -> BoxFuture<'a, Result<Started>> {
        Box::pin(async move {
            let Launched { listener, console, mut process, restored } =
                self.launch(machine, place)?;
            if let Some(watch) = restored {
                process.restore(&watch, machine).await?;
            }
            let process = Box::new(process);
            // Its NICs lead to devices of the host's, which take privileges to make.
            Ok(Started { link: Link::Endpoint(listener), nic: None, console, process })
        })
    }
}

/// A Firecracker that runs.
struct Launched {
    listener: UnixListener,
    console: Vec<OwnedFd>,
    process: FirecrackerProcess,
    /// Where it will be told what to restore, if it is to restore something.
    restored: Option<Watch>,
}

impl Firecracker {
    fn launch(&self, machine: &Machine, place: Place<'_>) -> Result<Launched> {
        let pipe = || {
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
                .map_err(|error| Error::io("cannot make a pipe", error.into()))
        };
        let (console, console_end) = pipe()?;
        let (errors, errors_end) = pipe()?;
        let mut confinement = self.confinement(machine, place)?;
        confinement.stdout(console_end);
        confinement.stderr(errors_end);
        // The directory was made anew just now.
        let directory = File::open(place.directory)
            .map_err(|error| Error::io("cannot open a workspace's directory", error))?;
        let listener = listen_for_announcement(place.directory)?;
        let counted = Counted::open(place.directory)?;
        confine::give(&place.directory.join(DIRECTORY).join(metrics::NAME))?;
        let mut arguments = vec!["--api-sock", seen::API, "--level", "Error"];
        let (configuration, restored) = match machine.beginning {
            Beginning::Boot | Beginning::BootToSave(_) => {
                arguments.extend(["--config-file", seen::CONFIG]);
                (Some(configure(machine, place.directory)?), None)
            }
            Beginning::Restore(_) => (None, Some(Watch::of(place.directory)?)),
        };
        let arguments: Vec<_> = arguments.into_iter().map(String::from).collect();
        let process = confine::spawn(confinement, &arguments)?;
        let saving = Saving::of(machine);
        let process = FirecrackerProcess { process, directory, configuration, saving, counted };
        Ok(Launched { listener, console: vec![console, errors], process, restored })
    }

    /// What it may see and take.
    fn confinement(&self, machine: &Machine, place: Place<'_>) -> Result<Confinement> {
        let mut confinement = Confinement::new(&self.program);
        if let Some(jailer) = &self.jailer {
            confinement.jailer(Jailer {
                program: jailer.clone(),
                directory: place.directory.join(JAIL),
                id: place.workspace,
            });
        }
        match &machine.beginning {
            Beginning::Boot | Beginning::BootToSave(_) => {
                confinement.see_as(&machine.kernel, seen::KERNEL);
                if let Some(initrd) = &machine.initrd {
                    confinement.see_as(initrd, seen::INITRD);
                }
            }
            Beginning::Restore(from) => {
                confinement.see_as(&from.state, seen::STATE);
                confinement.see_as(&from.memory, seen::MEMORY);
            }
        }
        confinement.see_as(&machine.root_image, seen::ROOT_IMAGE);
        // Private to its owner, who is to be the VMM.
        confine::give(&machine.seed)?;
        confinement.see_as(&machine.seed, seen::SEED);
        match machine.disk_access {
            Access::Write => confinement.see_writable(&machine.disk, seen::DISK)?,
            Access::Read => {
                confine::give(&machine.disk)?;
                confinement.see_as(&machine.disk, seen::DISK);
            }
        }
        if let Some(copy) = &machine.copy {
            confinement.see_writable(copy, seen::COPY)?;
        }
        confinement.see_device(Path::new("/dev/kvm"), place.directory)?;
        confinement.share(&place.directory.join(DIRECTORY), seen::SOCKETS)?;
        let guest_memory = u64::from(machine.mem_mib) << 20;
        confinement.limit(
            place.workspace,
            Limits {
                memory_bytes: Some(guest_memory + guest_memory / 16 + OWN_MEMORY),
                pids: Some(machine.vcpu_count + OWN_THREADS),
            },
        );
        // It does not know of it, and has it nevertheless.
        let lock =
            place.lock.try_clone().map_err(|error| Error::io("cannot share a lock", error))?;
        confinement.pass(lock);
        Ok(confinement)
    }
}

/// Writes down for Firecracker all of a machine, which it then starts by itself: ten
/// requests over the API would take longer than it takes to start.
fn configure(machine: &Machine, directory: &Path) -> Result<Written> {
    let place = directory.join(DIRECTORY);
    let path = place.join(CONFIG_NAME);
    let text = serde_json::to_vec(&Configuration::of(machine)).map_err(|error| {
        Error::new(ErrorKind::Internal, "cannot write down a machine").because(error)
    })?;
    let failed = |error| Error::io(format!("cannot write {}", path.display()), error);
    let mut file = File::create(&path).map_err(failed)?;
    file.write_all(&text).map_err(failed)?;
    let length = text.len() as u64;
    if let Some(aligning) = alignment::length(machine.mem_mib) {
        let blanks = aligning.saturating_sub(length);
        std::io::copy(&mut std::io::repeat(b' ').take(blanks), &mut file).map_err(failed)?;
    }
    confine::give(&path)?;
    Ok(Written { file, length })
}

/// A configuration that Firecracker reads.
struct Written {
    file: File,
    /// Without the blanks at its end.
    length: u64,
}

/// Where the guest's announcement arrives: Firecracker connects to a socket that
/// is named after its own and the port.
fn listen_for_announcement(directory: &Path) -> Result<UnixListener> {
    let failed = |error| Error::io("cannot listen for the guest's announcement", error);
    let place = directory.join(DIRECTORY);
    let name = format!("{SOCKET_NAME}_{}", ANNOUNCE_PORT.0);
    let open = File::open(&place).map_err(failed)?;
    let listener = UnixListener::bind(short_path(open.as_fd(), &name)).map_err(failed)?;
    confine::give(&place.join(name))?;
    Ok(listener)
}

struct FirecrackerProcess {
    process: Confined,
    directory: File,
    /// What it read before it booted a kernel.
    configuration: Option<Written>,
    saving: Option<Saving>,
    counted: Counted,
}

impl FirecrackerProcess {
    /// Restores the machine, unless Firecracker ends before.
    async fn restore(&mut self, watch: &Watch, machine: &Machine) -> Result<()> {
        let Self { process, directory, .. } = self;
        let restoring = async {
            let api = watch.api(directory, API_NAME).await?;
            saved::restore(api, machine).await
        };
        tokio::select! {
            // What it says of its end tells more than that it ended.
            biased;
            restored = restoring => restored,
            how = process.wait() => {
                let message = format!("Firecracker {how} before it had restored the guest");
                Err(Error::new(ErrorKind::BootFailed, message))
            }
        }
    }

    async fn turn(&self, state: VmState) -> Result<()> {
        api(&self.directory).await?.patch("/vm", &state).await
    }
}

async fn api(directory: &File) -> Result<Api> {
    let lost = |error| Error::io("cannot reach Firecracker's API", error);
    let socket = Socket::open(directory, API_NAME).map_err(lost)?;
    Api::connect(&socket).await.map_err(lost)
}

impl VmmProcess for FirecrackerProcess {
    fn pid(&self) -> Option<u32> {
        Some(self.process.pid())
    }

    fn came_up(&mut self) {
        // The blanks have done their work; what they take is of no use.
        if let Some(Written { file, length }) = &self.configuration {
            drop(file.set_len(*length));
        }
    }

    fn wait(&mut self) -> BoxFuture<'_, String> {
        Box::pin(self.process.wait())
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn pause(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.turn(VmState::Paused))
    }

    fn resume(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.turn(VmState::Resumed))
    }

    fn save(&mut self) -> BoxFuture<'_, Result<()>> {
        let Self { directory, saving, .. } = self;
        Box::pin(async {
            match saving {
                Some(saving) => saving.save(api(directory).await?, directory).await,
                None => Err(super::unsupported("save a guest that it was not started to save")),
            }
        })
    }

    fn metrics(&mut self) -> BoxFuture<'_, Result<Metrics>> {
        let directory = &self.directory;
        let flush =
            async move { api(directory).await?.put("/actions", &Action::FlushMetrics).await };
        Box::pin(self.counted.after(flush))
    }
}

/// Finds Firecracker on this host: the one that the user named, else the one that
/// `pyro setup` fetched, else the one on `PATH`.
pub(super) fn find(config: &Config) -> Result<Firecracker> {
    let missing = |what: String| {
        Error::new(ErrorKind::HostRequirement, what)
            .hint("`pyro setup` fetches it; or set PYRO_FIRECRACKER to where it is")
    };
    let program = match &config.firecracker {
        Some(path) if path.is_file() => path.clone(),
        Some(path) => {
            let message = format!("PYRO_FIRECRACKER names {}, which is not a file", path.display());
            return Err(missing(message));
        }
        None => match release::PINNED.programs(config) {
            Ok(release::Programs { firecracker, jailer }) => {
                return Ok(Firecracker { program: firecracker, jailer: Some(jailer) });
            }
            Err(unfit) if unfit.is_missing() => config
                .find_program(PROGRAM)
                .ok_or_else(|| missing("Firecracker is not installed".into()))?,
            Err(unfit) => return Err(missing(unfit.to_string())),
        },
    };
    let jailer = Some(program.with_file_name(JAILER)).filter(|jailer| jailer.is_file());
    Ok(Firecracker { program, jailer })
}
