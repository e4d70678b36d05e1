//! The kernel's announcements about devices.

use crate::readiness::watch;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The kernel's own multicast group; udev's is another.
const KERNEL_GROUP: u32 = 1;

/// Says that some device has changed, not which: look again.
pub(super) struct Events {
    socket: AsyncFd<OwnedFd>,
}

impl Events {
    /// Hears everything from here on.
    pub(super) fn listen() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Self { socket: watch(socket, Interest::READABLE)? })
    }

    /// Waits for at least one event and takes all there are.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        let mut guard = self.socket.readable().await?;
        let mut event = [0; 4096];
        loop {
            match recv(guard.get_inner(), &mut event, RecvFlags::DONTWAIT) {
                // Having missed some is an event too.
                Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        guard.clear_ready();
        Ok(())
    }
}
