//! Snapshots: what a workspace's disk was, under a name.
//!
//! ```text
//! snapshots/<name>/snapshot.json  what is known of it
//!                  disk.ext4      a copy of the whole writable disk
//! snapshots/.making/<random>/     one that is being taken
//! snapshots/.gone-<name>/         one that is being removed
//! ```
//!
//! One rename puts a snapshot there, another takes it away. Each is whole by
//! itself: it may share blocks with others, but needs none of them. What a
//! workspace keeps to itself, and what runs in it, is not on its disk.

mod name;
pub mod take;

pub use name::{BadSnapshotName, NAME_MAX, SnapshotName, SnapshotRef};

use super::place::Place;
use crate::blocking::blocking;
use crate::disk::space::{self, Space};
use crate::error::{Error, ErrorKind, Result};
use crate::event_log::Happening;
use crate::store::lock::{Lock, Mode};
use crate::store::record::{self, RecordError};
use crate::store::{DISCARDED_PREFIX, discard_dir, staging, sync_dir};
use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The most of one workspace: who takes one after each step for ever is told so
/// before the disk is full.
pub const SNAPSHOTS_MAX: usize = 512;

const DIRECTORY: &str = "snapshots";
const MAKING: &str = ".making";
const RECORD: &str = "snapshot.json";
const DISK: &str = "disk.ext4";

/// Held by one who changes what a snapshot is called or known for.
const LOCK: &str = ".lock";

/// How long that may take: some renames.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);

/// What is written down of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// When it was taken.
    pub created_at: Timestamp,
    /// How long the guest stood still for it, in milliseconds.
    pub still_ms: u64,
    /// When a guest first answered calls on its disk.
    pub verified_at: Option<Timestamp>,
}

impl record::Record for SnapshotRecord {
    const VERSION: u32 = 1;
}

/// A snapshot as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What it is called.
    pub name: SnapshotName,
    /// What is written down of it; `None` when that is damaged.
    pub record: Option<SnapshotRecord>,
    /// What it takes on the host.
    pub space: Space,
}

impl Snapshot {
    fn of(place: &Place, name: SnapshotName) -> Result<Self> {
        let path = directory(place).join(name.as_str());
        let record = match record::read(&path.join(RECORD)) {
            Ok(record) => Some(record),
            Err(RecordError::Missing { .. }) if !path.exists() => return Err(absent(place, &name)),
            Err(
                RecordError::Missing { .. }
                | RecordError::Unreadable { .. }
                | RecordError::Damaged { .. }
                | RecordError::OtherVersion { .. },
            ) => None,
        };
        let space = space::of(&path.join(DISK)).unwrap_or_default();
        Ok(Self { name, record, space })
    }
}

/// All of a workspace, the newest first; those that are damaged last.
///
/// # Errors
/// When the host's system refuses to tell.
pub async fn list(place: &Place) -> Result<Vec<Snapshot>> {
    let place = place.clone();
    blocking(move || {
        let names = names(&place)?.into_iter();
        // What is removed meanwhile is not there.
        let mut all: Vec<_> = names.flat_map(|name| Snapshot::of(&place, name)).collect();
        let created = |snapshot: &Snapshot| snapshot.record.as_ref().map(|r| r.created_at);
        all.sort_by(|a, b| created(b).cmp(&created(a)).then_with(|| a.name.cmp(&b.name)));
        Ok(all)
    })
    .await
}

/// One of a workspace.
///
/// # Errors
/// `NotFound`.
pub async fn find(place: &Place, name: &SnapshotName) -> Result<Snapshot> {
    let (place, name) = (place.clone(), name.clone());
    blocking(move || Snapshot::of(&place, name)).await
}

/// The disk of a snapshot, to be copied.
///
/// # Errors
/// `NotFound`.
pub(super) fn disk(place: &Place, name: &SnapshotName) -> Result<PathBuf> {
    let path = directory(place).join(name.as_str());
    if !path.exists() {
        return Err(absent(place, name));
    }
    Ok(path.join(DISK))
}

