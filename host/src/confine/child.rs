//! What happens between `clone` and `exec`, in the child.
//!
//! It allocates nothing and takes no lock, for another thread of the parent may
//! have held one: everything it needs was prepared in [`Plan`], and what libc
//! wraps for all threads at once it asks the kernel for.

use super::{Confinement, FIRST_PASSED, c_string, child_pid, has_user_for_vmm};
use crate::error::{Error, ErrorKind, Result};
use rustix::io::Errno;
use rustix::process::Pid;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulong};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr::{null, null_mut};

/// The VMM's user and group id as it sees them itself.
pub const INNER_ID: u32 = 1000;

/// Where the private root is put together. Any directory that every host has
/// and that nothing shown lies in; only the child sees what is mounted on it.
const STAGE: &str = "/proc";

/// Descriptors are moved up here before they get their final numbers.
const PARKED: RawFd = 200;

const NAMESPACES: c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Everything the child needs, as the system calls take it.
pub struct Plan {
    program: CString,
    /// What `argument_pointers` points into.
    _arguments: Vec<CString>,
    argument_pointers: Vec<*const c_char>,
    entries: Vec<Entry>,
    passed: Vec<RawFd>,
    stderr: Option<RawFd>,
    as_root: bool,
}

/// One thing in the private root.
struct Entry {
    /// Directories to make first, outermost first.
    parents: Vec<CString>,
    target: CString,
    what: What,
}

enum What {
    Directory { source: CString, attributes: u64 },
    File { source: CString, attributes: u64 },
    Link { points_to: CString },
}

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
const DEVICE: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;

impl Plan {
    pub fn new(confinement: &Confinement, arguments: &[String]) -> Result<Self> {
        let program = c_string(&confinement.program)?;
        let mut words = vec![program.clone()];
        for argument in arguments {
            words.push(c_string(Path::new(argument))?);
        }
        let mut entries = Vec::new();
        for (source, target) in &confinement.seen {
            entries.extend(Entry::new(source, target, READ_ONLY)?);
        }
        for (source, target) in &confinement.devices {
            entries.extend(Entry::new(source, target, DEVICE)?);
        }
        let argument_pointers = words.iter().map(|word| word.as_ptr()).chain([null()]).collect();
        Ok(Self {
            program,
            _arguments: words,
            argument_pointers,
            entries,
            passed: confinement.passed.iter().map(AsRawFd::as_raw_fd).collect(),
            stderr: confinement.stderr.as_ref().map(AsRawFd::as_raw_fd),
            as_root: has_user_for_vmm(),
        })
    }
}

impl Entry {
    /// `None` when the host does not have it.
    fn new(source: &Path, target: &Path, attributes: u64) -> Result<Option<Self>> {
        let Ok(meta) = source.symlink_metadata() else { return Ok(None) };
        let stage = Path::new(STAGE);
        let relative = target.strip_prefix("/").map_err(|_| {
            Error::new(
                ErrorKind::HostRequirement,
                format!("{} is not an absolute path", target.display()),
            )
        })?;
        let mut parents = relative
            .ancestors()
            .skip(1)
            .filter(|parent| !parent.as_os_str().is_empty())
            .map(|parent| c_string(&stage.join(parent)))
            .collect::<Result<Vec<_>>>()?;
        parents.reverse();
        // /lib and the like are links on most hosts; a link to where the
        // program lies is followed, for a root that is as small as it can be.
        let what = if meta.is_symlink() && source == target && !source.is_file() {
            let points_to = source
                .read_link()
                .map_err(|error| Error::io(format!("cannot read {}", source.display()), error))?;
            What::Link { points_to: c_string(&points_to)? }
        } else if source.is_dir() {
            What::Directory { source: c_string(source)?, attributes }
        } else {
            What::File { source: c_string(source)?, attributes }
        };
        Ok(Some(Self { parents, target: c_string(&stage.join(relative))?, what }))
    }
}

/// A step of the child that failed, as it comes through the pipe: the step's
/// index and the error number.
pub struct Failure {
    pub step: &'static str,
    pub errno: Errno,
}

