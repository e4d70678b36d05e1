//! Waiting for a device node by event, with a deadline.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Returns once the node is there. Blocks the thread: at boot, and while a
/// workspace is mounted, there is nothing else to do.
pub(crate) fn await_node(path: &Path, deadline: Duration) -> io::Result<()> {
    let until = Instant::now() + deadline;
    if path.exists() {
        return Ok(());
    }
    let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&events, "/dev", inotify::WatchFlags::CREATE)?;
    // Looked at again after each event, so one before the watch is not missed.
    while !path.exists() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let message = format!("{} did not appear", path.display());
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&events, PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => drain(&events)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn drain(events: &OwnedFd) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match rustix::io::read(events, &mut buffer) {
            Ok(0) | Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
