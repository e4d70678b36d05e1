//! Workspaces that are to be deleted when their time is over, and did not run
//! when it was: nobody lived to do it.

use super::directory;
use super::place::{LIFE_LOCK, Place, RECORD_LOCK};
use super::record::TtlAction;
use crate::config::Config;
use crate::store::discard_dir;
use crate::store::lock::{Lock, Mode};
use jiff::Timestamp;

/// Deletes them. Best effort: what cannot be deleted now, or is in anybody's
/// hands, is there for the next sweep.
pub fn sweep(config: &Config) {
    let Ok(places) = Place::all(config) else { return };
    for place in places.iter().filter(|place| is_over(place)) {
        let free =
            |lock: &str| Lock::try_take(&place.path().join(lock), Mode::Exclusive).ok().flatten();
        // Whoever starts, changes or runs it holds one of them. It may have been
        // renewed before they were ours.
        let locks = (free(LIFE_LOCK), free(RECORD_LOCK), free(directory::LOCK_NAME));
        if let (Some(_), Some(_), Some(_)) = &locks
            && is_over(place)
        {
            drop(discard_dir(place.path()));
        }
    }
}

fn is_over(place: &Place) -> bool {
    let ttl = place.record().ok().and_then(|record| record.ttl);
    ttl.is_some_and(|ttl| ttl.action == TtlAction::Delete && ttl.expires_at <= Timestamp::now())
}
