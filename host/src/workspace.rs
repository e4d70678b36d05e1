//! Workspaces: a guest with its own disk, and what happens in it.

pub mod directory;

use crate::agent::AgentClient;
use crate::agent::process::Said;
use crate::context::Context;
use crate::deadlines::Deadlines;
use crate::disk;
use crate::environment::{Bootable, Defaults, Environments};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events, Stream};
use crate::facts::{self, Facts};
use crate::id::WorkspaceId;
use crate::pyro::Pyro;
use crate::store::private_dir;
use crate::supervisor::launch::Lease;
use crate::supervisor::{Assignment, Ready};
use crate::vmm::{Accelerator, Machine, qemu};
use directory::Directory;
use pyro_protocol::process::{Exit, Outcome, StartProcess};
use pyro_protocol::{ByteString, GuestPath};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How many virtual processors a guest may have.
pub const VCPUS: std::ops::RangeInclusive<u32> = 1..=32;

/// The least memory that a guest boots with, in MiB.
pub const MEM_MIB_MIN: u32 = 128;

/// What must stay free on the host beside a guest's memory, in MiB: the VMM's
/// own needs, and some air.
const MEM_MIB_RESERVE: u64 = 128;

/// The memory of a guest that only has to prove that it boots.
const TRIAL_MEM_MIB: u32 = 256;

/// A program to run in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program and its arguments, executed as given.
    pub argv: Vec<Vec<u8>>,
    /// Where; `None` is the environment's default.
    pub cwd: Option<GuestPath>,
    /// Variables to add.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// A name or number, optionally `:group`; `None` is the
    /// environment's default.
    pub user: Option<String>,
    /// After this, everything it started is killed.
    pub timeout: Option<Duration>,
}

impl Program {
    /// Fills in what the environment says where the caller said nothing.
    fn or_defaults(mut self, defaults: &Defaults) -> Result<Self> {
        if self.cwd.is_none() {
            let cwd = GuestPath::new(defaults.cwd.as_str()).map_err(|error| {
                Error::new(ErrorKind::InvalidInput, "the environment's default directory is none")
                    .because(error)
            })?;
            self.cwd = Some(cwd);
        }
        self.user.get_or_insert_with(|| defaults.user.clone());
        Ok(self)
    }
}

/// How large a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// See [`VCPUS`].
    pub vcpu_count: u32,
    /// See [`MEM_MIB_MIN`].
    pub mem_mib: u32,
    /// The size of its file system.
    pub disk_mib: u64,
}

/// One program in a guest of its own that is gone afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRequest {
    /// The environment's name.
    pub environment: String,
    /// How large a guest.
    pub shape: Shape,
    /// What to run.
    pub program: Program,
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The workspace that was.
    pub id: WorkspaceId,
    /// Whether nothing of it is left.
    pub removed: bool,
    /// How the program ended.
    pub outcome: Outcome,
    /// From starting the VMM to the mounted workspace.
    pub boot: Duration,
    /// From the program's start to its end, as the guest measured it.
    pub took: Duration,
}

/// Runs one program in a guest of its own. Nothing of it is left afterwards,
/// however this ends; should the caller die, its supervisor cleans up.
pub async fn run(pyro: &Pyro, request: RunRequest, context: Context) -> Result<Ran> {
    let (cancel, events) = (context.cancel.clone(), context.events.clone());
    let (mut machine, ready) = bring_up(pyro, &request, &events, &cancel).await?;
    events.emit(Event::Stage { name: "running", subject: machine.id.to_string() }).await;
    let ran = tokio::select! {
        ran = machine.run(request.program, context) => ran,
        () = cancel.cancelled() => Err(cancelled()),
    };
    let released = machine.lease.release().await;
    let exit = ran?;
    // What the program came to is not undone by what became of its machine.
    if let Err(error) = &released {
        let warning = format!("the machine may not be gone: {}", error.chain());
        events.emit(Event::Warning(warning)).await;
    }
    Ok(Ran {
        removed: released.is_ok(),
        id: machine.id,
        outcome: exit.outcome,
        boot: Duration::from_micros(ready.boot_us + ready.activate_us),
        took: Duration::from_micros(exit.took_us),
    })
}

