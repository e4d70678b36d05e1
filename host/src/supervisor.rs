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

mod console;
pub mod control;
pub mod keep;
pub mod launch;

use crate::agent::Connection;
use crate::deadlines::Deadlines;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{WorkspaceId, fill_random};
use crate::store::discard_dir;
use crate::vmm::qemu::Qemu;
use crate::vmm::{Accelerator, Link, Machine, Vmm, VmmProcess};
use crate::vsock;
use console::Console;
use keep::Expiry;
use pyro_protocol::channel::{self, Opener, Side};
use pyro_protocol::handshake::{Announcement, MAGIC};
use pyro_protocol::power::{Activate, ENTROPY_LEN};
use pyro_protocol::{ANNOUNCE_PORT, ByteString, CALL_PORT, FrameKind, FrameReader};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// The hidden first argument that makes `pyro` a supervisor.
pub const ARGUMENT: &str = "__supervise";

/// The longest assignment or report, in bytes.
const LINE_MAX: u64 = 64 * 1024;

/// A clock reading worse than this is taken again, on a crowded host.
const CLOCK_ERROR_MAX: Duration = Duration::from_millis(20);

/// How often; then the best one serves.
const CLOCK_READINGS_MAX: usize = 10;

/// How long a boot that only has to explain itself may take.
const VERBOSE_DEADLINE: Duration = Duration::from_secs(10);

/// How long a failing VMM gets to end by itself, and its last lines to arrive.
const LAST_BREATH: Duration = Duration::from_millis(100);

/// How much of the channel is read ahead, to look for frames in. What data they
/// carry is read to where it stays.
const READ_AHEAD: usize = 4096;

/// What a supervisor is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The workspace, for the guest's host name and machine id.
    pub workspace: WorkspaceId,
    /// The workspace's directory.
    pub directory: PathBuf,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// Whether `/workspace` is the seed, on the third disk, with a layer of its
    /// own above; otherwise it is a directory of the root.
    pub seeded: bool,
    /// What to start.
    pub machine: Machine,
    /// The VMM.
    pub qemu: PathBuf,
    /// See [`Qemu::tsc_khz`].
    pub tsc_khz: u64,
    /// How long the guest may take.
    pub deadlines: Deadlines,
}

impl Assignment {
    fn boot_deadline(&self) -> Duration {
        match self.machine.accelerator {
            Accelerator::Kvm => self.deadlines.kvm_boot,
            Accelerator::Tcg => self.deadlines.tcg_boot,
        }
    }
}

/// How long a guest lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// As long as its lease; the directory is removed with it.
    Lease,
    /// Until it is stopped, once the holder of the lease has said [`Keep`].
    Kept,
}

/// What the holder of a kept workspace's lease says when nothing is missing any
/// more: one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// Where the workspace's directory is now.
    pub directory: PathBuf,
    /// When its time is over.
    pub expiry: Option<Expiry>,
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
    Failed {
        /// See [`ErrorKind`].
        kind: ErrorKind,
        /// One sentence.
        message: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// The VMM ended although nobody asked it to.
    Ended {
        /// Such as `exited with status 0`.
        how: String,
    },
}

/// How a guest came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The VMM's process.
    pub vmm_pid: Option<u32>,
    /// From starting the VMM to the agent's announcement, in microseconds.
    pub boot_us: u64,
    /// From there to the mounted workspace, in microseconds.
    pub activate_us: u64,
}

/// Runs as the supervisor whose lease is standard input. Standard output and
/// error are the workspace's log.
pub fn main() -> std::process::ExitCode {
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
            serve_lease(lease, |assignment| {
                Arc::new(Qemu { program: assignment.qemu.clone(), tsc_khz: assignment.tsc_khz })
            })
            .await
        })
    };
    // The lease carried the failure; the exit status is for the log's reader.
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(_) => std::process::ExitCode::FAILURE,
    }
}

