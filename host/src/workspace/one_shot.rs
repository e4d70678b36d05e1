//! One program in a guest of its own that is gone afterwards.

use super::admission;
use super::create::resolve;
use super::directory::Directory;
use super::machine::{self, Attempt, Caller, Form, Plan};
use super::program::{Program, execute};
use super::shape::Shape;
use super::template::Start;
use crate::agent::AgentClient;
use crate::context::Context;
use crate::disk;
use crate::egress::Network;
use crate::environment::{Bootable, Environments};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::event_log::{EventLog, Happening};
use crate::id::WorkspaceId;
use crate::pyro::Pyro;
use crate::supervisor::launch::Lease;
use crate::supervisor::{Lifetime, Ready};
use crate::vmm::{Durability, Rung};
use pyro_protocol::process::{Exit, Outcome};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The most of a network's refusals that are told.
const REFUSED_MAX: usize = 16;

/// The newest events that they are looked for in.
const EVENTS_READ: usize = 1000;

/// One program in a guest of its own that is gone afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRequest {
    /// The environment's name.
    pub environment: String,
    /// How large a guest.
    pub shape: Shape,
    /// How to run it; the best way if not said.
    pub vmm: Option<Rung>,
    /// Its network.
    pub network: Network,
    /// How its machine comes up.
    pub start: Start,
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
    /// What ran; nothing is the guest's interactive shell.
    pub argv: Vec<Vec<u8>>,
    /// From starting the VMM to the mounted workspace.
    pub boot: Duration,
    /// Whether a template was restored, in place of a boot.
    pub restored: bool,
    /// From the program's start to its end, as the guest measured it.
    pub took: Duration,
    /// What its network was refused, each once.
    pub refused: Vec<String>,
}

/// Runs one program in a guest of its own. Nothing of it is left afterwards,
/// however this ends; should the caller die, its supervisor cleans up.
///
/// Without a program it is what the environment says.
///
/// # Errors
/// When it never ran, and when nobody knows how it went.
pub async fn run(pyro: &Pyro, mut request: RunRequest, context: Context) -> Result<Ran> {
    if request.program.argv.is_empty() {
        let has_terminal = context.terminal.is_some();
        request.program.argv = own_command(pyro, &request.environment, has_terminal)?;
    }
    let argv = request.program.argv.clone();
    let (cancel, events) = (context.cancel.clone(), context.events.clone());
    let caller = Caller { events: &events, cancel: &cancel };
    let mut attempt = Attempt::first(pyro, request.vmm).await?;
    let (mut guest, ready) = loop {
        let rung = attempt.rung();
        let RunRequest { environment, shape, network, start, .. } = &request;
        let up = bring_up(pyro, environment, *shape, network.clone(), *start, rung, &caller).await;
        if let Some(up) = attempt.judge(pyro, up, &events).await {
            break up?;
        }
    };
    caller.stage("running", guest.id.to_string()).await;
    let ran = caller.unless_cancelled(guest.run(pyro, request.program, context)).await;
    let refused = refused(&guest.directory);
    let released = guest.lease.release().await;
    let exit = ran?;
    // What the program came to is not undone by what became of its machine.
    if let Err(error) = &released {
        let warning = format!("the machine may not be gone: {}", error.chain());
        events.emit(Event::Warning(warning)).await;
    }
    Ok(Ran {
        removed: released.is_ok(),
        id: guest.id,
        argv,
        outcome: exit.outcome,
        boot: Duration::from_micros(ready.boot_us + ready.activate_us),
        restored: ready.is_restored(),
        took: Duration::from_micros(exit.took_us),
        refused,
    })
}

/// What an environment says to run; at a terminal that may be nothing.
fn own_command(pyro: &Pyro, environment: &str, at_terminal: bool) -> Result<Vec<Vec<u8>>> {
    match Environments::new(&pyro.config).command(environment)? {
        Some(argv) => Ok(argv),
        None if at_terminal => Ok(Vec::new()),
        None => {
            let message = format!("{environment} does not say what to run");
            Err(Error::new(ErrorKind::InvalidInput, message)
                .hint(format!("say it: `pyro run {environment} -- uname -a`")))
        }
    }
}