/// Starts a guest and waits until it serves calls. Where KVM is only a guess
/// and comes to nothing, the guest is started again without, and the host's
/// facts say so from now on.
async fn bring_up(
    pyro: &Pyro,
    request: &RunRequest,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<(Up, Ready)> {
    let (accelerator, proven) = choose(pyro)?;
    let attempt = try_to_bring_up(pyro, request, accelerator, events, cancel).await;
    if proven || accelerator == Accelerator::Tcg {
        return attempt;
    }
    match attempt {
        Ok(up) => {
            facts::remember_kvm(&pyro.config, true);
            Ok(up)
        }
        Err(error) if error.kind() == ErrorKind::BootFailed => {
            let warning = format!("no guest boots with KVM, so it is translated: {error}");
            events.emit(Event::Warning(warning)).await;
            let up = try_to_bring_up(pyro, request, Accelerator::Tcg, events, cancel).await?;
            // Only now it is KVM that was at fault.
            facts::remember_kvm(&pyro.config, false);
            Ok(up)
        }
        Err(error) => Err(error),
    }
}

async fn try_to_bring_up(
    pyro: &Pyro,
    request: &RunRequest,
    accelerator: Accelerator,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<(Up, Ready)> {
    let stage = |name| Event::Stage { name, subject: request.environment.clone() };
    events.emit(stage("preparing")).await;
    let starting = start(pyro, &request.environment, request.shape, accelerator);
    let mut machine = tokio::select! {
        machine = starting => machine?,
        () = cancel.cancelled() => return Err(cancelled()),
    };
    events.emit(stage("booting")).await;
    let ready = tokio::select! {
        ready = machine.lease.ready() => ready,
        () = cancel.cancelled() => Err(cancelled()),
    };
    match ready {
        Ok(ready) => Ok((machine, ready)),
        Err(error) => {
            // Nothing of it is to be left; that it failed is what matters.
            drop(machine.lease.release().await);
            Err(error)
        }
    }
}

fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "cancelled")
}

/// A guest that was started.
struct Up {
    id: WorkspaceId,
    directory: PathBuf,
    deadlines: Deadlines,
    lease: Lease,
    /// What it boots from; kept in the cache meanwhile.
    bootable: Bootable,
}

/// Starts a guest in a workspace of its own that ends with its lease. Dropping
/// the future midway leaves nothing.
async fn start(
    pyro: &Pyro,
    environment: &str,
    shape: Shape,
    accelerator: Accelerator,
) -> Result<Up> {
    shape.check()?;
    let (directory, assignment, bootable) = prepare(pyro, environment, shape, accelerator).await?;
    let lease = pyro.launcher.launch(&pyro.config, &assignment, directory.lock()).await?;
    let id = directory.id();
    // From here on the directory is the supervisor's to remove.
    directory.hand_over();
    let Assignment { directory, deadlines, .. } = assignment;
    Ok(Up { id, directory, deadlines, lease, bootable })
}

impl Up {
    async fn run(&mut self, program: Program, context: Context) -> Result<Exit> {
        let program = program.or_defaults(&self.bootable.defaults)?;
        let agent = AgentClient::new(&self.directory, self.deadlines)?;
        match execute(&agent, self.deadlines, program, context).await {
            // The supervisor knows more than the broken connection tells.
            Err(error) if error.kind() == ErrorKind::GuestLost => {
                Err(timeout(self.deadlines.last_words, self.lease.lost()).await.unwrap_or(error))
            }
            ended => ended,
        }
    }
}

/// Boots a guest, looks at its VMM while it lives, and ends it.
pub async fn trial<T>(
    pyro: &Pyro,
    environment: &str,
    accelerator: Accelerator,
    cancel: &CancellationToken,
    look: impl FnOnce(&Ready) -> T,
) -> Result<(Ready, T)> {
    let shape = Shape { vcpu_count: 1, mem_mib: TRIAL_MEM_MIB, disk_mib: disk::DEFAULT_MIB };
    let mut machine = tokio::select! {
        machine = start(pyro, environment, shape, accelerator) => machine?,
        () = cancel.cancelled() => return Err(cancelled()),
    };
    let ready = tokio::select! {
        ready = machine.lease.ready() => ready,
        () = cancel.cancelled() => Err(cancelled()),
    };
    let seen = ready.as_ref().ok().map(look);
    machine.lease.release().await?;
    let ready = ready?;
    seen.map(|seen| (ready, seen))
        .ok_or_else(|| Error::new(ErrorKind::Internal, "a ready guest was not looked at"))
}

