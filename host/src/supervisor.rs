//! One process per running workspace: it owns the VMM.
//!
//! ```text
//! Assigned ──start VMM──▶ Booting ──announced──▶ Activating ──▶ Ready ──▶ Over
//!     └──────────┴─────────────┴───── failed ───────┴───────────────────▶ Over
//! ```
//!
//! Whoever starts a supervisor holds its *lease*, a connected socket. The first
//! line on it is the [`Assignment`]; the supervisor answers with [`Report`]s.
//! When the lease closes, for whatever reason, SIGKILL of the caller included,
//! the VMM ends and the workspace of a one-shot run is removed. When the
//! supervisor dies, the kernel kills the VMM, and whoever comes next sweeps.
//!
//! A workspace that is kept outlives its lease: once its guest is ready and the
//! holder has written down all that makes it official, the holder says
//! [`Keep`], and from then on [`control`] is where orders come from.

mod alarm;
mod boot;
mod console;
pub mod control;
pub(crate) mod copying;
mod failure;
pub mod force;
pub mod keep;
pub mod launch;
mod network;
pub mod order;
mod pausing;
mod ports;
mod proof;
mod secrets;
mod trunk;
pub mod ttl;
mod way;

use crate::deadlines::Deadlines;
use crate::egress;
use crate::egress::gateway::wire::Cable;
use crate::error::{Error, ErrorKind, Result};
use crate::id::WorkspaceId;
use crate::secret::SecretStore;
use crate::store::discard_dir;
use crate::vmm::{Installed, Machine, Vmm, VmmProcess};
pub use boot::without_vmm;
use boot::{Up, boot_or_explain};
use console::SharedRedactor;
use control::Control;
pub use failure::Failure;
use futures::future::maybe_done;
use network::Network;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use way::Way;

/// The hidden first argument that makes `pyro` a supervisor.
pub const ARGUMENT: &str = "__supervise";

/// The longest assignment or report, in bytes: most of it would be rules of the
/// network.
const LINE_MAX: u64 = 512 * 1024;

/// How long a failing VMM gets to end by itself, and its last lines to arrive.
const LAST_BREATH: Duration = Duration::from_millis(100);

/// What a supervisor is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The workspace, for the guest's host name and machine id.
    pub workspace: WorkspaceId,
    /// The workspace's directory.
    pub directory: PathBuf,
    /// The key of the secrets that lie there.
    pub secret_key: PathBuf,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// Whether `/workspace` is the seed, on the third disk, with a layer of its
    /// own above; otherwise it is a directory of the root.
    pub seeded: bool,
    /// What the guest is for.
    #[serde(default)]
    pub purpose: Purpose,
    /// What to start.
    pub machine: Machine,
    /// With what.
    pub vmm: Installed,
    /// The guest's network; that of a record may be another by the time it is kept.
    #[serde(default)]
    pub network: egress::Network,
    /// Who resolves names for the guest; the host's own servers if nobody is named.
    #[serde(default)]
    pub resolvers: Vec<SocketAddr>,
    /// How long the guest may take to come up.
    pub boot_deadline: Duration,
    /// And for everything after that.
    pub deadlines: Deadlines,
}

/// What a guest is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Programs run in it.
    #[default]
    Work,
    /// A workspace's disk is looked at in it, and nothing else is done.
    Inspection,
    /// Nothing is done in it: it is saved before it has a workspace.
    Template,
}

/// How long a guest lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// As long as its lease; the directory is removed with it.
    Lease,
    /// Until it is stopped, once the holder of the lease has said [`Keep`]. When
    /// the lease ends before, the directory is removed with it: its maker died.
    Made,
    /// As [`Lifetime::Made`], but the directory stays in any case.
    Kept,
}

/// What the holder of a kept workspace's lease says when nothing is missing any
/// more: one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// Where the workspace's directory is now.
    pub directory: PathBuf,
}

/// What a supervisor tells the holder of its lease, one line of JSON each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The guest has its workspace and answers calls.
    Ready(Ready),
    /// It lives on without the lease.
    Kept,
    /// It does not, and will not.
    Failed(Failure),
    /// The VMM ended although nobody asked it to.
    Ended {
        /// Such as `exited with status 0`.
        how: String,
    },
}

/// How a guest came up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The VMM's process.
    pub vmm_pid: Option<u32>,
    /// From what.
    #[serde(default)]
    pub came: Came,
    /// From starting the VMM to the agent's announcement, in microseconds.
    pub boot_us: u64,
    /// From there to the mounted workspace, in microseconds.
    pub activate_us: u64,
}

