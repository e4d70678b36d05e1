//! The host over AF_VSOCK.

use super::{Desk, Service, try_announce};
use crate::log;
use futures::future::try_join_all;
use pyro_protocol::{ANNOUNCE_PORT, VsockPort};
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use tokio::time::sleep;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

// <linux/vm_sockets.h>
const GET_LOCAL_CID: libc::Ioctl = 0x7b9;

/// There as soon as the kernel has its code for vsock.
const DEVICE: &str = "/dev/vsock";

/// The smallest id of a guest; below are the hypervisor, loopback, the host.
const GUEST_MIN: u32 = 3;

/// Connections that fail one after the other before the listener counts as
/// broken. One alone may have been taken back, or there was no memory for it.
const FAILURES_MAX: u32 = 10;

/// How long the machine has to find memory or a descriptor for the next one:
/// there is no event that would tell.
const RESPITE: Duration = Duration::from_millis(100);

/// Whether there is a device, not only the kernel's code for one.
pub(super) fn has_device() -> bool {
    let Ok(vsock) = File::open(DEVICE) else {
        return false;
    };
    let mut cid = VMADDR_CID_ANY;
    // SAFETY: the ioctl writes a u32, and `cid` is one.
    let asked = unsafe { libc::ioctl(vsock.as_raw_fd(), GET_LOCAL_CID, &raw mut cid) };
    asked == 0 && (GUEST_MIN..VMADDR_CID_ANY).contains(&cid)
}

/// Where the host's connections arrive, opened by the init and kept for all its
/// agents: what comes while one is dead waits for the next.
#[derive(Debug)]
pub struct Doors(Vec<(Service, vsock::VsockListener)>);

impl Doors {
    /// Listens, if the kernel knows vsock; whether there is a device shows later.
    ///
    /// # Errors
    /// Whatever the kernel gives.
    pub fn open() -> io::Result<Self> {
        if !Path::new(DEVICE).exists() {
            return Ok(Self(Vec::new()));
        }
        let listen = |(port, service): (VsockPort, _)| {
            let listener = vsock::VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port.0)?;
            Ok((service, listener))
        };
        Service::ALL.into_iter().map(listen).collect::<io::Result<_>>().map(Self)
    }
}

/// Announces, accepts for ever.
pub(super) async fn serve(desk: &Desk, doors: &Doors) -> io::Result<Infallible> {
    let accepting = doors.0.iter().map(|(service, listener)| async {
        let listener = VsockListener::from(OwnedFd::from(listener.try_clone()?));
        accept(desk, listener, *service).await
    });
    let host = VsockAddr::new(VMADDR_CID_HOST, ANNOUNCE_PORT.0);
    let announcing = async {
        try_announce(VsockStream::connect(host)).await;
        Ok(())
    };
    // The first listener that fails ends all: the agent is started anew.
    let ((), never) = tokio::try_join!(announcing, try_join_all(accepting))?;
    match never.into_iter().next() {
        Some(never) => match never {},
        None => Err(io::Error::other("there is a vsock device, and nobody listens")),
    }
}

async fn accept(desk: &Desk, listener: VsockListener, service: Service) -> io::Result<Infallible> {
    let mut failures = 0;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if failures < FAILURES_MAX => {
                log::warn(format_args!("a connection was not to be had: {error}"));
                failures += 1;
                sleep(RESPITE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        failures = 0;
        let from_host = peer.cid() == VMADDR_CID_HOST;
        if let Some(place) = desk.place().filter(|_| from_host) {
            let desk = desk.clone();
            tokio::spawn(async move {
                let (reader, writer) = tokio::io::split(stream);
                desk.serve(service, reader, writer).await;
                drop(place);
            });
        }
    }
}
