//! Back to the baseline, or to a snapshot.

use super::create::sync;
use super::place::Place;
use super::power::{boot, keep, stop_with, sweep_disks};
use super::record::Record;
use super::snapshot::take::copy_at_rest;
use super::snapshot::{self, SnapshotRef};
use super::template::Start;
use crate::context::Context;
use crate::disk;
use crate::error::{Error, Result};
use crate::event_log::{EventLog, Happening};
use crate::pyro::Pyro;
use crate::supervisor::keep::GRACE;
use crate::vmm::Durability;
use jiff::Timestamp;

/// Gives a workspace a fresh disk over the same seed, or what its disk was, and
/// starts it. It runs until the new disk is made, and the old one is dropped only
/// once a guest answers on that; if that fails, or the caller dies, the workspace
/// has its old disk and may be stopped.
///
/// # Errors
/// `NotFound` when there is no such snapshot, and `DiskFull` when there is no room
/// for a copy of it; then it runs on.
pub async fn reset(
    pyro: &Pyro,
    place: &Place,
    to: &SnapshotRef,
    start: Start,
    context: &Context,
) -> Result<Record> {
    let _life = place.take_life(context).await?;
    let record = place.record()?;
    let snapshot = to.name().map(|name| snapshot::disk(place, name)).transpose()?;
    sweep_disks(place, &record);
    let name = format!("disk-{}.ext4", record.reset_count + 1);
    let fresh = place.path().join(&name);
    let renewed = async {
        match snapshot {
            None => disk::create(&pyro.config, &fresh, record.disk_mib, Durability::Kept).await?,
            Some(disk) => drop(copy_at_rest(disk, fresh.clone(), (), context).await?),
        }
        stop_with(place, GRACE, context).await?;
        let run = place.take_run(super::power::END_DEADLINE).await?;
        let (lease, written) = tokio::join!(
            boot(pyro, place, &record, &run, fresh.clone(), start, context),
            sync(vec![fresh.clone()])
        );
        let lease = lease?;
        written?;
        // From here on the new disk is the workspace's.
        let change = |record: &mut Record| {
            record.disk = name;
            record.reset_count += 1;
            record.last_reset_at = Some(Timestamp::now());
            record.renew_expired();
            Ok(())
        };
        Ok((place.change(change).await?, lease, run))
    };
    let (record, lease, _run) = match renewed.await {
        Ok(renewed) => renewed,
        Err(error) => {
            // The record says which is whose, if it can be read.
            drop(place.record().map(|record| sweep_disks(place, &record)));
            return Err(error);
        }
    };
    // What cannot be written down has happened all the same.
    let snapshot = to.name().map(ToString::to_string);
    drop(EventLog::within(place.path()).append(Happening::Reset { snapshot }));
    if let Some(name) = to.name() {
        drop(snapshot::note_verified(place, name).await);
    }
    sweep_disks(place, &record);
    keep(place, lease).await.map_err(|error| {
        let message = format!("workspace {} was reset and may not run", place.id());
        Error::new(error.kind(), message)
            .because(error)
            .hint(format!("start it: `pyro workspace start {}`", place.id()))
    })?;
    Ok(record)
}
