//! Operations on the disk of a workspace that is stopped.

mod export;
mod list;
mod read;

pub use export::{DiskExport, DiskExportAnswer, DiskFormat};
pub use list::DiskList;
pub use read::DiskRead;

use crate::operation::missing::point_out_on_disk;
use crate::workspace::inspect::{AtRest, Inspection};
use crate::{Pyro, Result};
use pyro_protocol::GuestPath;

/// Ends a guest, and says where to look for what was not there.
async fn close<T>(
    mut answer: Result<T>,
    inspection: Inspection,
    at_rest: &AtRest,
    path: Option<&GuestPath>,
    pyro: &Pyro,
) -> Result<T> {
    if let (Err(error), Some(path)) = (&mut answer, path) {
        point_out_on_disk(error, at_rest.id(), path);
    }
    inspection.close(answer, pyro.deadlines.last_words).await
}
