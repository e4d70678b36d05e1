//! Back to the baseline.

use super::place::Place;
use super::power::{boot, keep, stop_with, sweep_disks};
use super::record::Record;
use crate::context::Context;
use crate::disk;
use crate::error::Result;
use crate::event_log::{EventLog, Happening};
use crate::pyro::Pyro;
use crate::supervisor::keep::GRACE;
use crate::vmm::Durability;
use jiff::Timestamp;

/// Gives a workspace a fresh disk over the same seed and starts it. The old disk
/// is dropped only once a guest answers on the new one; if that fails, or the
/// caller dies, the workspace is stopped and has its old disk.
pub async fn reset(pyro: &Pyro, place: &Place, context: &Context) -> Result<Record> {
    let _life = place.take_life(context).await?;
    let record = place.record()?;
    stop_with(place, GRACE, context).await?;
    let run = place.take_run(super::power::END_DEADLINE).await?;
    sweep_disks(place, &record);
    let name = format!("disk-{}.ext4", record.reset_count + 1);
    let fresh = place.path().join(&name);
    let renewed = async {
        disk::create(&pyro.config, &fresh, record.disk_mib, Durability::Kept).await?;
        let lease = boot(pyro, place, &record, &run, fresh.clone(), context).await?;
        // From here on the new disk is the workspace's.
        let record = place
            .change(|record| {
                record.disk = name;
                record.reset_count += 1;
                record.last_reset_at = Some(Timestamp::now());
                Ok(())
            })
            .await?;
        keep(place, &record, lease).await?;
        Ok(record)
    };
    match renewed.await {
        Ok(record) => {
            // What cannot be written down has happened all the same.
            drop(EventLog::within(place.path()).append(Happening::Reset));
            sweep_disks(place, &record);
            Ok(record)
        }
        Err(error) => {
            sweep_disks(place, &place.record()?);
            Err(error)
        }
    }
}
