//! Machines that are saved, and restored.
//!
//! ```text
//! saving      PATCH /vm, PUT /snapshot/create     vmm/state, vmm/memory: the VMM's
//!             copied without zeros, read-only     Saved::state, Saved::memory: ours
//! restoring   shown as /state and /memory         read, and mapped privately
//!             PUT /metrics, PUT /snapshot/load
//! ```

use super::super::{Beginning, Machine, Saved};
use super::api::{ANSWER_DEADLINE, Api};
use super::machine::{DiskLimit, MetricsSink, VmState};
use super::seen;
use crate::blocking::blocking;
use crate::disk::copy;
use crate::disk::room::{Room, Taker};
use crate::error::{Error, ErrorKind, Result};
use crate::vsock::DIRECTORY;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, unlinkat};
use serde::Serialize;
use std::fs::{self, File};
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What Firecracker calls them in its own directory.
const STATE_NAME: &str = "state";
const MEMORY_NAME: &str = "memory";

/// The longest state: Firecracker's have some ten KiB, and a few for each virtual
/// processor.
const STATE_MAX: u64 = 4 << 20;

/// How fast all of a guest's memory is written at the least, in MiB in a second.
const WRITING_MIN: u32 = 16;

/// All read it, whoever they run as; nobody writes it.
const MODE: u32 = 0o444;

/// `PUT /snapshot/create`.
#[derive(Debug, Serialize)]
struct Create {
    snapshot_type: &'static str,
    snapshot_path: &'static str,
    mem_file_path: &'static str,
}

impl Create {
    const OURS: Self = Self {
        snapshot_type: "Full",
        snapshot_path: seen::SAVED_STATE,
        mem_file_path: seen::SAVED_MEMORY,
    };
}

/// `PUT /snapshot/load`.
#[derive(Debug, Serialize)]
struct Load {
    snapshot_path: &'static str,
    mem_backend: MemoryBackend,
    enable_diff_snapshots: bool,
    resume_vm: bool,
}

#[derive(Debug, Serialize)]
struct MemoryBackend {
    backend_type: &'static str,
    backend_path: &'static str,
}

impl Load {
    const fn ours(resume_vm: bool) -> Self {
        let mem_backend = MemoryBackend { backend_type: "File", backend_path: seen::MEMORY };
        let enable_diff_snapshots = false;
        Self { snapshot_path: seen::STATE, mem_backend, enable_diff_snapshots, resume_vm }
    }
}

/// Restores a machine in a Firecracker that has none yet. It goes on by itself.
///
/// # Errors
/// What Firecracker says against it, which ends then.
pub(super) async fn restore(mut api: Api, machine: &Machine) -> Result<()> {
    api.put("/metrics", &MetricsSink::OURS).await?;
    let Some(limit) = DiskLimit::of(machine) else {
        return api.put("/snapshot/load", &Load::ours(true)).await;
    };
    api.put("/snapshot/load", &Load::ours(false)).await?;
    // What is saved has none. It is there before the guest goes on.
    api.patch(DiskLimit::PATH, &limit).await?;
    api.patch("/vm", &VmState::Resumed).await
}

/// Where a machine is to be saved.
#[derive(Debug)]
pub(super) struct Saving {
    to: Saved,
    mem_mib: u32,
}

impl Saving {
    /// If it is to be.
    pub(super) fn of(machine: &Machine) -> Option<Self> {
        match &machine.beginning {
            Beginning::BootToSave(to) => Some(Self { to: to.clone(), mem_mib: machine.mem_mib }),
            Beginning::Boot | Beginning::Restore(_) => None,
        }
    }

    /// Saves the machine behind an API, whose VMM has its place in a workspace's
    /// directory. When the future is dropped midway, the files are not made.
    ///
    /// # Errors
    /// What Firecracker says against it; and when what it makes is not what it
    /// should be, for it may be the guest's by now.
    pub(super) async fn save(&self, mut api: Api, directory: &File) -> Result<()> {
        let place = place(directory)?;
        let memory = u64::from(self.mem_mib) << 20;
        // Firecracker writes zeros too. They are there until they are copied.
        Room::for_bytes(place.as_fd(), Taker::Template, memory)?;
        api.patch("/vm", &VmState::Paused).await?;
        let deadline = ANSWER_DEADLINE + Duration::from_secs((self.mem_mib / WRITING_MIN).into());
        api.put_within(deadline, "/snapshot/create", &Create::OURS).await?;
        let (to, given_up) = (self.to.clone(), CancellationToken::new());
        let _giving_up = given_up.clone().drop_guard();
        let take = move || {
            let go_on = || !given_up.is_cancelled();
            let state = take(&place, STATE_NAME, 1..=STATE_MAX, &to.state, &go_on)?;
            take(&place, MEMORY_NAME, memory..=memory, &to.memory, &go_on)?.keep();
            state.keep();
            Ok(())
        };
        blocking(take).await
    }
}

/// The VMM's place, which it cannot move.
fn place(directory: &File) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, DIRECTORY, flags, Mode::empty())
        .map_err(|errno| Error::io("cannot open the VMM's directory", errno.into()))
}

/// A file that is removed unless it is kept.
#[must_use]
struct Made<'a>(Option<&'a Path>);

impl Made<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        // One that stays is in the way of nobody but who tries again.
        drop(self.0.map(fs::remove_file));
    }
}

/// Copies what the VMM has made under a name, to a file of ours: the VMM may have
/// its own open for as long as it lives. No link is followed.
fn take<'a>(
    place: &OwnedFd,
    name: &str,
    lengths: RangeInclusive<u64>,
    to: &'a Path,
    go_on: &dyn Fn() -> bool,
) -> Result<Made<'a>> {
    let (from, length) = open(place, name, lengths)?;
    let failed = |error| Error::io(format!("cannot make {}", to.display()), error);
    let file = File::options().write(true).create_new(true).mode(MODE).open(to).map_err(failed)?;
    let made = Made(Some(to));
    file.set_permissions(fs::Permissions::from_mode(MODE)).map_err(failed)?;
    let mut room = Room::of(file.as_fd(), Taker::Template)?;
    copy::dug(&from, &file, length, |bytes| match go_on() {
        true => room.wrote(bytes),
        false => Err(Error::new(ErrorKind::Cancelled, "saving a guest was given up")),
    })?;
    drop(room);
    // What is found after a crash of the host is whole.
    file.sync_all().map_err(failed)?;
    // The zeros go now; whatever is in their place goes with the directory.
    let _ = unlinkat(place, name, AtFlags::empty());
    Ok(made)
}

/// Opens what should be an ordinary file of a length, and waits for nobody.
fn open(place: &OwnedFd, name: &str, lengths: RangeInclusive<u64>) -> Result<(File, u64)> {
    let failed = |error| Error::io(format!("cannot read the VMM's {name}"), error);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = openat(place, name, flags | OFlags::CLOEXEC, Mode::empty());
    let file = file.map_err(|errno| failed(errno.into()))?;
    let stat = fstat(&file).map_err(|errno| failed(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(failed(io::Error::other("it is no ordinary file")));
    }
    match u64::try_from(stat.st_size) {
        Ok(length) if lengths.contains(&length) => Ok((file.into(), length)),
        _ => Err(failed(io::Error::other(format!("it has {} bytes", stat.st_size)))),
    }
}

#[cfg(test)]
mod tests;
