//! What comes through a program's pipe, kept while it runs and to its last byte.

use super::output::DRAIN_GRACE;
use crate::readiness::watch;
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::watch as watching;
use tokio::time::sleep;

/// What is read from a pipe at once.
const GULP: usize = 64 * 1024;

/// What one [`drain`] takes at most: as much as a pipe holds. A program that
/// writes without end does not keep a thread for ever.
const DRAIN_MAX: u64 = 1024 * 1024;

/// Where draining a pipe stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// There is nothing in it now.
    Empty,
    /// There may be.
    Enough,
    /// Nobody will write to it any more.
    Ended,
}

/// Takes what is in a pipe that does not block, up to `most` bytes.
pub(crate) fn drain(pipe: &OwnedFd, most: u64, mut keep: impl FnMut(&[u8])) -> Drained {
    let mut buffer = vec![0; GULP];
    let mut left = most.min(DRAIN_MAX);
    loop {
        let wanted = usize::try_from(left).unwrap_or(GULP).min(GULP);
        if wanted == 0 {
            return Drained::Enough;
        }
        match rustix::io::read(pipe, buffer.get_mut(..wanted).unwrap_or_default()) {
            Ok(0) => return Drained::Ended,
            Ok(length) => {
                left = left.saturating_sub(length as u64);
                keep(buffer.get(..length).unwrap_or_default());
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Drained::Empty,
            // A pipe does not fail otherwise.
            Err(_) => return Drained::Ended,
        }
    }
}

/// Has what comes through a pipe drained whenever there is some, until its end,
/// or until a moment after the program's: descendants may hold it open for ever.
pub(crate) async fn collect<D: Future<Output = io::Result<Drained>>>(
    pipe: pipe::Receiver,
    mut over: watching::Receiver<bool>,
    mut drain: impl FnMut(Arc<AsyncFd<OwnedFd>>, u64) -> D,
) -> io::Result<()> {
    let pipe = Arc::new(watch(pipe.into_nonblocking_fd()?, Interest::READABLE)?);
    let mut late = pin!(async {
        // The sender lives as long as this.
        drop(over.wait_for(|over| *over).await);
        sleep(DRAIN_GRACE).await;
    });
    loop {
        let mut ready = tokio::select! {
            ready = pipe.readable() => ready?,
            () = &mut late => break,
        };
        match drain(pipe.clone(), u64::MAX).await? {
            Drained::Empty => ready.clear_ready(),
            Drained::Enough => {}
            Drained::Ended => return Ok(()),
        }
    }
    // What lies in it now is the last of it.
    let present = rustix::io::ioctl_fionread(pipe.get_ref())?;
    drain(pipe, present).await.map(drop)
}
