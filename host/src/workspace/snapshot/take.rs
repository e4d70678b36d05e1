//! Taking a copy of a workspace's disk, whatever the workspace is doing.

use super::{
    DIRECTORY, DISK, MAKING, RECORD, SNAPSHOTS_MAX, Snapshot, SnapshotName, SnapshotRecord, disk,
    find, lock, names, note_verified, put, sweep, taken,
};
use crate::agent::AgentClient;
use crate::blocking::blocking;
use crate::context::Context;
use crate::disk::copy::{Copied, sparse_while};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::event_log::Happening;
use crate::pyro::Pyro;
use crate::store::staging::Staging;
use crate::store::{record, subdirectory, sync_dir};
use crate::supervisor::copying::STILL_MAX;
use crate::supervisor::order::{CopyDisk, DiskCopied};
use crate::supervisor::without_vmm;
use crate::workspace::create::sync;
use crate::workspace::inspect::Inspection;
use crate::workspace::orders::ask;
use crate::workspace::place::{Place, State};
use crate::workspace::power::GOING_DOWN;
use jiff::Timestamp;
use std::path::PathBuf;
use std::time::Duration;

/// How long a supervisor may take: the copy, and a VMM that takes its time to
/// stand still and to go on.
const ORDER_MAX: Duration = Duration::from_secs(STILL_MAX.as_secs() + 30);

/// Takes a snapshot: of what all programs have written when this is called. The
/// workspace goes on, or stays stopped.
///
/// # Errors
/// `Conflict` when there is one of that name. Whatever fails, and whoever is
/// killed, leaves no half of one.
pub async fn create(
    pyro: &Pyro,
    place: &Place,
    name: &SnapshotName,
    context: &Context,
) -> Result<Snapshot> {
    let _life = place.take_life(context).await?;
    let workspace = place.record()?;
    let directory = place.path().join(DIRECTORY);
    subdirectory(&directory)?;
    sweep(place);
    let there = names(place)?;
    if there.contains(name) {
        return Err(taken(place, name));
    }
    if there.len() >= SNAPSHOTS_MAX {
        let message = format!("workspace {} has {SNAPSHOTS_MAX} snapshots", place.id());
        return Err(Error::new(ErrorKind::Conflict, message)
            .hint(format!("delete some: `pyro workspace snapshot delete {} NAME`", place.id())));
    }
    let staging = Staging::new(&directory.join(MAKING))?;
    let disk = staging.path().join(DISK);
    let created_at = Timestamp::now();
    let from = place.path().join(&workspace.disk);
    let DiskCopied { still_ms, .. } = copy_disk(pyro, place, from, disk.clone(), context).await?;
    let known = SnapshotRecord { created_at, still_ms, verified_at: None };
    record::write(&staging.path().join(RECORD), &known)?;
    sync(vec![disk]).await?;
    sync_dir(staging.path()).map_err(|error| Error::io("cannot write a snapshot", error))?;
    {
        let _lock = lock(place).await?;
        put(staging.path(), place, name)?;
    }
    place.note(Happening::SnapshotCreated { snapshot: name.to_string(), still_ms }, true);
    find(place, name).await
}

/// Starts a throw-away guest that looks at a snapshot's disk, and writes down that
/// it came up.
///
/// # Errors
/// When no guest comes up on it; the snapshot stays as it is.
pub async fn verify(
    pyro: &Pyro,
    place: &Place,
    name: &SnapshotName,
    context: &Context,
) -> Result<Snapshot> {
    let disk = disk(place, name)?;
    let record = place.record()?;
    let looked = async {
        let inspection = Inspection::open(pyro, place, &record, disk, context).await?;
        inspection.close(Ok(()), pyro.deadlines.last_words).await
    };
    looked.await.map_err(|error: Error| {
        let message = format!("snapshot {name} was taken, and no guest came up on it");
        Error::new(error.kind(), message)
            .because(error)
            .hint(format!("`pyro workspace snapshot delete {} {name}` removes it", place.id()))
    })?;
    note_verified(place, name).await?;
    find(place, name).await
}

/// Copies the disk of a workspace whose life is held. What has been written when
/// this is called is in the copy.
pub(in crate::workspace) async fn copy_disk(
    pyro: &Pyro,
    place: &Place,
    from: PathBuf,
    to: PathBuf,
    context: &Context,
) -> Result<DiskCopied> {
    let stage = Event::Stage { name: "copying", subject: place.id().to_string() };
    context.events.emit(stage).await;
    match place.state() {
        State::Running => {
            let agent = AgentClient::new(place.path(), pyro.deadlines)?;
            context.unless_cancelled(agent.sync_disk()).await?;
            ask(place, CopyDisk { from, to }, ORDER_MAX, context).await
        }
        State::Paused => {
            let warning = format!(
                "workspace {} is paused: what its programs wrote last may be in its memory only, \
                 and missing in the copy",
                place.id()
            );
            context.events.emit(Event::Warning(warning)).await;
            ask(place, CopyDisk { from, to }, ORDER_MAX, context).await
        }
        State::Stopped | State::Changing | State::Crashed | State::Damaged => {
            let run = place.take_run(GOING_DOWN).await?;
            // A VMM may outlive a supervisor that was killed by a moment.
            let vmm = without_vmm(place.path()).await?;
            let copied = copy_at_rest(from, to, (run, vmm), context).await?;
            Ok(DiskCopied { by_reference: copied == Copied::ByReference, still_ms: 0 })
        }
    }
}

/// Copies a disk that nobody writes while something is held: until the copy is
/// over, even if nobody waits for it any more.
pub(in crate::workspace) async fn copy_at_rest(
    from: PathBuf,
    to: PathBuf,
    held: impl Send + 'static,
    context: &Context,
) -> Result<Copied> {
    let cancel = context.cancel.clone();
    let copying = blocking(move || {
        let _held = held;
        sparse_while(&from, &to, &|| !cancel.is_cancelled())
    });
    context.unless_cancelled(copying).await
}
