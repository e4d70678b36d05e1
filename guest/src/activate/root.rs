//! What a workspace sees: its root, an overlay of the read-only base and the
//! workspace's own disk; and `/workspace`, if it was seeded an overlay of the
//! read-only seed and the same disk.

use super::{Identity, aside, identity};
use crate::device::await_node;
use crate::log;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount as mount_fs, mount_bind, mount_change,
    mount_move, unmount,
};
use std::ffi::CStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

/// The workspace's own disk: one ext4, made by the host.
const DEVICE: &str = "/dev/vdb";

/// The environment's root image.
const BASE_DEVICE: &str = "/dev/vda";

/// The seed: one erofs, made by the host.
const SEED_DEVICE: &str = "/dev/vdc";

/// How long the device may take to appear after the call that needs it.
const DEVICE_DEADLINE: Duration = Duration::from_secs(10);

/// Where the disk is mounted while the root is put together. It lies in the
/// first phase's /run, which goes away with the old root: from the new one
/// the layers cannot be reached.
const DISK: &str = "/run/pyro/disk";

/// The agent's own directory on the disk.
const PRIVATE: &str = "private";

/// Where the seed is mounted meanwhile.
const SEED: &str = "/run/pyro/seed";

/// What of the seed the workspace sees.
const SEED_TREE: &str = "/run/pyro/seed/tree";

/// The workspace's upper layer.
const WORKSPACE_UPPER: &str = "/run/pyro/disk/workspace/upper";

/// Where the new root is put together, and where it stays in a guest that only
/// looks at it.
pub(crate) const ROOT: &str = "/run/pyro/root";

/// What becomes the new root's /run.
const RUN: &str = "/run/pyro/run";

/// What each layered tree keeps on the disk, in the order of making.
const LAYERS: [&str; 4] = ["workspace/upper", "workspace/work", "root/upper", "root/work"];

/// The root's upper layer, as the overlay's options name it.
const UPPER: &str = "/run/pyro/disk/root/upper";

/// Nothing in the background: filling 16 GiB's worth of inode tables and reading
/// all bitmaps would cost the guest's CPU and make the host's sparse file big.
/// And no map of the file system's own blocks, by which it would notice that
/// its metadata is damaged: the host has just made it.
const DISK_OPTIONS: &CStr =
    c"noinit_itable,no_prefetch_block_bitmaps,noblock_validity,errors=remount-ro";

/// Kernel defaults are off, and then renaming a directory of the base fails,
/// hard links break apart, and files without data confuse the diff.
const OVERLAY_OPTIONS: &CStr = c"lowerdir=/,upperdir=/run/pyro/disk/root/upper,\
workdir=/run/pyro/disk/root/work,redirect_dir=on,index=on,metacopy=off,xino=auto";

/// As [`OVERLAY_OPTIONS`].
const WORKSPACE_OPTIONS: &CStr = c"lowerdir=/run/pyro/seed/tree,\
upperdir=/run/pyro/disk/workspace/upper,workdir=/run/pyro/disk/workspace/work,\
redirect_dir=on,index=on,metacopy=off,xino=auto";

/// The kernel's own trees, which go along to the new root.
const KERNEL_TREES: [&str; 3] = ["proc", "sys", "dev"];

// <linux/magic.h>, <linux/fs.h>
const OVERLAYFS_MAGIC: u64 = 0x794c_7630;
const FIFREEZE: libc::Ioctl = 0xc004_5877u32 as libc::Ioctl;

/// The layers of the workspace's trees, which no path leads to any more.
#[derive(Debug)]
pub(crate) struct Disk {
    /// The top of the workspace's own file system.
    top: OwnedFd,
    /// The top of the environment's root image.
    base: OwnedFd,
    /// The top of the seed's image; without one `/workspace` is a directory of
    /// the root.
    seed: Option<OwnedFd>,
    /// Whether no guest had used it before.
    is_fresh: bool,
}

impl Disk {
    /// The layers of a root that an agent that died has mounted; `None` when
    /// the root is still the base.
    pub(crate) fn of_activated_root() -> Option<io::Result<Self>> {
        match is_overlay("/") {
            Ok(true) => Some(Self::reopen()),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Mounts the same file systems once more, for as long as it takes to get
    /// a descriptor of each.
    fn reopen() -> io::Result<Self> {
        let open_mounted = |device: &str, at: &str, kind: &str, flags, options| {
            make_directory(at)?;
            mount_fs(device, at, kind, flags, options)?;
            let top = open_directory(at);
            unmount(at, UnmountFlags::DETACH)?;
            top
        };
        let top = open_mounted(DEVICE, DISK, "ext4", MountFlags::NOATIME, Some(DISK_OPTIONS))?;
        let base = open_mounted(BASE_DEVICE, ROOT, "erofs", MountFlags::RDONLY, None)?;
        let workspace = crate::guest::WORKSPACE;
        let is_mount =
            || io::Result::Ok(fs::metadata(workspace)?.dev() != fs::metadata("/")?.dev());
        let seed = match is_overlay(workspace)? && is_mount()? {
            true => Some(open_mounted(SEED_DEVICE, SEED, "erofs", MountFlags::RDONLY, None)?),
            false => None,
        };
        Ok(Self { top, base, seed, is_fresh: false })
    }

    /// The top of the workspace's own file system.
    pub(crate) fn top(&self) -> &OwnedFd {
        &self.top
    }

    /// The top of the environment's root image.
    pub(crate) fn base(&self) -> &OwnedFd {
        &self.base
    }

    /// Whether no guest had used it before: there is nothing to complete.
    pub(crate) fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    /// The top of the seed's image.
    pub(crate) fn seed(&self) -> Option<&OwnedFd> {
        self.seed.as_ref()
    }

    /// Opens the agent's own directory on it, or makes it.
    pub(crate) fn private(&self) -> io::Result<OwnedFd> {
        match rustix::fs::mkdirat(&self.top, PRIVATE, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.top, PRIVATE, flags, Mode::empty())?)
    }

    /// Writes everything out.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.top)?)
    }

