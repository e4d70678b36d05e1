//! In the emulated host: its first process, and the teller of stories.

pub mod teller;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_move, unmount};
use rustix::process::{WaitOptions, chdir, chroot, waitpid};
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, ExitCode};

/// The word that makes this program the teller.
pub const TELL: &str = "tell";

/// Where the disk with the stories and the programs is.
pub const KIT: &str = "/lab";

/// What is written stays on a disk of the host's, and goes with it.
pub const SCRATCH: &str = "/scratch";

/// Where the disk with the cache is, beneath what is written to it.
const CACHE: &str = "/lab-cache";

/// The user's home, whose cache the stories borrow.
pub const HOME: &str = "/root";

/// Makes the machine a host, has the stories told, and takes the place of the
/// parents that die. What it says is on the console.
pub fn be_init() -> ExitCode {
    if let Err(error) = become_a_host().and_then(|()| reap_until_told()) {
        println!("pyro-lab: the emulated host is of no use: {error}");
    }
    // With -no-reboot this ends QEMU.
    let error = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    println!("pyro-lab: cannot end the emulated host: {error:?}");
    ExitCode::FAILURE
}

fn become_a_host() -> io::Result<()> {
    for (kind, at) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        attach(kind, at, kind, "")?;
    }
    load_modules()?;
    // Debian as pyro's guests have it, with what is written elsewhere.
    let read_only = MountFlags::RDONLY;
    for directory in ["/lower", KIT, CACHE, SCRATCH] {
        fs::create_dir_all(directory)?;
    }
    mount("/dev/vda", "/lower", "erofs", read_only, None)?;
    mount("/dev/vdb", SCRATCH, "ext4", MountFlags::empty(), Some(c"discard"))?;
    mount("/dev/vdc", KIT, "erofs", read_only, None)?;
    mount("/dev/vdd", CACHE, "erofs", read_only, None)?;
    for layer in ["root", "root-work", "cache", "cache-work", "tmp"] {
        fs::create_dir(format!("{SCRATCH}/{layer}"))?;
    }
    overlay("/lower", "root", "/newroot")?;
    for tree in [KIT, CACHE, SCRATCH] {
        let to = format!("/newroot{tree}");
        fs::create_dir_all(&to)?;
        mount_move(tree, &to)?;
    }
    // The initramfs cannot be left but by moving over it: the jailer's
    // pivot_root would fail.
    for tree in ["/sys", "/proc"] {
        unmount(tree, UnmountFlags::empty())?;
    }
    mount_move("/dev", "/newroot/dev")?;
    chdir("/newroot")?;
    mount_move(".", "/")?;
    chroot(".")?;
    chdir("/")?;
    // As udev does on a Debian.
    rustix::fs::chmod("/dev/kvm", rustix::fs::Mode::from_raw_mode(0o666))?;
    attach("proc", "/proc", "proc", "")?;
    attach("sysfs", "/sys", "sysfs", "")?;
    attach("cgroup2", "/sys/fs/cgroup", "cgroup2", "")?;
    attach("devpts", "/dev/pts", "devpts", "ptmxmode=0666")?;
    attach("tmpfs", "/dev/shm", "tmpfs", "mode=1777")?;
    attach("tmpfs", "/run", "tmpfs", "mode=0755")?;
    mount_bind(format!("{SCRATCH}/tmp"), "/tmp")?;
    rustix::fs::chmod("/tmp", rustix::fs::Mode::from_raw_mode(0o1777))?;
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpu +memory +pids")?;
    let cache = format!("{HOME}/.cache/pyro");
    fs::create_dir_all(&cache)?;
    overlay(CACHE, "cache", &cache)?;
    raise_loopback()
}

fn attach(source: &str, at: &str, kind: &str, options: &str) -> io::Result<()> {
    fs::create_dir_all(at)?;
    let options = CString::new(options)?;
    match mount(source, at, kind, MountFlags::NOSUID, Some(options.as_c_str())) {
        // The kernel was first.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(errno) => Err(io::Error::other(format!("cannot mount {at}: {errno}"))),
    }
}

fn overlay(lower: &str, upper: &str, at: &str) -> io::Result<()> {
    fs::create_dir_all(at)?;
    let options = format!(
        "lowerdir={lower},upperdir=/{0}/{1},workdir=/{0}/{1}-work",
        SCRATCH.trim_start_matches('/'),
        upper
    );
    let options = CString::new(options)?;
    mount("overlay", at, "overlay", MountFlags::empty(), Some(options.as_c_str()))
        .map_err(|errno| io::Error::other(format!("cannot mount {at} over {lower}: {errno}")))
}

/// By their names' order. One that the processor has no use for may refuse.
fn load_modules() -> io::Result<()> {
    let mut modules =
        fs::read_dir("/modules")?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    modules.sort();
    for module in modules {
        if let Err(errno) = rustix::system::finit_module(&File::open(&module)?, c"", 0) {
            println!("pyro-lab: {}: {errno}", module.display());
        }
    }
    Ok(())
}

fn raise_loopback() -> io::Result<()> {
    let socket: OwnedFd = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
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

/// Children of the teller's children end up here.
fn reap_until_told() -> io::Result<()> {
    let teller = Command::new("/proc/self/exe").arg(TELL).spawn()?;
    loop {
        match waitpid(None, WaitOptions::empty()) {
            Ok(Some((pid, status)))
                if pid.as_raw_nonzero().get().cast_unsigned() == teller.id() =>
            {
                println!("pyro-lab: the teller has ended, {status:?}");
                return Ok(());
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
