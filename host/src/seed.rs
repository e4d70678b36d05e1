//! Seeds: what a caller gives a workspace to begin with, as a read-only EROFS
//! image that is its baseline for life.
//!
//! A [`Source`] shows its entries to a [`Visitor`]; [`erofs::Writer`] is the one
//! that makes an image of them. It needs no root and extracts nothing: what an
//! archive holds goes into the image without ever being a file of the host.

pub(crate) mod archive;
pub mod directory;
pub mod entry;
pub mod erofs;
pub mod git;
pub mod source;
pub mod tree;
pub mod walk;

use crate::digest::Digest;
use crate::disk::DEVICE_BYTES;
use crate::error::{Error, Result};
use rustix::fs::fstat;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tokio_util::sync::CancellationToken;

pub use entry::{Content, Entry, Kind, Mtime, RelPath};
pub use source::{Source, Surroundings};
pub use walk::{Visitor, Walk};

/// The size that every seed has as a device, so that the devices a guest sees
/// do not depend on its workspace. Sparse: it costs what is in it.
pub const SEED_DEVICE_BYTES: u64 = DEVICE_BYTES;

/// A seed that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// How many entries the source has, without its root.
    pub entry_count: u64,
    /// How many bytes of content its files have.
    pub bytes_written: u64,
    /// The length of the image, without the hole that follows it.
    pub image_bytes: u64,
    /// What [`digest_of`] says of the image. Equal trees have equal images.
    pub digest: Digest,
    /// What was left out or was odd, a line each, not too many.
    pub warnings: Vec<String>,
}

/// Makes an image of a source, as a new file. It is on the disk when this
/// returns; on an error what there is of the file is the caller's to remove.
///
/// This takes its time: it is for a thread that may block.
///
/// # Errors
/// When the source cannot be read, has something that no tree can have or more
/// than a seed may have, when the file is there already or cannot be written,
/// or when it was cancelled.
pub fn build(source: &Source, target: &Path, cancel: &CancellationToken) -> Result<Built> {
    let refused =
        |error: std::io::Error| Error::io(format!("cannot write {}", target.display()), error);
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(target)
        .map_err(refused)?;
    let own = fstat(&file).map_err(|errno| refused(errno.into()))?;
    let mut writer = erofs::Writer::new(file.try_clone().map_err(refused)?)?;
    let mut walk = Walk::new(&mut writer, cancel);
    let scratch = target.parent().unwrap_or(Path::new("/"));
    let around = Surroundings { avoid: Some(directory::FileId::of(&own)), scratch };
    source.walk(&mut walk, around)?;
    let (entry_count, warnings) = walk.finish();
    let written = writer.finish()?;
    file.set_len(SEED_DEVICE_BYTES).and_then(|()| file.sync_all()).map_err(refused)?;
    Ok(Built {
        entry_count,
        bytes_written: written.content_bytes,
        image_bytes: written.length,
        digest: written.digest.into(),
        warnings: warnings.lines(),
    })
}

/// The digest of an image: of all its blocks but the first, which follows from
/// the others. The hole behind it does not count.
///
/// # Errors
/// `StateCorrupt` when it is no image or not whole.
pub fn digest_of(path: &Path) -> Result<Digest> {
    let image = File::open(path)
        .map_err(|error| Error::io(format!("cannot open {}", path.display()), error))?;
    erofs::digest_of(&image).map(Digest::from)
}