/// Reads the assignment, carries it out, and cleans up whatever happens.
pub async fn serve_lease(
    lease: UnixStream,
    choose: impl FnOnce(&Assignment) -> Arc<dyn Vmm>,
) -> Result<()> {
    let (read, mut reports) = lease.into_split();
    let mut lease = BufReader::new(read);
    let line = next_line(&mut lease)
        .await
        .map_err(|error| Error::io("cannot read the assignment", error))?;
    let assignment: Assignment = serde_json::from_slice(&line).map_err(|error| {
        Error::new(ErrorKind::Internal, "the assignment is malformed").because(error)
    })?;
    let vmm = choose(&assignment);

    let outcome = tokio::select! {
        outcome = hold(&assignment, vmm.as_ref(), &mut lease, &mut reports) => outcome,
        () = terminate_signal() => Ok(None),
    };
    // Unless it is kept, the VMM was owned by the future above and is gone.
    if let Err(error) = &outcome {
        let report = Report::Failed {
            kind: error.kind(),
            message: error.chain(),
            hint: error.next_step().map(str::to_owned),
        };
        send(&mut reports, &report).await;
    }
    if let Ok(Some((guest, Keep { directory, expiry }))) = outcome {
        let kept = async move {
            send(&mut reports, &Report::Kept).await;
            drop((lease, reports));
        };
        return keep::live(guest, directory, expiry, kept).await;
    }
    match assignment.lifetime {
        Lifetime::Lease => discard_dir(&assignment.directory)?,
        // Whoever makes a workspace removes what came to nothing.
        Lifetime::Kept => {}
    }
    outcome.map(drop)
}

