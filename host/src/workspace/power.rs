//! Starting, stopping and deleting workspaces.

use super::machine::{self, Attempt, Caller, Form, Plan};
use super::place::{Place, SEED_NAME, State};
use super::record::Record;
use super::template::Start;
use crate::blocking::blocking;
use crate::context::Context;
use crate::environment::{Bootable, Environments};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::event_log::{Happening, StoppedBy};
use crate::pyro::Pyro;
use crate::store::discard_dir;
use crate::store::lock::Lock;
use crate::supervisor::control::give;
use crate::supervisor::keep::{OFF_MAX, RUNNING_NAME};
use crate::supervisor::launch::Lease;
use crate::supervisor::{Keep, Lifetime, force, order};
use std::path::PathBuf;
use std::time::Duration;

/// How long a supervisor may take to end once it has said that its guest is
/// gone, or had its guest killed.
pub(super) const END_DEADLINE: Duration = Duration::from_secs(15);

/// How long a guest may take to go off beyond its processes' grace: it writes
/// its disk out, and the host may be crowded.
const OFF_MARGIN: Duration = Duration::from_secs(40);
const _: () = assert!(OFF_MAX.as_secs() < OFF_MARGIN.as_secs());

/// How long a guest may take to go down that nobody waits for any more.
pub(super) const GOING_DOWN: Duration = Duration::from_secs(60);

/// How long a supervisor may take to kill its guest, which takes milliseconds,
/// before it is killed itself.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It was not running.
    Already,
    /// Its disk was made consistent before.
    Cleanly,
    /// It did not obey and was killed, as if its power had failed.
    Killed,
}

/// Starts a workspace; one that runs is left alone. Says whether it was started.
///
/// # Errors
/// `Conflict` when it is paused: what it was doing would be taken up again.
pub async fn start(pyro: &Pyro, place: &Place, start: Start, context: &Context) -> Result<bool> {
    let life = place.take_life(context).await?;
    start_with(pyro, place, &life, start, context).await
}

/// Starts a workspace whose life is held.
pub(super) async fn start_with(
    pyro: &Pyro,
    place: &Place,
    _life: &Lock,
    start: Start,
    context: &Context,
) -> Result<bool> {
    match place.state() {
        State::Running => return Ok(false),
        State::Paused => return Err(place.is_paused()),
        State::Stopped | State::Changing | State::Crashed | State::Damaged => {}
    }
    // A supervisor that goes down has it still; one that comes up would hold
    // the workspace's life.
    let run = place.take_run(GOING_DOWN).await.map_err(|error| wedged(place, error))?;
    let renew = |record: &mut Record| {
        record.renew_expired();
        Ok(())
    };
    let record = place.change(renew).await?;
    let disk = place.path().join(&record.disk);
    sweep_disks(place, &record);
    let lease = boot(pyro, place, &record, &run, disk, start, context).await?;
    keep(place, lease).await?;
    Ok(true)
}

/// Boots a workspace from a disk; the lease is still to be kept.
pub(super) async fn boot(
    pyro: &Pyro,
    place: &Place,
    record: &Record,
    run: &Lock,
    disk: PathBuf,
    start: Start,
    context: &Context,
) -> Result<Lease> {
    let caller = Caller::from(context);
    caller.stage("booting", place.id().to_string()).await;
    let attempt = Attempt::first(pyro, record.vmm).await?;
    let bootable = caller.unless_cancelled(resolve(pyro, record)).await?;
    forget_running(place)?;
    let plan = Plan {
        id: place.id(),
        directory: place.path().to_owned(),
        lock: run.file(),
        bootable: &bootable,
        shape: record.shape(),
        disk,
        seed: Some(place.path().join(SEED_NAME)),
        lifetime: Lifetime::Kept,
        network: record.network(),
        form: Form::Work,
        start,
    };
    machine::boot_best(pyro, &plan, attempt, &caller).await
}

pub(super) async fn keep(place: &Place, lease: Lease) -> Result<()> {
    lease.keep(&Keep { directory: place.path().to_owned() }).await
}

pub(super) async fn resolve(pyro: &Pyro, record: &Record) -> Result<Bootable> {
    let (config, name, digest) =
        (pyro.config.clone(), record.environment.clone(), record.root_digest);
    blocking(move || Environments::new(&config).resolve_pinned(&name, digest)).await
}

/// Stops a workspace in good order; its data stay.
pub async fn stop(place: &Place, grace: Duration, context: &Context) -> Result<Stopped> {
    let _life = place.take_life(context).await?;
    stop_with(place, grace, context).await
}