/// What a guest's network was refused, as its log has it: that is gone with the
/// guest, and whoever wonders why a program failed is to be told.
fn refused(directory: &Path) -> Vec<String> {
    let mut refused = Vec::new();
    for line in EventLog::within(directory).newest(EVENTS_READ).unwrap_or_default() {
        if let Happening::Network { action, destination, names, allowed: false, rule } =
            line.happening
        {
            let known =
                if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
            let told = format!("{action} {destination}{known} by {rule}");
            if refused.len() < REFUSED_MAX && !refused.contains(&told) {
                refused.push(told);
            }
        }
    }
    refused
}

/// Boots a guest, looks at its VMM while it lives, and ends it.
pub async fn trial<T>(
    pyro: &Pyro,
    environment: &str,
    rung: Rung,
    cancel: &CancellationToken,
    look: impl FnOnce(&Ready) -> T,
) -> Result<(Ready, T)> {
    let caller = Caller { events: &crate::Events::discard(), cancel };
    let network = Network::default();
    let trial = bring_up(pyro, environment, Shape::TRIAL, network, Start::Cold, rung, &caller);
    let (guest, ready) = trial.await?;
    let seen = look(&ready);
    guest.lease.release().await?;
    Ok((ready, seen))
}

/// A guest that serves calls and ends with its lease.
struct OneShot {
    id: WorkspaceId,
    directory: PathBuf,
    lease: Lease,
    /// What it boots from; kept in the cache meanwhile.
    bootable: Bootable,
}

async fn bring_up(
    pyro: &Pyro,
    environment: &str,
    shape: Shape,
    network: Network,
    start: Start,
    rung: Rung,
    caller: &Caller<'_>,
) -> Result<(OneShot, Ready)> {
    shape.check()?;
    admission::look(&pyro.config, shape.mem_mib)?;
    caller.stage("preparing", environment).await;
    let preparing = prepare(pyro, environment, shape);
    let (directory, disk, bootable) = caller.unless_cancelled(preparing).await?;
    let plan = Plan {
        id: directory.id(),
        directory: directory.path().to_owned(),
        lock: directory.lock(),
        bootable: &bootable,
        shape,
        disk,
        seed: None,
        lifetime: Lifetime::Lease,
        network,
        form: Form::Work,
        start,
    };
    caller.stage("booting", environment).await;
    let (lease, ready) = machine::boot(pyro, &plan, rung, caller).await?;
    let (id, path) = (plan.id, plan.directory);
    // From here on the directory is the supervisor's to remove.
    directory.hand_over();
    Ok((OneShot { id, directory: path, lease, bootable }, ready))
}

/// Everything that must be there before a VMM is started.
async fn prepare(
    pyro: &Pyro,
    environment: &str,
    shape: Shape,
) -> Result<(Directory, PathBuf, Bootable)> {
    let bootable = resolve(pyro, environment).await?;
    let directory = Directory::create(&pyro.config)?;
    let disk_path = directory.path().join("disk.ext4");
    disk::create(&pyro.config, &disk_path, shape.disk_mib, Durability::Scratch).await?;
    Ok((directory, disk_path, bootable))
}

impl OneShot {
    async fn run(&mut self, pyro: &Pyro, program: Program, context: Context) -> Result<Exit> {
        let program = program.or_defaults(&self.bootable.defaults)?;
        let agent = AgentClient::new(&self.directory, pyro.deadlines)?;
        match execute(&agent, pyro.deadlines, program, context).await {
            // The supervisor knows more than the broken connection tells.
            Err(error) if error.kind() == ErrorKind::GuestLost => {
                let lost = timeout(pyro.deadlines.last_words, self.lease.lost());
                Err(lost.await.unwrap_or(error))
            }
            ended => ended,
        }
    }
}
