//! Firecracker's jailer, and where it can be used.

use super::owner::has_user_for_vmm;
use crate::error::{Error, ErrorKind, Result};
use crate::id::WorkspaceId;
use crate::store::subdirectory;
use rustix::thread::CapabilitySet;
use std::path::{Path, PathBuf};

/// What the jailer needs of root's power: to mount and change the root, make
/// devices and directories, give them away, and change the user. The VMM keeps
/// nothing of it; what bounds the jailer bounds the VMM too.
pub(super) const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::MKNOD);

/// What a jailed or jailable program is called by itself: the jailer insists on
/// `firecracker` in the name.
pub(super) const NAME: &str = "firecracker";

/// Devices that the jailer makes whether asked or not; what is shown besides
/// must not be in its way.
pub(super) const MAKES: [&str; 3] = ["/dev/kvm", "/dev/net/tun", "/dev/urandom"];

/// Room in the jail besides the program: for directories, mount points, and
/// what the jailer writes.
pub(super) const ROOM: u64 = 1024 * 1024;

/// Firecracker's jailer and where it may work.
#[derive(Debug, Clone)]
pub struct Jailer {
    /// The program.
    pub program: PathBuf,
    /// A directory for the jail, private and of no other use, made when it is
    /// not there. What the jail holds is in memory and seen by the jailed only;
    /// for all others the directory stays empty.
    pub directory: PathBuf,
    /// What Firecracker calls its machine.
    pub id: WorkspaceId,
}

impl Jailer {
    /// The jail's root, seen from where the jail is.
    pub(super) fn root(&self) -> PathBuf {
        Path::new("/").join(NAME).join(self.id.to_string()).join("root")
    }

    /// Where the program is before the jailer copies it.
    pub(super) fn executable() -> PathBuf {
        Path::new("/program").join(NAME)
    }

    /// Makes the directory, and gives it back with no link in it, as the jailer
    /// will have it.
    pub(super) fn prepare(&self) -> Result<PathBuf> {
        subdirectory(&self.directory)?;
        let failed =
            |error| Error::io(format!("cannot look at {}", self.directory.display()), error);
        let directory = self.directory.canonicalize().map_err(failed)?;
        if directory.to_str().is_none() {
            let message = format!("the jailer takes no path like {}", directory.display());
            return Err(Error::new(ErrorKind::HostRequirement, message)
                .hint("set PYRO_HOME to a directory whose name is UTF-8"));
        }
        Ok(directory)
    }
}

/// What the kernel calls the user namespace that is not within another.
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";

/// Whether the jailer works here: pyro is the host's own root, not that of a
/// user namespace, which may make no devices, and has not been robbed of the
/// power that takes.
#[must_use]
pub fn can_jail() -> bool {
    let initial = std::fs::read_link("/proc/self/ns/user")
        .is_ok_and(|namespace| namespace.as_os_str() == INITIAL_USER_NAMESPACE);
    let powerful =
        rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CAPABILITIES));
    initial && powerful && has_user_for_vmm()
}