/// Boots, and lives as long as the lease; gives the guest when it is to be kept.
async fn hold(
    assignment: &Assignment,
    vmm: &dyn Vmm,
    lease: &mut (impl AsyncBufReadExt + Unpin),
    reports: &mut (impl AsyncWriteExt + Unpin),
) -> Result<Option<(Guest, Keep)>> {
    let directory = File::open(&assignment.directory).map_err(|error| {
        Error::io(format!("cannot open {}", assignment.directory.display()), error)
    })?;
    let mut word = std::pin::pin!(next_line(lease));
    let mut guest = tokio::select! {
        guest = boot_or_explain(assignment, vmm, &directory) => guest?,
        // Nothing is to be said yet: it is the lease's end.
        _ = &mut word => return Ok(None),
    };
    send(reports, &Report::Ready(guest.ready)).await;
    let word = tokio::select! {
        how = guest.run_until_end() => {
            send(reports, &Report::Ended { how }).await;
            return Ok(None);
        }
        word = word => word,
    };
    match (assignment.lifetime, word) {
        (Lifetime::Kept, Ok(line)) => {
            Ok(serde_json::from_slice(&line).ok().map(|keep: Keep| (guest, keep)))
        }
        (Lifetime::Kept, Err(_)) | (Lifetime::Lease, _) => Ok(None),
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
    opener: Opener,
    /// How many connections others have to it.
    busy: watch::Sender<usize>,
}

/// What a guest that came up has besides its process.
struct Up {
    endpoint: Endpoint,
    ready: Ready,
    opener: Opener,
    busy: watch::Sender<usize>,
}

impl Guest {
    fn new(process: Box<dyn VmmProcess>, up: Up, logging: Endpoint) -> Self {
        let Up { endpoint, ready, opener, busy } = up;
        let ready = Ready { vmm_pid: process.pid(), ..ready };
        let endpoint = Box::pin(async move {
            tokio::select! { () = endpoint => {}, () = logging => {} }
        });
        Self { process, endpoint, ready, opener, busy }
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

/// Boots, and when that fails without a word boots again with a kernel that
/// tells all it does. Should the second try succeed, so much the better.
async fn boot_or_explain(
    assignment: &Assignment,
    vmm: &dyn Vmm,
    directory: &File,
) -> Result<Guest> {
    let failure = match boot(assignment, vmm, directory).await {
        Ok(guest) => return Ok(guest),
        Err(failure) => failure,
    };
    if !failure.silent || assignment.machine.verbose {
        return Err(failure.error);
    }
    let mut again = assignment.clone();
    again.machine.verbose = true;
    for deadline in [&mut again.deadlines.kvm_boot, &mut again.deadlines.tcg_boot] {
        *deadline = VERBOSE_DEADLINE.min(*deadline);
    }
    match boot(&again, vmm, directory).await {
        Ok(guest) => Ok(guest),
        Err(second) if second.silent => Err(failure.error),
        Err(second) => Err(second.error),
    }
}

/// A boot that came to nothing.
struct BootFailure {
    error: Error,
    /// Whether guest and VMM left no word of why.
    silent: bool,
}

impl From<Error> for BootFailure {
    /// What fails before there is a console has said all there is to say.
    fn from(error: Error) -> Self {
        Self { error, silent: false }
    }
}

/// Starts the machine and brings its guest to the point where it serves calls.
async fn boot(
    assignment: &Assignment,
    vmm: &dyn Vmm,
    directory: &File,
) -> Result<Guest, BootFailure> {
    let console = Console::create(directory)?;
    let started_at = Instant::now();
    let started = vmm.start(&assignment.machine).await?;
    let mut process = started.process;
    let mut logging: Endpoint = Box::pin(console.keep(started.console)?);
    let Link::Stream(stream) = started.link;
    let deadline = assignment.boot_deadline();
    let coming_up = timeout(deadline, come_up(assignment, directory, stream, started_at));
    let booting = async {
        let failure = tokio::select! {
            biased;
            up = coming_up => match up {
                Ok(Ok(up)) => return Ok(up),
                Ok(Err(error)) => {
                    let ended = timeout(LAST_BREATH, process.wait()).await.ok();
                    explain_by_end(error, ended)
                }
                Err(_) => Error::new(
                    ErrorKind::BootFailed,
                    format!("the guest did not come up within {} s", deadline.as_secs()),
                ),
            },
            how = process.wait() => ended_early(&how),
        };
        process.kill();
        process.wait().await;
        // What it printed last may still be on its way.
        drop(timeout(LAST_BREATH, console.ended()).await);
        Err(failure)
    };
    let booted = tokio::select! {
        booted = booting => booted,
        () = &mut logging => Err(Error::new(ErrorKind::Internal, "the console's log ended")),
    };
    match booted {
        Ok(up) => Ok(Guest::new(process, up, logging)),
        Err(failure) => {
            Err(BootFailure { silent: console.is_silent(), error: console.explain(failure) })
        }
    }
}

/// A VMM that ends breaks the channel first; how it ended tells more. But what
/// the guest did wrong before stays what it is.
fn explain_by_end(error: Error, ended: Option<String>) -> Error {
    let lost = matches!(error.kind(), ErrorKind::BootFailed | ErrorKind::GuestLost);
    match ended {
        Some(how) if lost => ended_early(&how).because(error),
        Some(_) | None => error,
    }
}

fn ended_early(how: &str) -> Error {
    Error::new(ErrorKind::BootFailed, format!("the VMM {how} while the guest booted"))
}

async fn come_up(
    assignment: &Assignment,
    directory: &File,
    stream: UnixStream,
    started_at: Instant,
) -> Result<Up> {
    let broken = |error: channel::ChannelError| {
        Error::new(ErrorKind::BootFailed, "the guest's channel failed while it booted")
            .because(error)
    };
    let mut nonce = [0; 8];
    fill_random(&mut nonce);
    let side = Side::Host { nonce: u64::from_le_bytes(nonce), reconnect: false };
    let (opener, acceptor, driver) =
        channel::connect(BufReader::with_capacity(READ_AHEAD, stream), side)
            .await
            .map_err(broken)?;
    // An earlier try may have left one.
    renew(directory, vsock::SOCKET_NAME, "vsock endpoint")?;
    let listener = UnixListener::bind(vsock::short_path(directory.as_fd(), vsock::SOCKET_NAME))
        .map_err(|error| Error::io("cannot listen on the vsock endpoint", error))?;
    let (announced, mut announcement) = mpsc::channel(1);
    let busy = watch::Sender::new(0);
    let serving = vsock::endpoint::serve(
        listener,
        opener.clone(),
        acceptor,
        ANNOUNCE_PORT,
        announced,
        busy.clone(),
    );
    let mut endpoint: Endpoint = Box::pin(async move {
        tokio::select! { ended = driver => drop(ended), ended = serving => drop(ended) }
    });
    let greeting = async {
        let stream =
            announcement.recv().await.ok_or_else(|| broken(channel::ChannelError::Closed))?;
        let announced: Announcement =
            FrameReader::new(stream).expect(FrameKind::Announcement).await.map_err(|error| {
                Error::new(ErrorKind::Protocol, "the guest announced itself wrongly").because(error)
            })?;
        if announced.magic != MAGIC {
            return Err(Error::new(ErrorKind::Protocol, "what runs in the guest is no pyro agent"));
        }
        let boot = started_at.elapsed();
        activate(&opener, assignment).await?;
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let activated = started_at.elapsed().saturating_sub(boot);
        Ok(Ready { vmm_pid: None, boot_us: micros(boot), activate_us: micros(activated) })
    };
    let ready = tokio::select! {
        ready = greeting => ready?,
        () = &mut endpoint => return Err(broken(channel::ChannelError::Closed)),
    };
    Ok(Up { endpoint, ready, opener, busy })
}

/// Gives the guest its workspace.
async fn activate(opener: &Opener, assignment: &Assignment) -> Result<()> {
    let activating = async {
        let mut connection = greet(opener).await?;
        // On a crowded host a round trip may take long, and the clock is known
        // no better than to half of it.
        for _ in 1..CLOCK_READINGS_MAX {
            if u128::from(connection.clock.error_ns.unsigned_abs()) <= CLOCK_ERROR_MAX.as_nanos() {
                break;
            }
            let again = greet(opener).await?;
            if again.clock.error_ns < connection.clock.error_ns {
                connection = again;
            }
        }
        let mut entropy = vec![0; ENTROPY_LEN];
        fill_random(&mut entropy);
        let request = Activate {
            entropy: ByteString(entropy),
            // The guest may claim to live at the end of all time.
            clock_offset_ns: connection.clock.ahead_ns.saturating_neg(),
            hostname: assignment.workspace.hostname(),
            machine_id: assignment.workspace.machine_id(),
            seeded: assignment.seeded,
        };
        connection.call(request).await.map(drop).map_err(unfit)
    };
    let deadline = assignment.deadlines.activation;
    timeout(deadline, activating).await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::BootFailed,
            format!("the guest did not mount its disks within {} s", deadline.as_secs()),
        ))
    })
}

/// What an agent says to refuse its workspace was not asked for by the caller,
/// whose program, for one, has not even been looked for.
fn unfit(error: Error) -> Error {
    let own = [ErrorKind::GuestLost, ErrorKind::Protocol, ErrorKind::Unsupported];
    if own.contains(&error.kind()) {
        return error;
    }
    Error::new(ErrorKind::BootFailed, "the guest refused its workspace").because(error)
}

async fn greet(opener: &Opener) -> Result<Connection<channel::Stream>> {
    let stream = opener.open(CALL_PORT).await.map_err(|error| {
        Error::new(ErrorKind::GuestLost, "the agent does not answer").because(error)
    })?;
    Connection::greet(stream).await
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

async fn terminate_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => drop(terminate.recv().await),
        // Then SIGTERM kills at once, and the VMM with us.
        Err(_) => std::future::pending().await,
    }
}
