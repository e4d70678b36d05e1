//! The workspace's root: an overlay of the read-only base and the workspace's
//! own disk.

use super::{Identity, identity};
use crate::device::await_node;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount as mount_fs, mount_change, mount_move,
    unmount,
};
use std::ffi::CStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

/// The workspace's own disk: one ext4, made by the host.
const DEVICE: &str = "/dev/vdb";

/// How long the device may take to appear after the call that needs it.
const DEVICE_DEADLINE: Duration = Duration::from_secs(10);

/// Where the disk is mounted while the root is put together. It lies in the
/// first phase's /run, which goes away with the old root: from the new one
/// the layers cannot be reached.
const DISK: &str = "/run/pyro/disk";

/// Where the new root is put together.
const ROOT: &str = "/run/pyro/root";

/// What each layered tree keeps on the disk.
const LAYERS: [&str; 4] = ["root/upper", "root/work", "workspace/upper", "workspace/work"];

/// What the agent keeps there for itself.
const PRIVATE: &str = "commits";

/// The root's upper layer, as the overlay's options name it.
const UPPER: &str = "/run/pyro/disk/root/upper";

/// Nothing in the background: filling 16 GiB's worth of inode tables and reading
/// all bitmaps would cost the guest's CPU and make the host's sparse file big.
const DISK_OPTIONS: &CStr = c"noinit_itable,no_prefetch_block_bitmaps,errors=remount-ro";

/// Kernel defaults are off, and then renaming a directory of the base fails,
/// hard links break apart, and files without data confuse the diff.
const OVERLAY_OPTIONS: &CStr = c"lowerdir=/,upperdir=/run/pyro/disk/root/upper,\
workdir=/run/pyro/disk/root/work,redirect_dir=on,index=on,metacopy=off,xino=auto";

/// The kernel's own trees, which go along to the new root.
const KERNEL_TREES: [&str; 3] = ["proc", "sys", "dev"];

// <linux/magic.h>, <linux/fs.h>
const OVERLAYFS_MAGIC: u64 = 0x794c_7630;
const FIFREEZE: libc::Ioctl = 0xc004_5877u32 as libc::Ioctl;

/// The workspace's disk, which no path leads to any more.
#[derive(Debug)]
pub(crate) struct Disk {
    root: OwnedFd,
}

impl Disk {
    /// The disk of a root that an agent that died has mounted; `None` when the
    /// root is still the base.
    pub(crate) fn of_activated_root() -> Option<io::Result<Self>> {
        match rustix::fs::statfs("/") {
            Ok(stat) if stat.f_type as u64 == OVERLAYFS_MAGIC => Some(Self::reopen()),
            Ok(_) => None,
            Err(error) => Some(Err(error.into())),
        }
    }

    /// Mounts the same file system once more, for as long as it takes to get a
    /// descriptor of it.
    fn reopen() -> io::Result<Self> {
        make_directory(DISK)?;
        mount_fs(DEVICE, DISK, "ext4", MountFlags::NOATIME, Some(DISK_OPTIONS))?;
        let disk = Self::open();
        unmount(DISK, UnmountFlags::DETACH)?;
        disk
    }

    fn open() -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::open(DISK, flags, Mode::empty())? })
    }

    /// A directory that no path of the guest leads to, for journals.
    pub(crate) fn private(&self) -> io::Result<OwnedFd> {
        match rustix::fs::mkdirat(&self.root, PRIVATE, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(crate::beneath::directory(&self.root, PRIVATE.as_bytes())?)
    }

    /// Writes everything out.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.root)?)
    }

    /// Writes everything out and lets nobody write again: for the disk this is
    /// as good as unmounting, and it works while the root is in use.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        // SAFETY: FIFREEZE ignores its argument.
        match unsafe { libc::ioctl(self.root.as_raw_fd(), FIFREEZE, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Mounts the workspace's disk, and makes its root everybody's, PID 1's too.
pub(super) fn mount(who: &Identity) -> io::Result<Disk> {
    await_node(Path::new(DEVICE), DEVICE_DEADLINE)?;
    make_directory(DISK)?;
    make_directory(ROOT)?;
    mount_fs(DEVICE, DISK, "ext4", MountFlags::NOATIME, Some(DISK_OPTIONS))
        .map_err(|error| named(DEVICE, error))?;
    let disk = Disk::open()?;
    for directory in LAYERS {
        make_directory(&format!("{DISK}/{directory}"))?;
    }
    let upper = Path::new(UPPER);
    let is_fresh = !upper.join("etc").exists();
    if is_fresh {
        identity::write_beneath(Path::new("/"), upper, who)?;
    }
    mount_fs("overlay", ROOT, "overlay", MountFlags::NOATIME, Some(OVERLAY_OPTIONS))
        .map_err(|error| named("the root's overlay", error))?;
    for tree in KERNEL_TREES {
        mount_move(format!("/{tree}"), format!("{ROOT}/{tree}"))
            .map_err(|error| named(tree, error))?;
    }
    // Nothing that lives in the old one is needed in the new.
    mount_fs("tmpfs", format!("{ROOT}/run"), "tmpfs", run_flags(), Some(RUN_OPTIONS))?;
    switch()?;
    if !is_fresh {
        identity::write(Path::new("/"), who)?;
    }
    make_directory(crate::guest::WORKSPACE)?;
    Ok(disk)
}

/// /run, in both phases.
pub(crate) const RUN_OPTIONS: &CStr = c"mode=755,size=10%";

/// /run, in both phases.
pub(crate) const fn run_flags() -> MountFlags {
    MountFlags::NOSUID.union(MountFlags::NODEV)
}

/// Puts the new root over the old one and lets the old one go, with all that
/// is mounted in it. The kernel takes every process along.
fn switch() -> io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    rustix::process::chdir(ROOT)?;
    rustix::process::pivot_root(".", ".").map_err(|error| named("pivot_root", error))?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

fn make_directory(path: &str) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn named(what: &str, error: rustix::io::Errno) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
