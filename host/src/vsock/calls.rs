//! Whether anybody is calling a guest, told by a lock that every caller shares.
//!
//! Callers reach the guest without passing by its supervisor wherever the VMM
//! serves the endpoint, so there is nobody to count them; and a lock is given
//! back however a caller ends.

use crate::error::{Error, Result};
use futures::future::pending;
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// The lock's file name in a workspace's directory.
const NAME: &str = "calls.lock";

/// Room for a batch of the kernel's events; nothing of them is read.
const EVENTS_MAX: usize = 4096;

/// That a call is underway, for as long as it lives.
#[derive(Debug)]
pub struct Underway(
    /// Nobody who ends the guest is told of: a call that ends with its workspace
    /// needs no lock.
    #[expect(dead_code, reason = "it is held")]
    Option<File>,
);

impl Underway {
    /// Says that a call begins.
    ///
    /// # Errors
    /// `ResourceBusy` when the workspace's time is over.
    pub fn begin(directory: impl AsFd) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match openat(directory, NAME, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(Self(None)),
            Err(errno) => return Err(errno.into()),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Self(Some(file))),
            Err(Errno::WOULDBLOCK) => Err(io::ErrorKind::ResourceBusy.into()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The calls to one guest.
#[derive(Debug)]
pub struct Calls {
    lock: File,
    directory: OwnedFd,
}

/// That there are no calls, and will be none.
#[derive(Debug)]
pub struct Silence(File);

impl Drop for Silence {
    fn drop(&mut self) {
        // The file is shared with whoever watches; it unlocks with the last.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl Calls {
    /// Has calls tell of themselves from now on.
    pub fn watch(directory: impl AsFd) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opening = || -> io::Result<Self> {
            let directory = directory.as_fd().try_clone_to_owned()?;
            let lock = openat(&directory, NAME, flags, Mode::RUSR | Mode::WUSR)?;
            Ok(Self { lock: lock.into(), directory })
        };
        opening().map_err(|error| Error::io("cannot watch a workspace's calls", error))
    }

    /// Returns when none is underway and for a while none was: those that follow
    /// one another closely are one that lasts.
    pub async fn silence(&self, quiet: Duration) -> Result<Silence> {
        let events = self.events();
        loop {
            // Without events there is still the clock.
            let news = async {
                match &events {
                    Ok(events) => next(events).await,
                    Err(_) => pending().await,
                }
            };
            if timeout(quiet, news).await.is_ok() {
                continue;
            }
            if let Some(silence) = self.try_silence()? {
                return Ok(silence);
            }
            // The end of a call is an event, and then there is quiet or not.
            if let Ok(events) = &events {
                next(events).await;
            }
        }
    }

    fn try_silence(&self) -> Result<Option<Silence>> {
        let failed = |error| Error::io("cannot lock a workspace's calls", error);
        match flock(&self.lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => self.lock.try_clone().map(Silence).map(Some).map_err(failed),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// Beginnings and ends of calls from now on.
    fn events(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let events = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let path = super::short_path(self.directory.as_fd(), NAME);
        add_watch(&events, path, WatchFlags::OPEN | WatchFlags::CLOSE_WRITE)?;
        // SAFETY: the descriptor is owned and stays the same.
        unsafe { AsyncFd::register(events) }.map_err(io::Error::from)
    }
}

/// Waits for an event, and forgets all that have come.
async fn next(events: &AsyncFd<OwnedFd>) {
    // The runtime shuts down, or there was nothing after all.
    let Ok(mut ready) = events.readable().await else { return pending().await };
    let mut buffer = [0; EVENTS_MAX];
    while rustix::io::read(events.get_ref(), &mut buffer).is_ok_and(|count| count > 0) {}
    ready.clear_ready();
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(1);
    const LONG: Duration = Duration::from_secs(3600);

    fn place() -> (tempfile::TempDir, File) {
        let home = tempfile::tempdir().expect("a directory");
        let directory = File::open(home.path()).expect("there");
        (home, directory)
    }

    #[tokio::test(start_paused = true)]
    async fn r8_calls_defer_the_end_and_so_do_those_that_follow_closely() {
        let (_home, directory) = place();
        let calls = Calls::watch(&directory).expect("watched");
        let mut call = Underway::begin(&directory).expect("underway");
        let mut silence = std::pin::pin!(calls.silence(QUIET));
        assert!(timeout(LONG, &mut silence).await.is_err(), "a call is underway");
        for _ in 0..3 {
            drop(call);
            assert!(timeout(QUIET / 2, &mut silence).await.is_err(), "the next may follow");
            call = Underway::begin(&directory).expect("underway");
            assert!(timeout(LONG, &mut silence).await.is_err(), "it did");
        }
        // One that is over at once counts as well.
        drop(call);
        assert!(timeout(QUIET / 2, &mut silence).await.is_err(), "the next may follow");
        drop(Underway::begin(&directory).expect("underway"));
        assert!(timeout(QUIET * 3 / 4, &mut silence).await.is_err(), "it did");
        let held = timeout(QUIET * 2, &mut silence).await.expect("now").expect("locked");
        let late = Underway::begin(&directory).expect_err("its time is over");
        assert_eq!(late.kind(), io::ErrorKind::ResourceBusy);
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn r8_other_users_of_the_directory_do_not_matter() {
        let (home, directory) = place();
        assert!(Underway::begin(&directory).is_ok(), "nobody watches");
        let calls = Calls::watch(&directory).expect("watched");
        std::fs::write(home.path().join("other"), "").expect("written");
        timeout(QUIET * 2, calls.silence(QUIET)).await.expect("quiet").expect("locked");
    }
}
