//! Waiting for descriptors that the runtime has no type of its own for.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime watch a descriptor.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, always names the same descriptor, and is
    // given out by AsyncFd only by shared reference here.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}
