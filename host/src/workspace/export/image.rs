//! All that is on a workspace's disk, as a file system of its own. A throw-away
//! guest copies it there: the host makes the empty file system, and puts the file
//! in place as it is, without looking into it.

use super::staging::Staging;
use super::{Existing, Exported, cancelled, there_already};
use crate::agent::transfer::blocking;
use crate::config::Config;
use crate::context::{Admitted, Context};
use crate::disk;
use crate::disk::room::{Room, Taker};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::workspace::inspect::Inspection;
use pyro_protocol::file::FileType;
use pyro_protocol::inspect::{CopyEnd, CopyProgress, CopyTree, MeasureTree, TreeMeasured};
use pyro_protocol::piece::Piece;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a guest may take to look at every name there is.
const MEASURING_MAX: Duration = Duration::from_secs(600);

/// What a file system of this kind takes for itself, besides its inodes: a journal,
/// tables, and one part of 32 for what is not foreseen.
const OWN_BYTES: u64 = 64 << 20;
const UNFORESEEN: u64 = 32;

/// What an inode takes.
const INODE_BYTES: u64 = 256;

/// Inodes for what is made once it runs by itself, and one for so many bytes.
const SPARE_INODES: u64 = 64 * 1024;
const BYTES_PER_INODE: u64 = 16 * 1024;

/// The most inodes that one has.
const INODES_MAX: u64 = 1 << 31;

/// An image that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    mib: u64,
    inodes: u64,
}

impl Size {
    /// As much room beside what is there as the workspace had.
    fn of(measured: TreeMeasured) -> Result<Self> {
        let TreeMeasured { entries, bytes, free_bytes } = measured;
        let content = bytes.saturating_add(bytes / UNFORESEEN).saturating_add(free_bytes);
        let wanted = entries.saturating_add(SPARE_INODES);
        let inodes = wanted.max(content / BYTES_PER_INODE);
        let all =
            content.saturating_add(OWN_BYTES).saturating_add(inodes.saturating_mul(INODE_BYTES));
        if all > disk::COPY_BYTES || inodes > INODES_MAX {
            let message = "what is on the disk does not fit into an image";
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .hint("export it as an archive: `--format tar`"));
        }
        Ok(Self { mib: all.div_ceil(1 << 20), inodes })
    }
}

/// Refuses an output that is there, before anything is done for it.
///
/// # Errors
/// `Conflict`.
pub fn refuse_existing(output: &Admitted, existing: Existing) -> Result<()> {
    if existing == Existing::Refuse && output.is_there() {
        return Err(there_already(output.path()));
    }
    Ok(())
}

/// An image in the making, and what was told of it.
#[derive(Debug)]
pub struct Copied {
    staging: Staging,
    bytes: u64,
    end: CopyEnd,
}

