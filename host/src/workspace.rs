//! Workspaces: a guest with its own disk, and what happens in it.

pub mod directory;

use crate::agent::AgentClient;
use crate::agent::process::Said;
use crate::context::Context;
use crate::deadlines::Deadlines;
use crate::disk;
use crate::environment::{Bootable, Defaults, Environments};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Stream};
use crate::facts::{self, Facts};
use crate::id::WorkspaceId;
use crate::pyro::Pyro;
use crate::supervisor::launch::Lease;
use crate::supervisor::{Assignment, Ready};
use crate::vmm::{Accelerator, Machine, qemu};
use directory::Directory;
use pyro_protocol::process::{Exit, Outcome, StartProcess};
use pyro_protocol::{ByteString, GuestPath};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::timeout;

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
    let cancel = context.cancel.clone();
    let stage = |name| Event::Stage { name, subject: request.environment.clone() };
    context.events.emit(stage("preparing")).await;
    let accelerator = accelerator(pyro)?;
    let starting = start(pyro, &request.environment, request.shape, accelerator);
    let mut machine = tokio::select! {
        machine = starting => machine?,
        () = cancel.cancelled() => return Err(cancelled()),
    };
    context.events.emit(stage("booting")).await;
    let ran = tokio::select! {
        ran = machine.run(request.program, context) => ran,
        () = cancel.cancelled() => Err(cancelled()),
    };
    let released = machine.lease.release().await;
    let (ready, exit) = ran?;
    released?;
    Ok(Ran {
        id: machine.id,
        outcome: exit.outcome,
        boot: Duration::from_micros(ready.boot_us + ready.activate_us),
        took: Duration::from_micros(exit.took_us),
    })
}

fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "cancelled")
}

/// A guest on its way up, or up.
struct Starting {
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
) -> Result<Starting> {
    shape.check()?;
    let (directory, assignment, bootable) = prepare(pyro, environment, shape, accelerator).await?;
    let lease = pyro.launcher.launch(&pyro.config, &assignment, directory.lock()).await?;
    let id = directory.id();
    // From here on the directory is the supervisor's to remove.
    directory.hand_over();
    let Assignment { directory, deadlines, .. } = assignment;
    Ok(Starting { id, directory, deadlines, lease, bootable })
}

impl Starting {
    async fn run(&mut self, program: Program, context: Context) -> Result<(Ready, Exit)> {
        let ready = self.lease.ready().await?;
        context.events.emit(Event::Stage { name: "running", subject: self.id.to_string() }).await;
        let program = program.or_defaults(&self.bootable.defaults)?;
        let agent = AgentClient::new(&self.directory, self.deadlines)?;
        match execute(&agent, self.deadlines, program, context).await {
            Ok(exit) => Ok((ready, exit)),
            // The supervisor knows more than the broken connection tells.
            Err(error) if error.kind() == ErrorKind::GuestLost => {
                Err(timeout(self.deadlines.last_words, self.lease.lost()).await.unwrap_or(error))
            }
            Err(error) => Err(error),
        }
    }
}

/// Boots a guest, looks at its VMM while it lives, and ends it.
pub async fn trial<T>(
    pyro: &Pyro,
    environment: &str,
    accelerator: Accelerator,
    look: impl FnOnce(&Ready) -> T,
) -> Result<(Ready, T)> {
    let shape = Shape { vcpu_count: 1, mem_mib: TRIAL_MEM_MIB, disk_mib: disk::DEFAULT_MIB };
    let mut machine = start(pyro, environment, shape, accelerator).await?;
    let ready = machine.lease.ready().await;
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
    let starting = async { agent.connect().await?.start(request).await };
    let running = timeout(deadlines.reply, starting).await.unwrap_or_else(|_| {
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
    let finishing = running.finish(stdin, &mut signals, hear);
    match program.timeout {
        None => finishing.await,
        // The guest keeps the time; should it not, the host does.
        Some(limit) => timeout(limit.saturating_add(deadlines.timeout_grace), finishing)
            .await
            .unwrap_or_else(|_| {
                Err(Error::new(
                    ErrorKind::TimedOut,
                    "the guest did not end the program when its time was over",
                ))
            }),
    }
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
    let bootable = Environments::new(&pyro.config).resolve(environment)?;
    let program = qemu::find(&pyro.config)?;
    let facts = Facts::gather(&pyro.config)?;
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

/// What the user asked for, else what was proven to work, else a good guess.
pub fn accelerator(pyro: &Pyro) -> Result<Accelerator> {
    match pyro.config.accelerator.as_deref() {
        Some("kvm") => Ok(Accelerator::Kvm),
        Some("tcg") => Ok(Accelerator::Tcg),
        Some(other) => {
            Err(Error::new(ErrorKind::InvalidInput, format!("PYRO_ACCELERATOR is {other:?}"))
                .hint("set it to kvm or tcg, or unset it"))
        }
        None => {
            let proven = Facts::gather(&pyro.config)?.kvm_boots;
            let kvm = proven.unwrap_or_else(facts::processor_claims_kvm);
            Ok(if kvm { Accelerator::Kvm } else { Accelerator::Tcg })
        }
    }
}