/// What a guest came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Came {
    /// Its kernel booted.
    #[default]
    Booted,
    /// A template was restored.
    Restored,
    /// A template was to be restored; its kernel booted, because of this.
    BootedInstead(String),
}

impl Ready {
    /// Whether a template was restored for it.
    #[must_use]
    pub fn is_restored(&self) -> bool {
        self.came == Came::Restored
    }

    /// How long it took altogether, in milliseconds.
    #[must_use]
    pub const fn boot_ms(&self) -> u64 {
        self.boot_us.saturating_add(self.activate_us) / 1000
    }
}

/// Runs as the supervisor whose lease is standard input. Standard output and
/// error are the workspace's log.
pub fn main() -> std::process::ExitCode {
    allow_files();
    // Whatever the file is called that it was started from. Only `ps` would miss it.
    let _ = rustix::thread::set_name(c"pyro");
    let run = || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::io("cannot start a runtime", error))?;
        runtime.block_on(async {
            let lease = std::io::stdin().as_fd().try_clone_to_owned();
            let lease = lease.map(std::os::unix::net::UnixStream::from).and_then(|lease| {
                lease.set_nonblocking(true)?;
                UnixStream::from_std(lease)
            });
            let lease = lease.map_err(|error| Error::io("standard input is no lease", error))?;
            serve_lease(lease, None).await
        })
    };
    // The lease carried the failure; the exit status is for the log's reader.
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(_) => std::process::ExitCode::FAILURE,
    }
}

/// Lets this process have as many files open as it may: a connection to a
/// published port is one or two. What it starts has limits of its own.
fn allow_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let all = Rlimit { current: maximum, maximum };
    // With fewer some connections wait.
    let _ = setrlimit(Resource::Nofile, all);
}