/// Runs a program in a guest that serves calls.
async fn execute(
    agent: &AgentClient,
    deadlines: Deadlines,
    program: Program,
    context: Context,
) -> Result<Exit> {
    let Context { events, stdin, mut signals, cancel: _ } = context;
    let request = StartProcess {
        argv: program.argv.into_iter().map(ByteString).collect(),
        cwd: program.cwd,
        env: program
            .env
            .into_iter()
            .map(|(name, value)| (ByteString(name), ByteString(value)))
            .collect(),
        user: program.user,
        stdin: stdin.is_some(),
        timeout_ms: program
            .timeout
            .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
    };
    let running = timeout(deadlines.reply, agent.start(request)).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::GuestLost, "the guest did not start the program in time"))
    })?;
    events.emit(Event::ProgramStarted).await;
    let hear = |said| {
        let event = match said {
            Said::Stdout(bytes) => Event::Output { stream: Stream::Stdout, bytes },
            Said::Stderr(bytes) => Event::Output { stream: Stream::Stderr, bytes },
        };
        let events = events.clone();
        async move { events.emit(event).await }
    };
    // The guest keeps the time; should it not, the host does.
    let patience = program.timeout.map(|limit| limit.saturating_add(deadlines.timeout_grace));
    running.finish(stdin, &mut signals, patience, hear).await
}

impl Shape {
    fn check(self) -> Result<()> {
        let Self { vcpu_count, mem_mib, disk_mib: _ } = self;
        if !VCPUS.contains(&vcpu_count) {
            let (min, max) = (VCPUS.start(), VCPUS.end());
            let message = format!("a guest cannot have {vcpu_count} virtual processors");
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .hint(format!("choose between {min} and {max}")));
        }
        if mem_mib < MEM_MIB_MIN {
            let message = format!("a guest cannot live in {mem_mib} MiB of memory");
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .hint(format!("give it at least {MEM_MIB_MIN} MiB")));
        }
        let available = facts::available_mem_mib()?;
        if u64::from(mem_mib) + MEM_MIB_RESERVE > available {
            let message = format!(
                "the host has {available} MiB of memory free and the guest wants {mem_mib} MiB"
            );
            return Err(Error::new(ErrorKind::OutOfMemory, message)
                .hint("choose a smaller --mem-mib, or end something else first"));
        }
        Ok(())
    }
}

/// Everything that must be there before a VMM is started.
async fn prepare(
    pyro: &Pyro,
    environment: &str,
    shape: Shape,
    accelerator: Accelerator,
) -> Result<(Directory, Assignment, Bootable)> {
    let program = qemu::find(&pyro.config)?;
    let (config, name) = (pyro.config.clone(), environment.to_owned());
    // Reads whole images when they are new; nobody else is to wait meanwhile.
    let found = tokio::task::spawn_blocking(move || {
        private_dir(&config.cache_dir)?;
        private_dir(&config.state_dir)?;
        Ok::<_, Error>((Environments::new(&config).resolve(&name)?, Facts::gather(&config)?))
    });
    let (bootable, facts) = found.await.map_err(|error| {
        Error::new(ErrorKind::Internal, "looking for what to boot failed").because(error)
    })??;
    let directory = Directory::create(&pyro.config)?;
    let disk_path = directory.path().join("disk.ext4");
    disk::create(&pyro.config, &disk_path, shape.disk_mib).await?;
    let assignment = Assignment {
        workspace: directory.id().to_string(),
        directory: directory.path().to_owned(),
        machine: Machine {
            vcpu_count: shape.vcpu_count,
            mem_mib: shape.mem_mib,
            kernel: bootable.kernel.vmlinux.clone(),
            kernel_flavor: bootable.kernel.flavor,
            initrd: bootable.kernel.initrd.clone(),
            root_image: bootable.root_image.clone(),
            disk: disk_path,
            accelerator,
            verbose: false,
        },
        qemu: program,
        tsc_khz: facts.tsc_khz,
        deadlines: pyro.deadlines,
    };
    Ok((directory, assignment, bootable))
}

/// What the user asked for, else what was proven to work, else a good guess;
/// and whether it is more than a guess.
pub fn choose(pyro: &Pyro) -> Result<(Accelerator, bool)> {
    match pyro.config.accelerator.as_deref() {
        Some("kvm") => Ok((Accelerator::Kvm, true)),
        Some("tcg") => Ok((Accelerator::Tcg, true)),
        Some(other) => {
            Err(Error::new(ErrorKind::InvalidInput, format!("PYRO_ACCELERATOR is {other:?}"))
                .hint("set it to kvm or tcg, or unset it"))
        }
        None => {
            let proven = Facts::gather(&pyro.config)?.kvm_boots;
            let kvm = proven.unwrap_or_else(facts::processor_claims_kvm);
            let accelerator = if kvm { Accelerator::Kvm } else { Accelerator::Tcg };
            Ok((accelerator, proven.is_some()))
        }
    }
}
