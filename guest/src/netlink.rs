//! The kernel's announcements: that something has changed, not what; look again.

use crate::readiness::watch;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with,
};
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The kernel's own multicast group of device events; udev's is another.
const KERNEL_GROUP: u32 = 1;

/// `RTMGRP_LINK`.
const LINKS_GROUP: u32 = 1;

/// What the kernel says of one kind of thing.
#[derive(Debug)]
pub(crate) struct Events {
    socket: AsyncFd<OwnedFd>,
}

impl Events {
    /// Hears of all devices from here on.
    pub(crate) fn of_devices() -> io::Result<Self> {
        Self::listen(Some(KOBJECT_UEVENT), KERNEL_GROUP)
    }

    /// Hears of all network interfaces from here on.
    pub(crate) fn of_links() -> io::Result<Self> {
        // The first of all: `NETLINK_ROUTE`.
        Self::listen(None, LINKS_GROUP)
    }

    fn listen(of: Option<Protocol>, group: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, of)?;
        bind(&socket, &SocketAddrNetlink::new(0, group))?;
        Ok(Self { socket: watch(socket, Interest::READABLE)? })
    }

    /// Waits for at least one event and takes all there are.
    pub(crate) async fn next(&mut self) -> io::Result<()> {
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