/// Reads the assignment, carries it out, and cleans up whatever happens. A VMM
/// that is given takes the place of the assignment's.
pub async fn serve_lease(lease: UnixStream, instead: Option<Arc<dyn Vmm>>) -> Result<()> {
    let (read, mut reports) = lease.into_split();
    let mut lease = BufReader::new(read);
    let line = next_line(&mut lease)
        .await
        .map_err(|error| Error::io("cannot read the assignment", error))?;
    let assignment: Assignment = serde_json::from_slice(&line).map_err(|error| {
        Error::new(ErrorKind::Internal, "the assignment is malformed").because(error)
    })?;
    let vmm = instead.as_deref().unwrap_or_else(|| assignment.vmm.as_ref());

    let mut terminate = Terminate::listen();
    let outcome = tokio::select! {
        outcome = hold(&assignment, vmm, &mut lease, &mut reports) => outcome,
        () = terminate.told() => Ok(None),
    };
    // Unless it is kept, the VMM was owned by the future above and is gone.
    let kept = match outcome {
        Ok(Some((guest, control, Keep { directory }))) => {
            let store =
                SecretStore::new(assignment.secret_key.clone(), &directory, assignment.workspace);
            keep::settle(&guest, control, assignment.vmm.rung(), directory, store)
                .map(|settled| Some((settled, guest)))
        }
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    };
    if let Err(error) = &kept {
        send(&mut reports, &Report::Failed(error.into())).await;
    }
    let outcome = match kept {
        Ok(Some((settled, guest))) => {
            send(&mut reports, &Report::Kept).await;
            drop((lease, reports));
            return settled.live(guest, terminate).await;
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    match (assignment.lifetime, &outcome) {
        (Lifetime::Lease, _) | (Lifetime::Made, Ok(_)) => discard_dir(&assignment.directory)?,
        // Its maker may try again, and removes it else.
        (Lifetime::Made, Err(_)) | (Lifetime::Kept, _) => {}
    }
    outcome
}

/// Boots, and lives as long as the lease; gives the guest when it is to be kept.
async fn hold(
    assignment: &Assignment,
    vmm: &dyn Vmm,
    lease: &mut (impl AsyncBufReadExt + Unpin),
    reports: &mut (impl AsyncWriteExt + Unpin),
) -> Result<Option<(Guest, Control, Keep)>> {
    let directory = File::open(&assignment.directory).map_err(|error| {
        Error::io(format!("cannot open {}", assignment.directory.display()), error)
    })?;
    let mut word = std::pin::pin!(next_line(lease));
    let mut guest = tokio::select! {
        guest = boot_or_explain(assignment, vmm, &directory) => guest?,
        // Nothing is to be said yet: it is the lease's end.
        _ = &mut word => return Ok(None),
    };
    tokio::select! {
        opened = guest.open_network(assignment) => opened?,
        _ = &mut word => return Ok(None),
    }
    // Who finds the workspace the moment it is official has somebody to order:
    // the socket moves with its directory.
    let control = match assignment.lifetime {
        Lifetime::Lease => None,
        Lifetime::Made | Lifetime::Kept => Some(Control::open(&directory)?),
    };
    send(reports, &Report::Ready(guest.ready.clone())).await;
    let word = tokio::select! {
        how = guest.run_until_end() => {
            send(reports, &Report::Ended { how }).await;
            return Ok(None);
        }
        word = word => word,
    };
    match (control, word) {
        (Some(control), Ok(line)) => {
            Ok(serde_json::from_slice(&line).ok().map(|keep: Keep| (guest, control, keep)))
        }
        (Some(_), Err(_)) | (None, _) => Ok(None),
    }
}

/// A line; nothing at the end.
async fn next_line(from: &mut (impl AsyncBufReadExt + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.take(LINE_MAX).read_until(b'\n', &mut line).await?;
    Ok(line)
}

/// Something that works for as long as it is polled.
type Endpoint = std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// A guest that serves calls, with what keeps it doing so.
struct Guest {
    process: Box<dyn VmmProcess>,
    endpoint: Endpoint,
    ready: Ready,
    way: Way,
    /// That of its NIC, until its network is open.
    cable: Option<Cable>,
    network: Option<Network>,
    /// What its console must not tell.
    discretion: SharedRedactor,
}

impl Guest {
    fn new(
        process: Box<dyn VmmProcess>,
        up: Up,
        cable: Option<Cable>,
        logging: Endpoint,
        discretion: SharedRedactor,
    ) -> Self {
        let Up { endpoint, ready, way } = up;
        let ready = Ready { vmm_pid: process.pid(), ..ready };
        // Whoever asks after its end is told so, as often as he asks.
        let endpoint = Box::pin(maybe_done(async move {
            tokio::select! { () = endpoint => {}, () = logging => {} }
        }));
        Self { process, endpoint, ready, way, cable, network: None, discretion }
    }

    /// Opens the network that it is to have, and keeps it open.
    async fn open_network(&mut self, assignment: &Assignment) -> Result<()> {
        let Assignment { directory, network: wanted, resolvers, .. } = assignment;
        let (way, cable) = (self.way.clone(), self.cable.take());
        let opened = tokio::select! {
            opened = network::open(&way, cable, wanted, directory, resolvers) => opened?,
            how = self.run_until_end() => {
                let message = format!("the VMM {how} while the guest's network was opened");
                return Err(Error::new(ErrorKind::BootFailed, message));
            }
        };
        if let Some((network, mut carrying)) = opened {
            self.network = Some(network);
            let mut endpoint = std::mem::replace(&mut self.endpoint, Box::pin(async {}));
            self.endpoint = Box::pin(maybe_done(async move {
                tokio::select! { () = &mut endpoint => {}, () = &mut carrying => {} }
            }));
        }
        Ok(())
    }

    async fn run_until_end(&mut self) -> String {
        tokio::select! {
            how = self.process.wait() => how,
            () = &mut self.endpoint => {
                // Without its channel the guest is of no use to anybody.
                match timeout(LAST_BREATH, self.process.wait()).await {
                    Ok(how) => how,
                    Err(_) => "lost its channel".into(),
                }
            }
        }
    }
}

/// Sends a report; a lease whose holder is gone has nobody to tell.
async fn send(reports: &mut (impl AsyncWriteExt + Unpin), report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        drop(reports.write_all(&line).await);
    }
}

/// Makes room for a socket in a workspace's directory.
fn renew(directory: &File, name: &str, what: &str) -> Result<()> {
    match rustix::fs::unlinkat(directory, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::io(format!("cannot remove an old {what}"), errno.into())),
    }
}

/// SIGTERM, of which none is missed from the first look on. `None`: it kills at
/// once, and the VMM with us.
struct Terminate(Option<Signal>);

impl Terminate {
    fn listen() -> Self {
        Self(signal(SignalKind::terminate()).ok())
    }

    async fn told(&mut self) {
        match &mut self.0 {
            Some(signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        }
    }
}
