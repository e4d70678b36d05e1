//! Waiting for the API's socket: Firecracker makes it some time after it was
//! started, and says nothing.

use super::Api;
use crate::error::{Error, ErrorKind, Result};
use crate::vsock::{DIRECTORY, Socket};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

/// How long Firecracker may take to have its API: it is loaded, and jailed, and
/// does nothing else before.
const DEADLINE: Duration = Duration::from_secs(20);

/// Between a socket's having a name and its being listened on there are two system
/// calls of Firecracker's. Nobody tells of the second.
const NAMED: Duration = Duration::from_millis(1);

/// Room for a batch of the kernel's events; nothing of them is read.
const EVENTS_MAX: usize = 4096;

/// An eye on the VMM's directory.
#[derive(Debug)]
pub(in super::super) struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// Watches the place in a workspace's directory where the VMM is to make its
    /// socket. Before the VMM is started, so that nothing is missed.
    pub(in super::super) fn of(directory: &Path) -> Result<Self> {
        let watch = || -> io::Result<Self> {
            let watch = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let what = WatchFlags::CREATE | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
            add_watch(&watch, directory.join(DIRECTORY), what)?;
            // SAFETY: the descriptor is owned and stays the same.
            Ok(Self(unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE) }?))
        };
        watch().map_err(|error| Error::io("cannot watch the VMM's directory", error))
    }

    /// Connects to the API as soon as it is there.
    ///
    /// # Errors
    /// Whatever the socket gives; `TimedOut` when there is none.
    pub(in super::super) async fn api(&self, directory: &File, name: &str) -> Result<Api> {
        let lost = |error| Error::io("cannot reach Firecracker's API", error);
        let arrived = async {
            loop {
                let connected = match Socket::open(directory, name) {
                    Ok(socket) => Api::connect(&socket).await,
                    Err(error) => Err(error),
                };
                match connected {
                    Ok(api) => return Ok(api),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        self.next().await.map_err(lost)?;
                    }
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        sleep(NAMED).await;
                    }
                    Err(error) => return Err(lost(error)),
                }
            }
        };
        timeout(DEADLINE, arrived).await.unwrap_or_else(|_| {
            let message = format!("Firecracker had no API within {} s", DEADLINE.as_secs());
            Err(Error::new(ErrorKind::TimedOut, message))
        })
    }

    /// Returns when something has been made there.
    async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut batch = [0; EVENTS_MAX];
            match rustix::io::read(self.0.get_ref(), &mut batch) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
