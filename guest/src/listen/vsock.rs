//! The host over AF_VSOCK.

use super::{Desk, Service, try_announce};
use crate::log;
use pyro_protocol::{ANNOUNCE_PORT, VsockPort};
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;
use tokio::time::sleep;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

// <linux/vm_sockets.h>
const GET_LOCAL_CID: libc::Ioctl = 0x7b9;

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
    let Ok(vsock) = File::open("/dev/vsock") else {
        return false;
    };
    let mut cid = VMADDR_CID_ANY;
    // SAFETY: the ioctl writes a u32, and `cid` is one.
    let asked = unsafe { libc::ioctl(vsock.as_raw_fd(), GET_LOCAL_CID, &raw mut cid) };
    asked == 0 && (GUEST_MIN..VMADDR_CID_ANY).contains(&cid)
}

/// Listens, announces, accepts for ever.
pub(super) async fn serve(desk: &Desk) -> io::Result<Infallible> {
    let open = |(port, service)| Ok::<_, io::Error>(accept(desk, listen(port)?, service));
    let [calls, echo, source, sink] = Service::ALL;
    let (calls, echo, source, sink) = (open(calls)?, open(echo)?, open(source)?, open(sink)?);
    let host = VsockAddr::new(VMADDR_CID_HOST, ANNOUNCE_PORT.0);
    let announcing = async {
        try_announce(VsockStream::connect(host)).await;
        Ok(())
    };
    // The first listener that fails ends all: the agent is started anew.
    let ((), never, ..) = tokio::try_join!(announcing, calls, echo, source, sink)?;
    match never {}
}

fn listen(port: VsockPort) -> io::Result<VsockListener> {
    VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port.0))
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
