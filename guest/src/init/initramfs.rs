//! A kernel that has its drivers as modules starts us from an initramfs: load
//! them, mount the base, and go on from there as if it had been the root.

use crate::device::await_node;
use crate::log;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount, mount_move};
use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The modules, named so that their order by name is the order to load them.
const MODULES: &str = "/modules";

/// The base.
const DEVICE: &str = "/dev/vda";

/// Modules probe in the background; a disk under emulation takes a moment.
const DEVICE_DEADLINE: Duration = Duration::from_secs(20);

const NEW_ROOT: &str = "/newroot";

/// Where the base has this same program.
const AGENT: &str = "/usr/lib/pyro/pyro-agent";

/// What must go along, for the kernel does not mount it again.
const KERNEL_TREES: [&str; 3] = ["proc", "sys", "dev"];

// <linux/magic.h>
const RAMFS_MAGIC: u64 = 0x8584_58f6;
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Whether the root is what the kernel unpacked.
pub(super) fn is_root() -> bool {
    let magic = rustix::fs::statfs("/").map(|stat| stat.f_type as u64);
    matches!(magic, Ok(RAMFS_MAGIC | TMPFS_MAGIC))
}

/// Becomes the base's init.
pub(super) fn switch() -> io::Result<Infallible> {
    for (kind, tree) in ["proc", "sysfs", "devtmpfs"].into_iter().zip(KERNEL_TREES) {
        let at = format!("/{tree}");
        fs::create_dir_all(&at)?;
        match mount(kind, &at, kind, MountFlags::NOSUID, None) {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => return Err(error.into()),
        }
    }
    log::to_kernel();
    load_modules()?;
    await_node(Path::new(DEVICE), DEVICE_DEADLINE)?;
    fs::create_dir_all(NEW_ROOT)?;
    mount(DEVICE, NEW_ROOT, "erofs", MountFlags::RDONLY, None)
        .map_err(|error| io::Error::other(format!("{DEVICE} as the base: {error}")))?;
    for tree in KERNEL_TREES {
        mount_move(format!("/{tree}"), format!("{NEW_ROOT}/{tree}"))?;
    }
    // The initramfs cannot be unmounted; empty it takes no memory.
    fs::remove_file("/init")?;
    rustix::process::chdir(NEW_ROOT)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Err(Command::new(AGENT).exec())
}

/// Loads each and frees its memory. One that does not load may not be needed:
/// what is will be missed soon enough.
fn load_modules() -> io::Result<()> {
    let mut paths = match fs::read_dir(MODULES) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    paths.sort();
    for path in paths {
        let module = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        if let Err(error) = rustix::system::finit_module(&module, c"", 0) {
            log::warn(format_args!("{}: {error}", path.display()));
        }
        fs::remove_file(&path)?;
    }
    Ok(())
}
