//! The files of kept processes: for each its record and both its streams, all
//! in one directory that nothing in the guest's tree leads to.

use super::spool::Spool;
use pyro_protocol::codec;
use pyro_protocol::kept::{ENDED_MAX, KeptProcess, ProcessId, ProcessState, RUNNING_MAX};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// The directory's name.
pub(super) const DIRECTORY: &str = "process";

/// The longest record: a list's entry.
const RECORD_MAX: u64 = 16 * 1024;

/// The most files that are looked at: three for each process that can be kept,
/// and what a crash may have left.
const FILES_MAX: usize = 4 * (RUNNING_MAX + ENDED_MAX);

const RECORD: &str = "record";
const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";
/// A record that is not complete.
const NEW: &str = "new";

/// The directory. Its methods block.
#[derive(Debug)]
pub(crate) struct Shelf {
    directory: OwnedFd,
}

impl Shelf {
    /// Opens it below the agent's private directory, or makes it.
    pub(crate) fn within(private: &OwnedFd, directory: &str) -> io::Result<Self> {
        match mkdirat(private, directory, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self { directory: openat(private, directory, flags, Mode::empty())? })
    }

    /// Opens a file in it.
    pub(crate) fn open(&self, name: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(openat(&self.directory, name, flags, mode)?)
    }

    /// Removes a file from it.
    pub(crate) fn remove_file(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    /// Removes all files from it.
    pub(crate) fn clear(&self) -> io::Result<()> {
        for entry in rustix::fs::Dir::read_from(self.directory.as_fd())?.take(FILES_MAX) {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                unlinkat(&self.directory, entry.file_name(), AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Makes the files of a process that is about to start; an id that is taken
    /// is an error.
    pub(super) fn create(&self, process: &KeptProcess) -> io::Result<()> {
        let id = process.id;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        let made = [STDOUT, STDERR].into_iter().try_for_each(|what| {
            self.open(&name(id, what), flags, Mode::from_raw_mode(0o600)).map(drop)
        });
        made.and_then(|()| self.record(process))
    }

    /// Writes a process's record: the old one or the new one is there, whole.
    pub(super) fn record(&self, process: &KeptProcess) -> io::Result<()> {
        let bytes = codec::encode(process).map_err(io::Error::other)?;
        let (new, record) = (name(process.id, NEW), name(process.id, RECORD));
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY;
        let file = self.open(&new, flags, Mode::from_raw_mode(0o600))?;
        File::from(file).write_all(&bytes)?;
        Ok(renameat(&self.directory, &*new, &self.directory, &*record)?)
    }

    /// Removes a process's files, its record first: streams without a record
    /// are swept.
    pub(super) fn remove(&self, id: ProcessId) {
        for what in [RECORD, STDOUT, STDERR, NEW] {
            // Each may be missing.
            let _ = self.remove_file(&name(id, what));
        }
    }

    /// Both streams of a process that is about to start.
    pub(super) fn streams(self: &Arc<Self>, id: ProcessId, retained: u64) -> (Spool, Spool) {
        let spool = |what| Spool::new(self.clone(), name(id, what), retained);
        (spool(STDOUT), spool(STDERR))
    }

    /// Both streams of a process that an agent before this one has kept.
    pub(super) fn old_streams(
        self: &Arc<Self>,
        id: ProcessId,
        retained: u64,
    ) -> io::Result<(Spool, Spool)> {
        let spool = |what| Spool::reopen(self.clone(), name(id, what), retained);
        Ok((spool(STDOUT)?, spool(STDERR)?))
    }

    /// The processes that an agent before this one has kept, in the order of
    /// their ends. What is damaged is removed, alone.
    pub(super) fn load(&self) -> io::Result<Vec<KeptProcess>> {
        let mut ids = Vec::new();
        let listing = rustix::fs::Dir::read_from(self.directory.as_fd())?;
        for entry in listing.take(FILES_MAX) {
            let entry = entry?;
            let id = entry.file_name().to_str().ok().and_then(|name| name.split_once('.'));
            ids.extend(id.and_then(|(id, _)| id.parse::<ProcessId>().ok()));
        }
        ids.sort_unstable();
        ids.dedup();
        let mut processes = Vec::new();
        for id in ids {
            match self.read(id) {
                Some(process) => processes.push(process),
                None => self.remove(id),
            }
        }
        processes.sort_by_key(ended_at_ns);
        Ok(processes)
    }

    fn read(&self, id: ProcessId) -> Option<KeptProcess> {
        let file = self.open(&name(id, RECORD), OFlags::RDONLY, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        File::from(file).take(RECORD_MAX).read_to_end(&mut bytes).ok()?;
        let mut process: KeptProcess =
            codec::decode(&bytes).ok().filter(|p: &KeptProcess| p.id == id)?;
        process.state = match process.state {
            // Nobody was there to see its end.
            ProcessState::Running { .. } => ProcessState::Lost,
            ended @ (ProcessState::Ended { .. } | ProcessState::Lost) => ended,
        };
        Some(process)
    }
}

fn name(id: ProcessId, what: &str) -> String {
    format!("{id}.{what}")
}

/// When it ended, as far as is known.
fn ended_at_ns(process: &KeptProcess) -> i64 {
    let took_us = match process.state {
        ProcessState::Ended { exit } => exit.took_us,
        ProcessState::Running { .. } | ProcessState::Lost => 0,
    };
    let took_ns = i64::try_from(took_us.saturating_mul(1000)).unwrap_or(i64::MAX);
    process.started_at_ns.saturating_add(took_ns)
}