/// Has the guest of an inspection copy all that is on the disk. What this gives
/// is in place once it is [settled](Copied::settle), which is for when the guest
/// has gone.
///
/// # Errors
/// When the output is there already, when there is no room for it, or when the guest
/// cannot.
pub async fn copy(
    config: &Config,
    inspection: &Inspection,
    output: Admitted,
    existing: Existing,
    context: &Context,
) -> Result<Copied> {
    refuse_existing(&output, existing)?;
    let Some(file) = inspection.copy().map(Path::to_owned) else {
        return Err(Error::new(ErrorKind::Internal, "the guest has no disk to copy to"));
    };
    let staging = blocking(move || Staging::beside(&output)).await?;
    let agent = inspection.agent();
    let measuring = agent.call(MeasureTree, MEASURING_MAX);
    let measured = context.unless_cancelled(measuring).await?;
    let size = Size::of(measured)?;
    // Where it is made, and where it is to be: a link, or one more copy.
    Room::for_bytes(directory_of(&file)?.as_fd(), Taker::Export, measured.bytes)?;
    staging.require_room(measured.bytes)?;
    disk::format_copy(config, &file, size.mib, size.inodes).await?;
    let beginning = agent.begin(CopyTree);
    let (mut connection, _) = context.unless_cancelled(beginning).await?;
    let (steps, mut told) = mpsc::channel(1);
    let place = file.clone();
    let copying = connection.download(None, &context.cancel, move |incoming| {
        let directory = directory_of(&place)?;
        let mut room = Room::of(directory.as_fd(), Taker::Export)?;
        let mut pieces = incoming.pieces::<CopyProgress>();
        while let Some(piece) = pieces.piece().map_err(|_| no_copy())? {
            let Piece::Entry(progress) = piece else { return Err(no_copy()) };
            room.look()?;
            // Whoever hears is late, or has gone: the next step tells the same.
            let _ = steps.try_send(progress);
        }
        Ok(())
    });
    let telling = async {
        while let Some(CopyProgress { bytes, .. }) = told.recv().await {
            let [done, all] =
                [bytes, measured.bytes].map(|bytes| bytes as f64 / f64::from(1 << 20));
            context.events.emit(Event::Progress(format!("{done:.0} of {all:.0} MiB"))).await;
        }
    };
    let (copied, ()) = tokio::join!(copying, telling);
    let ((), end): ((), CopyEnd) = copied.map_err(|error| match context.cancel.is_cancelled() {
        true => cancelled(),
        false => full(&file).unwrap_or(error),
    })?;
    let bytes = size.mib << 20;
    let staging = blocking(move || {
        staging.adopt(&file, bytes)?;
        Ok(staging)
    })
    .await?;
    Ok(Copied { staging, bytes, end })
}

impl Copied {
    /// Puts it in place.
    ///
    /// # Errors
    /// When something else is there meanwhile, or the host's system refuses.
    pub async fn settle(self, existing: Existing) -> Result<(Exported, u64)> {
        let Self { staging, bytes, end } = self;
        blocking(move || {
            staging.own(bytes)?;
            staging.settle(existing)
        })
        .await?;
        let warnings = match end.too_deep {
            0 => Vec::new(),
            count => {
                vec![format!("what is in {count} directories was left out: they lie too deep")]
            }
        };
        let exported = Exported {
            file_type: FileType::Directory,
            entry_count: end.entries,
            bytes_written: end.bytes,
            warnings,
        };
        Ok((exported, bytes))
    }
}

/// That there is no room any more where a guest copies to. It only sees its disk
/// fail.
fn full(file: &Path) -> Option<Error> {
    let directory = directory_of(file).ok()?;
    Room::of(directory.as_fd(), Taker::Export).err()
}

fn directory_of(file: &Path) -> Result<File> {
    let directory: PathBuf = file.parent().map(Path::to_owned).unwrap_or_default();
    File::open(&directory)
        .map_err(|error| Error::io(format!("cannot open {}", directory.display()), error))
}

fn no_copy() -> Error {
    Error::new(ErrorKind::Protocol, "the guest did not tell of its copy as it should")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_room_for_what_is_there_and_for_as_much_as_there_was() {
        let measured = TreeMeasured { entries: 50_000, bytes: 1 << 30, free_bytes: 15 << 30 };
        let size = Size::of(measured).expect("it fits");
        assert!(size.mib > 16 << 10 && size.mib < 17 << 10, "{size:?}");
        assert!(size.inodes > 1 << 20, "{size:?}");
        let many = TreeMeasured { entries: 3_000_000, bytes: 12 << 30, free_bytes: 0 };
        assert!(Size::of(many).expect("it fits").inodes > 3_000_000);
    }

    #[test]
    fn s4_a_guest_that_claims_anything_gets_an_answer() {
        for most in [[u64::MAX; 3], [0, u64::MAX, 0], [u64::MAX, 0, 0], [0, 0, u64::MAX]] {
            let [entries, bytes, free_bytes] = most;
            let error = Size::of(TreeMeasured { entries, bytes, free_bytes });
            assert_eq!(error.expect_err("too much").kind(), ErrorKind::InvalidInput);
        }
    }
}