/// Stops a workspace whose life is held.
pub(super) async fn stop_with(
    place: &Place,
    grace: Duration,
    context: &Context,
) -> Result<Stopped> {
    match place.state() {
        State::Stopped => return Ok(Stopped::Already),
        State::Crashed => {
            forget_running(place)?;
            return Ok(Stopped::Already);
        }
        State::Running | State::Paused | State::Changing | State::Damaged => {}
    }
    Caller::from(context).stage("stopping", place.id().to_string()).await;
    let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
    let deadline = grace.saturating_add(OFF_MARGIN);
    // Whoever leaves now leaves a machine that goes off all the same.
    let stopping = async {
        let stopped = give(order::Stop { grace_ms }, place.path(), deadline).await;
        stopped.map_err(|error| error.hint(by_force(place)))
    };
    let stopped = context.unless_cancelled(stopping).await?;
    place.take_run(GOING_DOWN).await.map_err(|error| wedged(place, error))?;
    match stopped {
        Some(order::Stopped { clean: true }) => Ok(Stopped::Cleanly),
        Some(order::Stopped { clean: false }) => Ok(Stopped::Killed),
        // It went away before it could be asked.
        None => {
            forget_running(place)?;
            Ok(Stopped::Already)
        }
    }
}

/// Stops a workspace as if its power failed: what its guest has not written to
/// its disk is lost, and the disk's journal makes the rest consistent.
pub async fn stop_by_force(place: &Place, context: &Context) -> Result<Stopped> {
    let _life = place.take_life(context).await?;
    match place.state() {
        State::Stopped => return Ok(Stopped::Already),
        State::Crashed => {
            forget_running(place)?;
            return Ok(Stopped::Already);
        }
        State::Running | State::Paused | State::Changing | State::Damaged => {}
    }
    let _run = kill(place, context).await?;
    forget_running(place)?;
    Ok(Stopped::Killed)
}

/// Deletes a workspace with all its data. A running guest is killed.
pub async fn delete(place: &Place, context: &Context) -> Result<()> {
    let life = place.take_life(context).await?;
    delete_with(place, &life, context).await
}

/// Deletes a workspace whose life is held.
pub(super) async fn delete_with(place: &Place, _life: &Lock, context: &Context) -> Result<()> {
    if place.state() != State::Stopped {
        drop(kill(place, context).await?);
    }
    let path = place.path().to_owned();
    blocking(move || discard_dir(&path)).await
}

/// Has the guest of a workspace whose life is held killed by its supervisor, or
/// with it if that does not obey; gives the lock that it had.
async fn kill(place: &Place, context: &Context) -> Result<Lock> {
    Caller::from(context).stage("stopping", place.id().to_string()).await;
    let ordered = give(order::Kill, place.path(), KILL_DEADLINE).await;
    // Whether it obeyed, or was going down already, the lock tells.
    if ordered.is_ok()
        && let Ok(run) = place.take_run(KILL_DEADLINE).await
    {
        return Ok(run);
    }
    let ended = force::end(&place.open_run()?, END_DEADLINE).await?;
    let run = place.take_run(END_DEADLINE).await?;
    if ended {
        place.note(Happening::Stopped { by: StoppedBy::Request, clean: false }, false);
    }
    Ok(run)
}

fn wedged(place: &Place, error: Error) -> Error {
    let message = format!("the supervisor of workspace {} does not end", place.id());
    Error::new(ErrorKind::TimedOut, message).because(error).hint(by_force(place))
}

pub(super) fn by_force(place: &Place) -> String {
    let log = place.path().join("supervisor.log");
    format!(
        "`pyro workspace stop {} --force` kills it; {} may say what is wrong",
        place.id(),
        log.display()
    )
}

/// Once it is known that it does not run, that it did is history.
fn forget_running(place: &Place) -> Result<()> {
    match std::fs::remove_file(place.path().join(RUNNING_NAME)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("cannot change {}", place.path().display()), error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes disks that a reset left behind.
pub(super) fn sweep_disks(place: &Place, record: &Record) {
    let Ok(entries) = std::fs::read_dir(place.path()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_disk = name.to_str().is_some_and(|name| name.starts_with("disk-"));
        if is_disk && name != record.disk.as_str() {
            // What cannot be removed now is there for the next start.
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

/// Says that a workspace that had gone away was started again.
pub(super) async fn warn_of_crash(place: &Place, context: &Context) {
    let warning = format!("workspace {} had gone away and was started again", place.id());
    context.events.emit(Event::Warning(warning)).await;
}
