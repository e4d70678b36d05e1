//! Firecracker, on KVM.
//!
//! ```text
//! pyro's supervisor ── API, vmm/api.sock ──────────────▶ Firecracker
//! callers ──────────── CONNECT, vmm/vsock.sock ────────▶    │ serves the endpoint
//! pyro's supervisor ◀─ vmm/vsock.sock_<announcement> ──     │ itself
//! pyro's supervisor ◀─ console, a pipe ────────────────     ▼
//! ```

mod api;
mod machine;
mod metrics;
pub mod release;

use super::{Link, Machine, Metrics, Place, Started, Vmm, VmmProcess};
use crate::config::Config;
use crate::confine::{self, Confined, Confinement, Jailer, Limits};
use crate::error::{Error, ErrorKind, Result};
use crate::vsock::{DIRECTORY, SOCKET_NAME, Socket, short_path};
use api::Api;
use futures::future::BoxFuture;
use machine::{Action, BootSource, Drive, Entropy, MachineConfig, MetricsSink, VmState, Vsock};
use metrics::Counted;
use pyro_protocol::ANNOUNCE_PORT;
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::time::{sleep, timeout};

/// The program's name on `PATH`.
const PROGRAM: &str = "firecracker";

/// Its companion, which confines it as root; it lies beside it.
const JAILER: &str = "jailer";

/// The API's socket in the VMM's directory.
const API_NAME: &str = "api.sock";

/// Where the jail is in a workspace's directory, for the VMM only.
const JAIL: &str = "jail";

/// How long Firecracker may take to listen for what it is to do: it is a program
/// that starts, on a host that may be crowded.
const LISTENING_MAX: Duration = Duration::from_secs(20);

/// Between a socket's being there and somebody's listening on it.
const NEARLY: Duration = Duration::from_millis(1);

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
    pub const SOCKETS: &str = "/sockets";
    pub const API: &str = "/sockets/api.sock";
    pub const VSOCK: &str = "/sockets/vsock.sock";
    pub const METRICS: &str = "/sockets/metrics";
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
    fn start<'a>(
        &'a self,
        machine: &'a Machine,
        place: Place<'a>,
    ) -> BoxFuture<'a, Result<Started>> {
        Box::pin(self.launch(machine, place))
    }
}

impl Firecracker {
    async fn launch(&self, machine: &Machine, place: Place<'_>) -> Result<Started> {
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
        let appearing = Appearing::watch(place.directory)?;
        let arguments = ["--api-sock", seen::API, "--level", "Error"].map(String::from);
        let mut process = confine::spawn(confinement, &arguments)?;
        let setting_up = async {
            let socket = timeout(LISTENING_MAX, appearing.api(&directory)).await;
            let mut api = socket.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(
                |error| {
                    Error::new(ErrorKind::BootFailed, "Firecracker did not start").because(error)
                },
            )?;
            set_up(&mut api, machine).await
        };
        let set_up = tokio::select! {
            set_up = setting_up => set_up,
            how = process.wait() => {
                Err(Error::new(ErrorKind::BootFailed, format!("Firecracker {how} as it started")))
            }
        };
        if let Err(error) = set_up {
            process.kill();
            process.wait().await;
            return Err(explain(error, &[console, errors]));
        }
        Ok(Started {
            link: Link::Endpoint(listener),
            console: vec![console, errors],
            process: Box::new(FirecrackerProcess { process, directory, counted }),
        })
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
        confinement.see_as(&machine.kernel, seen::KERNEL);
        if let Some(initrd) = &machine.initrd {
            confinement.see_as(initrd, seen::INITRD);
        }
        confinement.see_as(&machine.root_image, seen::ROOT_IMAGE);
        // Private to its owner, who is to be the VMM.
        confine::give(&machine.seed)?;
        confinement.see_as(&machine.seed, seen::SEED);
        confinement.see_writable(&machine.disk, seen::DISK)?;
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

/// Tells Firecracker all of a machine, and lets it boot.
async fn set_up(api: &mut Api, machine: &Machine) -> Result<()> {
    api.put("/metrics", &MetricsSink::OURS).await?;
    api.put("/machine-config", &MachineConfig::of(machine)).await?;
    api.put("/boot-source", &BootSource::of(machine)).await?;
    for drive in Drive::all(machine) {
        api.put(&format!("/drives/{}", drive.drive_id), &drive).await?;
    }
    api.put("/vsock", &Vsock::OURS).await?;
    api.put("/entropy", &Entropy {}).await?;
    api.put("/actions", &Action::InstanceStart).await
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

/// The VMM's directory, watched for what appears in it.
struct Appearing(AsyncFd<OwnedFd>);

impl Appearing {
    fn watch(directory: &Path) -> Result<Self> {
        let watching = || -> io::Result<_> {
            let events = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            add_watch(&events, directory.join(DIRECTORY), WatchFlags::CREATE)?;
            // SAFETY: the descriptor is owned and stays the same.
            unsafe { AsyncFd::register(events) }.map_err(io::Error::from)
        };
        watching().map(Self).map_err(|error| Error::io("cannot watch for the VMM's sockets", error))
    }

    /// Waits until somebody listens on the API's socket, and connects.
    async fn api(&self, directory: &File) -> io::Result<Api> {
        loop {
            match Socket::open(directory, API_NAME) {
                Ok(socket) => match Api::connect(&socket).await {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        sleep(NEARLY).await;
                    }
                    connected => return connected,
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let mut ready = self.0.readable().await?;
                    let mut events = [0; 4096];
                    while rustix::io::read(self.0.get_ref(), &mut events)
                        .is_ok_and(|count| count > 0)
                    {}
                    ready.clear_ready();
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Adds what Firecracker printed before it ended.
fn explain(error: Error, printed: &[OwnedFd]) -> Error {
    let mut said = Vec::new();
    for pipe in printed {
        let mut buffer = [0; 4096];
        // What wrote into it is gone, so this does not block.
        if let Ok(count) = rustix::io::read(pipe, &mut buffer) {
            said.extend_from_slice(&buffer[..count]);
        }
    }
    let said = String::from_utf8_lossy(&said);
    match said.trim() {
        "" => error,
        said => {
            let said = crate::guest_text::escaped(said, EXPLANATION_MAX);
            let kind = error.kind();
            Error::new(kind, format!("{}; it said: {said}", error.chain()))
        }
    }
}

/// How much of what Firecracker printed an error shows.
const EXPLANATION_MAX: usize = 1024;

struct FirecrackerProcess {
    process: Confined,
    directory: File,
    counted: Counted,
}

impl FirecrackerProcess {
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