    /// Writes everything out and lets nobody write again: for the disk this is
    /// as good as unmounting, and it works while the root is in use.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        // SAFETY: FIFREEZE ignores its argument.
        match unsafe { libc::ioctl(self.top.as_raw_fd(), FIFREEZE, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn is_overlay(path: &str) -> io::Result<bool> {
    Ok(rustix::fs::statfs(path)?.f_type as u64 == OVERLAYFS_MAGIC)
}

fn open_directory(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Puts the whole tree together to be looked at, beside the agent's own root. As
/// the workspace's next start would find it: what that puts right is put right
/// here as well, in memory, for the disk may only be read.
pub(super) fn inspect(seeded: bool) -> io::Result<Disk> {
    await_node(Path::new(DEVICE), DEVICE_DEADLINE)?;
    let device = aside::writable(Path::new(DEVICE))?;
    await_node(Path::new(&device), DEVICE_DEADLINE)?;
    let (top, base, is_fresh) = mount_disk(&device)?;
    lay_root()?;
    let seed = match seeded {
        true => Some(mount_workspace(is_fresh)?),
        false => None,
    };
    Ok(Disk { top, base, seed, is_fresh })
}

/// Mounts the workspace's disk, and makes its root everybody's, PID 1's too.
pub(super) fn mount(who: &Identity) -> io::Result<Disk> {
    await_node(Path::new(DEVICE), DEVICE_DEADLINE)?;
    let (top, base, is_fresh) = mount_disk(DEVICE)?;
    if is_fresh {
        identity::write_beneath(Path::new("/"), Path::new(UPPER), who);
    }
    lay_root()?;
    let seed = match who.seeded {
        true => Some(mount_workspace(is_fresh)?),
        false => None,
    };
    for tree in KERNEL_TREES {
        mount_move(format!("/{tree}"), format!("{ROOT}/{tree}"))
            .map_err(|error| named(tree, error))?;
    }
    // An empty directory of the old one: nothing that lives there is needed in
    // the new, and another file system would cost its making, and the end of
    // the first.
    make_directory(RUN)?;
    mount_bind(RUN, format!("{ROOT}/run")).map_err(|error| named("run", error))?;
    switch()?;
    if !is_fresh {
        identity::write(Path::new("/"), who);
    }
    // A file in its place is the user's, and all else can be reached.
    make_directory(crate::guest::WORKSPACE)
        .unwrap_or_else(|error| log::warn(format_args!("{}: {error}", crate::guest::WORKSPACE)));
    Ok(Disk { top, base, seed, is_fresh })
}

/// Mounts the workspace's own file system; gives its top, that of the base, and
/// whether no guest has used it yet.
fn mount_disk(device: &str) -> io::Result<(OwnedFd, OwnedFd, bool)> {
    make_directory(DISK)?;
    make_directory(ROOT)?;
    mount_fs(device, DISK, "ext4", MountFlags::NOATIME, Some(DISK_OPTIONS))
        .map_err(|error| named(device, error))?;
    let (top, base) = (open_directory(DISK)?, open_directory("/")?);
    make_layers()?;
    // Whatever is there: a link that leads nowhere, or what hides the base's.
    let is_fresh = fs::symlink_metadata(Path::new(UPPER).join("etc")).is_err();
    Ok((top, base, is_fresh))
}

fn lay_root() -> io::Result<()> {
    mount_fs("overlay", ROOT, "overlay", MountFlags::NOATIME, Some(OVERLAY_OPTIONS))
        .map_err(|error| named("the root's overlay", error))
}

/// Lays the workspace's own layer over its seed; gives the top of the seed's
/// image.
fn mount_workspace(is_fresh: bool) -> io::Result<OwnedFd> {
    await_node(Path::new(SEED_DEVICE), DEVICE_DEADLINE)?;
    make_directory(SEED)?;
    mount_fs(SEED_DEVICE, SEED, "erofs", MountFlags::RDONLY | MountFlags::NOATIME, None)
        .map_err(|error| named(SEED_DEVICE, error))?;
    if is_fresh {
        // Of two directories laid over one another one sees the upper's mode.
        let top = fs::metadata(SEED_TREE)?;
        fs::set_permissions(WORKSPACE_UPPER, top.permissions())?;
        let times = fs::FileTimes::new().set_modified(top.modified()?);
        fs::File::open(WORKSPACE_UPPER)?.set_times(times)?;
    }
    let target = format!("{ROOT}{}", crate::guest::WORKSPACE);
    make_directory(&target)?;
    mount_fs("overlay", &target, "overlay", MountFlags::NOATIME, Some(WORKSPACE_OPTIONS))
        .map_err(|error| named("the workspace's overlay", error))?;
    open_directory(SEED)
}

/// Makes the layers' directories, unless the disk came with them: the last one
/// is there only if all are.
fn make_layers() -> io::Result<()> {
    let path = |directory: &str| format!("{DISK}/{directory}");
    if LAYERS.last().is_some_and(|last| is_directory(&path(last))) {
        return Ok(());
    }
    LAYERS.iter().try_for_each(|directory| make_directory(&path(directory)))
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
    if is_directory(path) {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn is_directory(path: &str) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

fn named(what: &str, error: rustix::io::Errno) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
