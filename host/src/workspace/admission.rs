//! Whether the host can bear one more guest.
//!
//! A guest begins small and may grow to all that it was promised, so what is
//! free at the moment is not to be given away twice: what running guests were
//! promised and have not taken yet counts as taken. Promises are files beside
//! the locks of those they were made to, and void when the lock is free; they
//! are made one at a time, so that of two who come together only one gets what
//! is left.

use super::directory::{self, LOCK_NAME};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::facts;
use crate::store::lock::{Lock, Mode};
use crate::store::{private_dir, record};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What must stay free on the host beside guests' memory, in MiB: the VMM's own
/// needs, and some air.
const RESERVE_MIB: u64 = 128;

/// Held while a promise is made.
const ADMISSION_LOCK: &str = "admission.lock";

/// How long others may take to make theirs: each looks at some small files.
const ADMISSION_DEADLINE: Duration = Duration::from_secs(10);

/// The promise's file name in the directory of a workspace or run.
const PROMISE: &str = "memory.json";

/// Memory that a guest may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Promise {
    /// All of it, in MiB.
    mem_mib: u32,
    /// Whose resident memory says how much is taken; none while it boots.
    vmm_pid: Option<u32>,
}

impl record::Record for Promise {
    const VERSION: u32 = 1;
}

/// What running guests may still take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Outstanding {
    guests: usize,
    mem_mib: u64,
}

/// Refuses what cannot be given now, without giving it.
pub(super) fn look(config: &Config, mem_mib: u32) -> Result<()> {
    judge(mem_mib, facts::available_mem_mib()?, outstanding(config, None))
}

/// Promises memory to the guest of this directory, whose lock is held.
pub(super) async fn admit(config: &Config, directory: &Path, mem_mib: u32) -> Result<()> {
    private_dir(&config.state_dir)?;
    let lock = config.state_dir.join(ADMISSION_LOCK);
    let _one_at_a_time = Lock::take(&lock, Mode::Exclusive, ADMISSION_DEADLINE).await?;
    let others = outstanding(config, Some(directory));
    judge(mem_mib, facts::available_mem_mib()?, others)?;
    promise(directory, Promise { mem_mib, vmm_pid: None })
}

/// Notes which process takes what was promised.
pub(super) fn taken_by(directory: &Path, mem_mib: u32, vmm_pid: Option<u32>) -> Result<()> {
    promise(directory, Promise { mem_mib, vmm_pid })
}

fn promise(directory: &Path, promise: Promise) -> Result<()> {
    record::write_without_sync(&directory.join(PROMISE), &promise)
}

fn judge(wanted: u32, available: u64, others: Outstanding) -> Result<()> {
    let room = available.saturating_sub(others.mem_mib).saturating_sub(RESERVE_MIB);
    if u64::from(wanted) <= room {
        return Ok(());
    }
    let Outstanding { guests, mem_mib } = others;
    let promised = match guests {
        0 => String::new(),
        _ => format!(", of which {guests} running machines may still take {mem_mib} MiB"),
    };
    let message = format!(
        "the guest wants {wanted} MiB of memory and can have {room} MiB: \
         the host has {available} MiB free{promised}, and {RESERVE_MIB} MiB are left to it"
    );
    let stop = "stop a machine that `pyro workspace list` shows";
    Err(Error::new(ErrorKind::OutOfMemory, message)
        .hint(format!("choose a smaller `--mem-mib`, or {stop}, or end something else")))
}

/// What was promised to others and is not resident yet.
fn outstanding(config: &Config, own: Option<&Path>) -> Outstanding {
    let Ok(entries) = fs::read_dir(directory::parent(config)) else {
        return Outstanding::default();
    };
    let others = entries.flatten().map(|entry| entry.path()).filter(|path| Some(&**path) != own);
    let promises = others.filter_map(|path| {
        let promise: Promise = record::read(&path.join(PROMISE)).ok()?;
        // Shared: whoever else looks is not taken for a guest.
        let held = Lock::try_take(&path.join(LOCK_NAME), Mode::Shared).is_ok_and(|l| l.is_none());
        held.then_some(promise)
    });
    promises.fold(Outstanding::default(), |sum, promise| {
        let resident = promise.vmm_pid.and_then(facts::resident_mib).unwrap_or_default();
        Outstanding {
            guests: sum.guests + 1,
            mem_mib: sum.mem_mib + u64::from(promise.mem_mib).saturating_sub(resident),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::directory::Directory;

    fn guests(guests: usize, mem_mib: u64) -> Outstanding {
        Outstanding { guests, mem_mib }
    }

    #[test]
    fn what_is_promised_is_not_free() {
        assert!(judge(1024, 1024 + RESERVE_MIB, guests(0, 0)).is_ok());
        assert!(judge(1025, 1024 + RESERVE_MIB, guests(0, 0)).is_err());
        assert!(judge(1024, 4096, guests(3, 4096 - 1024 - RESERVE_MIB)).is_ok());
        let error = judge(2048, 4096, guests(3, 3000)).expect_err("too much");
        assert_eq!(error.kind(), ErrorKind::OutOfMemory);
        for figure in ["2048", "968", "4096", "3000", "3 running", "128"] {
            assert!(error.message().contains(figure), "{figure}: {error}");
        }
        assert!(judge(u32::MAX, u64::MAX, guests(1, u64::MAX)).is_err());
    }

    #[tokio::test]
    async fn r24_a_promise_lasts_as_long_as_its_lock() {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::within(home.path());
        let directory = Directory::create(&config).expect("made");
        admit(&config, directory.path(), 128).await.expect("there is room");
        assert_eq!(outstanding(&config, None), guests(1, 128));
        assert_eq!(outstanding(&config, Some(directory.path())), guests(0, 0));
        // What is resident is not free any more, and need not be counted again.
        let this = std::process::id();
        let resident = facts::resident_mib(this).expect("it is here");
        taken_by(directory.path(), 1 << 20, Some(this)).expect("noted");
        let left = outstanding(&config, None).mem_mib;
        assert!(left < 1 << 20 && left.abs_diff((1 << 20) - resident) < 512, "{left} {resident}");
        taken_by(directory.path(), 0, Some(this)).expect("noted");
        assert_eq!(outstanding(&config, None), guests(1, 0), "not less than nothing");
        let path = directory.path().to_owned();
        directory.hand_over();
        assert!(path.join(PROMISE).exists());
        assert_eq!(outstanding(&config, None), guests(0, 0), "nobody has its lock");
    }
}