const STEPS: &[&str] = &[
    "waiting for the supervisor",
    "making a session",
    "mounting",
    "making the private root",
    "showing a file",
    "pivot_root",
    "dropping capabilities",
    "changing the user",
    "setting limits",
    "passing descriptors",
    "exec",
];

impl Failure {
    /// Empty means that the program executes.
    pub fn parse(report: &[u8]) -> Option<Self> {
        let (&step, errno) = report.split_first()?;
        let errno = errno.try_into().map_or(libc::EIO, i32::from_ne_bytes);
        Some(Self {
            step: STEPS.get(usize::from(step)).copied().unwrap_or("starting it"),
            errno: Errno::from_raw_os_error(errno),
        })
    }
}

/// Forks into new namespaces. The child waits for a byte from `go`, and tells
/// through `failing` what went wrong; `exec` closes it. The other ends of these
/// pipes are `ours`: the child must not hold them, or it would not notice that
/// the supervisor is gone.
pub fn clone(plan: &Plan, go: &OwnedFd, failing: &OwnedFd, ours: [RawFd; 2]) -> Result<Pid, Errno> {
    let flags = (NAMESPACES | libc::SIGCHLD) as c_ulong;
    // SAFETY: without CLONE_VM this is a fork; the child runs on a copy of the
    // stack and never returns from `run`.
    let raw = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if raw == 0 {
        // SAFETY: a copy out of the way of the numbers that `pass` hands out;
        // then five bytes that are there, and the process ends without running
        // anything of the supervisor's.
        unsafe {
            for end in ours {
                libc::close(end);
            }
            let away = libc::fcntl(failing.as_raw_fd(), libc::F_DUPFD_CLOEXEC, PARKED + 50);
            // Too few descriptors are allowed: `pass` will fail and say so.
            let failing = if away < 0 { failing.as_raw_fd() } else { away };
            let Err((step, errno)) = run(plan, go.as_raw_fd(), failing);
            let mut report = [step; 5];
            report[1..].copy_from_slice(&errno.to_ne_bytes());
            libc::write(failing, report.as_ptr().cast(), report.len());
            libc::_exit(125);
        }
    }
    child_pid(raw).ok_or_else(last_errno)
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

enum Never {}

fn run(plan: &Plan, go: RawFd, failing: RawFd) -> Result<Never, (u8, c_int)> {
    let mut byte = 0_u8;
    // SAFETY: every call below passes pointers into `plan` or to locals, all
    // NUL-terminated and alive until exec.
    unsafe {
        // Again at the end: changing the user clears it.
        step(0, libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0))?;
        step(0, libc::read(go, (&raw mut byte).cast(), 1) as i64)?;
        if byte != 1 {
            return Err((0, libc::ECANCELED));
        }
        step(1, libc::setsid())?;
        build_root(plan)?;
        drop_privileges(plan)?;
        limit()?;
        pass(plan, failing)?;
        libc::execve(plan.program.as_ptr(), plan.argument_pointers.as_ptr(), [null()].as_ptr());
    }
    Err((10, errno()))
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn step(number: u8, returned: impl Into<i64>) -> Result<(), (u8, c_int)> {
    if returned.into() < 0 { Err((number, errno())) } else { Ok(()) }
}

fn existing(number: u8, returned: c_int) -> Result<(), (u8, c_int)> {
    if returned < 0 && errno() != libc::EEXIST { Err((number, errno())) } else { Ok(()) }
}

unsafe fn build_root(plan: &Plan) -> Result<(), (u8, c_int)> {
    // SAFETY: as in `run`.
    unsafe {
        let stage = c"/proc".as_ptr();
        debug_assert_eq!(STAGE, "/proc");
        step(
            2,
            libc::mount(null(), c"/".as_ptr(), null(), libc::MS_REC | libc::MS_PRIVATE, null()),
        )?;
        let options = c"mode=0755,size=64k".as_ptr();
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        step(2, libc::mount(c"none".as_ptr(), stage, c"tmpfs".as_ptr(), flags, options.cast()))?;
        for entry in &plan.entries {
            show(entry)?;
        }
        step(5, libc::chdir(stage))?;
        step(5, libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        step(5, libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
        step(5, libc::chdir(c"/".as_ptr()))?;
        set_attributes(3, c"/", READ_ONLY, 0)
    }
}

unsafe fn show(entry: &Entry) -> Result<(), (u8, c_int)> {
    let target = entry.target.as_ptr();
    // SAFETY: as in `run`.
    unsafe {
        for parent in &entry.parents {
            existing(3, libc::mkdir(parent.as_ptr(), 0o755))?;
        }
        let (source, attributes) = match &entry.what {
            What::Link { points_to } => {
                return existing(3, libc::symlink(points_to.as_ptr(), target));
            }
            What::Directory { source, attributes } => {
                existing(3, libc::mkdir(target, 0o755))?;
                (source, *attributes)
            }
            What::File { source, attributes } => {
                existing(3, libc::mknod(target, libc::S_IFREG | 0o644, 0))?;
                (source, *attributes)
            }
        };
        let flags = libc::MS_BIND | libc::MS_REC;
        step(4, libc::mount(source.as_ptr(), target, null(), flags, null()))?;
        set_attributes(4, &entry.target, attributes, libc::AT_RECURSIVE as c_uint)
    }
}

unsafe fn set_attributes(
    number: u8,
    path: &CStr,
    set: u64,
    flags: c_uint,
) -> Result<(), (u8, c_int)> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: as in `run`.
    unsafe {
        let size = size_of_val(&attributes);
        step(
            number,
            libc::syscall(
                libc::SYS_mount_setattr,
                libc::AT_FDCWD,
                path.as_ptr(),
                flags,
                &raw const attributes,
                size,
            ),
        )
    }
}

unsafe fn drop_privileges(plan: &Plan) -> Result<(), (u8, c_int)> {
    // SAFETY: as in `run`.
    unsafe {
        for capability in 0..64 {
            // EINVAL: the kernel has no such capability.
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) < 0
                && errno() != libc::EINVAL
            {
                return Err((6, errno()));
            }
        }
        if plan.as_root {
            step(7, libc::syscall(libc::SYS_setgroups, 0, null::<libc::gid_t>()))?;
        }
        step(7, libc::syscall(libc::SYS_setresgid, INNER_ID, INNER_ID, INNER_ID))?;
        step(7, libc::syscall(libc::SYS_setresuid, INNER_ID, INNER_ID, INNER_ID))?;
        step(6, libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    }
}

unsafe fn limit() -> Result<(), (u8, c_int)> {
    // SAFETY: as in `run`.
    unsafe {
        // A core dump would put the guest's memory on the host's disk.
        for (resource, value) in [(libc::RLIMIT_CORE, 0), (libc::RLIMIT_NOFILE, 1024)] {
            let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
            step(8, libc::setrlimit(resource, &raw const limit))?;
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        step(8, libc::sigprocmask(libc::SIG_SETMASK, &raw const none, null_mut()))?;
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        Ok(())
    }
}

unsafe fn pass(plan: &Plan, failing: RawFd) -> Result<(), (u8, c_int)> {
    // SAFETY: as in `run`.
    unsafe {
        let null_device = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        step(9, null_device)?;
        let standard = [null_device, null_device, plan.stderr.unwrap_or(null_device)];
        let wanted = || standard.iter().chain(&plan.passed);
        // Parked first, or one's final number could be another's present one.
        for (descriptor, parked) in wanted().zip(PARKED..) {
            step(9, libc::dup3(*descriptor, parked, libc::O_CLOEXEC))?;
        }
        for (parked, number) in (PARKED..).zip(0..).take(wanted().count()) {
            step(9, libc::dup2(parked, number))?;
        }
        let rest = FIRST_PASSED as c_uint + plan.passed.len() as c_uint;
        step(
            9,
            libc::syscall(libc::SYS_close_range, rest, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC),
        )?;
        // Fires when the supervisor dies, and is cleared by changes of user,
        // so it comes last. If the supervisor is gone already, the pipe has no
        // reader any more.
        step(9, libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0))?;
        let mut orphaned = libc::pollfd { fd: failing, events: 0, revents: 0 };
        step(9, libc::poll(&raw mut orphaned, 1, 0))?;
        if orphaned.revents & libc::POLLERR != 0 {
            return Err((9, libc::ESRCH));
        }
        Ok(())
    }
}
