//! The first phase of the boot: what any Linux program expects of its system,
//! and nothing of any workspace.

use crate::cgroup;
use crate::log;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::ffi::CStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, symlink};

/// Descriptors that a program may have open, and may allow itself: the lower
/// bound is small because some programs close every possible one at start.
const NOFILE: Rlimit = Rlimit { current: Some(8 * 1024), maximum: Some(512 * 1024) };

/// Of no use on a disposable machine.
const CORE: Rlimit = Rlimit { current: Some(0), maximum: None };

/// What the cgroups of processes may be limited in.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "io"];

struct FileSystem {
    kind: &'static str,
    at: &'static str,
    flags: MountFlags,
    options: Option<&'static CStr>,
    need: Need,
}

/// What a machine without it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Unusable,
    Poorer,
}

const fn quiet() -> MountFlags {
    MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC)
}

/// In the order of mounting. /dev and what precedes it may already be there.
const FILE_SYSTEMS: &[FileSystem] = &[
    FileSystem { kind: "proc", at: "/proc", flags: quiet(), options: None, need: Need::Unusable },
    FileSystem { kind: "sysfs", at: "/sys", flags: quiet(), options: None, need: Need::Unusable },
    FileSystem {
        kind: "devtmpfs",
        at: "/dev",
        flags: MountFlags::NOSUID,
        options: Some(c"mode=755"),
        need: Need::Unusable,
    },
    FileSystem {
        kind: "tmpfs",
        at: "/run",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        options: Some(c"mode=755,size=10%"),
        need: Need::Unusable,
    },
    FileSystem {
        kind: "devpts",
        at: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        options: Some(c"gid=5,mode=620,ptmxmode=666"),
        need: Need::Unusable,
    },
    FileSystem {
        kind: "tmpfs",
        at: "/dev/shm",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        options: Some(c"mode=1777"),
        need: Need::Poorer,
    },
    FileSystem {
        kind: "mqueue",
        at: "/dev/mqueue",
        flags: quiet(),
        options: None,
        need: Need::Poorer,
    },
    FileSystem {
        kind: "cgroup2",
        at: "/sys/fs/cgroup",
        flags: quiet(),
        options: None,
        need: Need::Unusable,
    },
];

/// What udev would link. Absolute targets: they are the same in every root.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// Makes the system ready for the agent. What a machine can do without is only
/// said when it fails.
pub(crate) fn prepare() -> io::Result<()> {
    for file_system in FILE_SYSTEMS {
        let FileSystem { kind, at, need, .. } = file_system;
        match (mount_one(file_system), need) {
            (Ok(()), _) => {}
            (Err(error), Need::Unusable) => {
                return Err(io::Error::new(error.kind(), format!("{kind} on {at}: {error}")));
            }
            (Err(error), Need::Poorer) => log::warn(format_args!("{kind} on {at}: {error}")),
        }
        if *at == "/dev" {
            log::to_kernel();
        }
    }
    type Task = fn() -> io::Result<()>;
    let tasks: [(&str, Task); 4] = [
        ("links in /dev", link_devices),
        ("cgroups", divide_cgroups),
        ("the loopback interface", raise_loopback),
        ("limits", limit),
    ];
    for (what, task) in tasks {
        task().unwrap_or_else(|error| log::warn(format_args!("{what}: {error}")));
    }
    Ok(())
}

/// Mounts it unless the kernel, or a run before ours, has.
fn mount_one(file_system: &FileSystem) -> io::Result<()> {
    let FileSystem { kind, at, flags, options, need: _ } = *file_system;
    match DirBuilder::new().mode(0o755).create(at) {
        // On the read-only base it exists, or the mount will say what is wrong.
        Ok(()) | Err(_) => {}
    }
    match mount(kind, at, kind, flags, options) {
        Ok(()) | Err(rustix::io::Errno::BUSY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn link_devices() -> io::Result<()> {
    for (target, link) in LINKS {
        if fs::symlink_metadata(link).is_ok_and(|meta| !meta.is_dir()) {
            fs::remove_file(link)?;
        }
        symlink(target, link)?;
    }
    Ok(())
}

/// Makes the parent of all processes' cgroups, with every controller that the
/// kernel has of those wanted.
fn divide_cgroups() -> io::Result<()> {
    match fs::create_dir(cgroup::PROCESSES) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let present = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")?;
    let wanted = CONTROLLERS.iter().filter(|name| present.split_whitespace().any(|p| p == **name));
    // One by one: the kernel takes all of them or none.
    for name in wanted {
        fs::write("/sys/fs/cgroup/cgroup.subtree_control", format!("+{name}"))
            .unwrap_or_else(|error| log::warn(format_args!("the {name} controller: {error}")));
    }
    Ok(())
}

fn raise_loopback() -> io::Result<()> {
    let socket: OwnedFd = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain old data; zero is a valid value of each field.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the ioctl reads an ifreq, and `request` is one.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn limit() -> io::Result<()> {
    setrlimit(Resource::Nofile, NOFILE)?;
    Ok(setrlimit(Resource::Core, CORE)?)
}
