//! A NIC, where the VMM gives the machine one: the host has the other end of its
//! cable, and the kernel moves the packets by itself.

use super::interface::{self, NAME, ioctl, named, request, socket};
use crate::log;
use crate::netlink::Events;
use pyro_protocol::egress::OpenGateway;
use rustix::net::AddressFamily;
use std::fmt::Write;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where the kernel lists interfaces.
const INTERFACES: &str = "/sys/class/net";

/// There is one NIC, and one network at a time.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// A NIC that is raised as long as this lives.
#[derive(Debug)]
pub(super) struct Nic(Taken);

/// That there is no other.
#[derive(Debug)]
struct Taken(());

impl Taken {
    fn take() -> io::Result<Self> {
        match TAKEN.swap(true, Ordering::AcqRel) {
            true => Err(io::Error::from_raw_os_error(libc::EBUSY)),
            false => Ok(Self(())),
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}

impl Nic {
    /// Raises the NIC that has this hardware address.
    pub(super) fn raise(address: [u8; 6], network: &OpenGateway) -> io::Result<Self> {
        let taken = Taken::take()?;
        let name = find(address)?;
        let socket = socket(AddressFamily::INET)?;
        // An agent that was killed has left it as it was.
        lower(&socket, &name).map_err(|error| named("lowering it", error))?;
        if name != NAME {
            rename(&socket, &name).map_err(|error| named("naming it", error))?;
        }
        let nic = Self(taken);
        interface::configure(network)?;
        Ok(nic)
    }

    /// Waits until somebody has lowered it, or called it something else.
    pub(super) async fn lowered(&self) -> io::Result<()> {
        let mut events = Events::of_links()?;
        let socket = socket(AddressFamily::INET)?;
        while is_up(&socket)? {
            events.next().await?;
        }
        Ok(())
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        let lowered = socket(AddressFamily::INET).and_then(|socket| lower(&socket, NAME));
        if let Err(error) = lowered {
            log::warn(format_args!("lowering the network's interface: {error}"));
        }
    }
}

/// The name of the interface with a hardware address.
fn find(address: [u8; 6]) -> io::Result<Vec<u8>> {
    let wanted = address.iter().fold(String::new(), |mut text, byte| {
        let colon = if text.is_empty() { "" } else { ":" };
        // Writing to a string does not fail.
        let _ = write!(text, "{colon}{byte:02x}");
        text
    });
    for interface in fs::read_dir(INTERFACES)? {
        let interface = interface?;
        let its = fs::read_to_string(interface.path().join("address")).unwrap_or_default();
        if its.trim_end() == wanted {
            return Ok(interface.file_name().into_vec());
        }
    }
    let text = format!("the kernel knows no NIC with the address {wanted}");
    Err(io::Error::new(io::ErrorKind::NotFound, text))
}

/// Its routes go with that.
fn lower(socket: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = 0;
    ioctl(socket, libc::SIOCSIFFLAGS as _, &raw mut request)
}

fn is_up(socket: &OwnedFd) -> io::Result<bool> {
    let mut request = request(NAME);
    match ioctl(socket, libc::SIOCGIFFLAGS as _, &raw mut request) {
        // SAFETY: the call has set it.
        Ok(()) => Ok(unsafe { request.ifr_ifru.ifru_flags } & libc::IFF_UP as libc::c_short != 0),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
        Err(error) => Err(error),
    }
}

fn rename(socket: &OwnedFd, from: &[u8]) -> io::Result<()> {
    let mut request = request(from);
    let mut name: [libc::c_char; libc::IFNAMSIZ] = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(NAME) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_newname = name;
    ioctl(socket, libc::SIOCSIFNAME as _, &raw mut request)
}