/// Calls one otherwise.
///
/// # Errors
/// `NotFound`, and `Conflict` when there is one of that name.
pub async fn rename(place: &Place, name: &SnapshotName, to: &SnapshotName) -> Result<Snapshot> {
    let _lock = lock(place).await?;
    if !directory(place).join(name.as_str()).exists() {
        return Err(absent(place, name));
    }
    put(&directory(place).join(name.as_str()), place, to)?;
    let (snapshot, to) = (name.to_string(), to.clone());
    place.note(Happening::SnapshotRenamed { snapshot, to: to.to_string() }, false);
    find(place, &to).await
}

/// Removes one. Others that share blocks with it lose nothing.
///
/// # Errors
/// `NotFound`.
pub async fn delete(place: &Place, name: &SnapshotName) -> Result<()> {
    let _lock = lock(place).await?;
    let path = directory(place).join(name.as_str());
    if !path.exists() {
        return Err(absent(place, name));
    }
    blocking(move || discard_dir(&path)).await?;
    place.note(Happening::SnapshotDeleted { snapshot: name.to_string() }, false);
    Ok(())
}

/// Writes down that a guest answered calls on a snapshot's disk, if that was not
/// known.
pub(super) async fn note_verified(place: &Place, name: &SnapshotName) -> Result<()> {
    let _lock = lock(place).await?;
    let path = directory(place).join(name.as_str()).join(RECORD);
    let known: SnapshotRecord = record::read(&path)?;
    if known.verified_at.is_some() {
        return Ok(());
    }
    record::write(&path, &SnapshotRecord { verified_at: Some(Timestamp::now()), ..known })
}

fn directory(place: &Place) -> PathBuf {
    place.path().join(DIRECTORY)
}

async fn lock(place: &Place) -> Result<Lock> {
    let directory = directory(place);
    crate::store::subdirectory(&directory)
        .map_err(|error| if place.is_there() { error } else { place.gone() })?;
    Lock::take(&directory.join(LOCK), Mode::Exclusive, LOCK_DEADLINE).await
}

fn names(place: &Place) -> Result<Vec<SnapshotName>> {
    let directory = directory(place);
    let unreadable = |error| Error::io(format!("cannot read {}", directory.display()), error);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound && place.is_there() => {
            return Ok(Vec::new());
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(place.gone()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name();
        names.extend(name.to_str().and_then(|name| name.parse().ok()));
    }
    Ok(names)
}

/// Puts a directory where a snapshot of this name is to be, for good.
fn put(made: &Path, place: &Place, name: &SnapshotName) -> Result<()> {
    let within = directory(place);
    let settled = within.join(name.as_str());
    match renameat_with(CWD, made, CWD, &settled, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(Errno::EXIST | Errno::NOTEMPTY) => return Err(taken(place, name)),
        Err(errno) => {
            let message = format!("cannot make {}", settled.display());
            return Err(Error::io(message, errno.into()));
        }
    }
    sync_dir(&within).map_err(|error| Error::io("cannot write a snapshot", error))
}

/// Removes what those left who were killed.
fn sweep(place: &Place) {
    let directory = directory(place);
    for left in staging::abandoned(&directory.join(MAKING)) {
        // What cannot be removed now is there for the next.
        drop(left.remove());
    }
    for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(DISCARDED_PREFIX) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

fn absent(place: &Place, name: &SnapshotName) -> Error {
    let id = place.id();
    Error::new(ErrorKind::NotFound, format!("workspace {id} has no snapshot {name}"))
        .hint(format!("`pyro workspace snapshot list {id}` shows those it has"))
}

fn taken(place: &Place, name: &SnapshotName) -> Error {
    let id = place.id();
    Error::new(ErrorKind::Conflict, format!("workspace {id} has a snapshot {name} already")).hint(
        format!(
            "choose another name, or delete it first: `pyro workspace snapshot delete {id} {name}`"
        ),
    )
}
