//! The TUN device: what the guest's kernel takes for its network.

use super::interface::{self, NAME, ioctl, named, request};
use pyro_protocol::egress::OpenGateway;
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The end of an interface that somebody removes is an error, and nothing to read.
const INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);

const DEVICE: &str = "/dev/net/tun";

/// An interface that goes away when this does.
#[derive(Debug)]
pub(super) struct Tun(AsyncFd<OwnedFd>);

impl Tun {
    /// Makes the interface, with its addresses and routes.
    pub(super) fn open(network: &OpenGateway) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device = rustix::fs::open(DEVICE, flags, Mode::empty())
            .map_err(|errno| named(DEVICE, errno.into()))?;
        let mut request = request(NAME);
        let wanted = libc::IFF_TUN | libc::IFF_NO_PI;
        request.ifr_ifru.ifru_flags = wanted as libc::c_short;
        ioctl(&device, libc::TUNSETIFF as _, &raw mut request)
            .map_err(|error| named("making it", error))?;
        interface::configure(network)?;
        Self::over(device)
    }

    /// What moves packets through a descriptor that keeps them apart.
    pub(super) fn over(device: OwnedFd) -> io::Result<Self> {
        // SAFETY: an OwnedFd names the same open descriptor for as long as it lives.
        Ok(Self(unsafe { AsyncFd::register_with_interest(device, INTEREST) }?))
    }

    /// Hands the kernel a packet that has come.
    pub(super) fn send(&self, packet: &[u8]) -> io::Result<()> {
        rustix::io::write(self.0.get_ref(), packet)?;
        Ok(())
    }

    /// The next packet that is to go; waits for it.
    pub(super) async fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.ready(INTEREST).await?;
            let read = ready.try_io(|device| Ok(rustix::io::read(device.get_ref(), &mut *into)?));
            if let Ok(read) = read {
                return read.and_then(whole);
            }
        }
    }

    /// The next packet, if there is one.
    pub(super) fn pending(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::read(self.0.get_ref(), into) {
            Ok(length) => whole(length).map(Some),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A packet's length: none is empty, so that is the end.
fn whole(length: usize) -> io::Result<usize> {
    match length {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => Ok(length),
    }
}
