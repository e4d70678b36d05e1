//! What happens between `clone` and `exec`, in the child.
//!
//! It allocates nothing and takes no lock, for another thread of the parent may
//! have held one: everything it needs was prepared in [`Plan`], and what libc
//! wraps for all threads at once it asks the kernel for.

mod command;
mod lend;
mod root;
mod step;
mod watcher;

pub use step::{Failure, Told};

use super::owner::{has_user_for_vmm, readable_by_vmm};
use super::{Access, Confinement, FIRST_PASSED, c_string, jail};
use crate::error::Result;
use command::Command;
use root::{DEVICE, Entry, READ_ONLY, mount_stage, set_attributes};
use rustix::io::Errno;
use rustix::process::Pid;
use std::ffi::{CString, OsStr, c_int, c_uint, c_ulong};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr::{null, null_mut};
use step::{Outcome, Step, Stumble, errno, step};
use watcher::Jail;

/// The VMM's user and group id as it sees them itself, in a user namespace of
/// its own.
pub const INNER_ID: u32 = 1000;

/// Where the private root is put together. Any directory that every host has
/// and that nothing shown lies in; only the child sees what is mounted on it.
const STAGE: &str = "/proc";

/// Descriptors are moved up here before they get their final numbers.
const PARKED: RawFd = 200;

const NAMESPACES: c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Everything the child needs, as the system calls take it.
pub struct Plan {
    command: Command,
    entries: Vec<Entry>,
    passed: Vec<RawFd>,
    stdout: Option<RawFd>,
    stderr: Option<RawFd>,
    way: Way,
}

enum Way {
    /// In a user namespace, with a root made here.
    Namespaces {
        /// Whether groups can be given up.
        as_root: bool,
        /// Where the program sees what it is lent.
        lent: Option<CString>,
    },
    /// Below a watcher, with a root that the jailer completes.
    Jail(Jail),
}

/// The child's ends of what connects it with its supervisor.
pub struct Ends<'a> {
    /// A byte from it says that it may go on.
    pub go: &'a OwnedFd,
    /// What it is told. `exec` closes it.
    pub telling: &'a OwnedFd,
    /// The supervisor's ends. The child must not hold them, or it would not
    /// notice that the supervisor is gone.
    pub others: [RawFd; 2],
}

impl Plan {
    /// A plan for namespaces of its own.
    pub fn for_namespaces(confinement: &Confinement, arguments: &[String]) -> Result<Self> {
        let stage = Path::new(STAGE);
        let program = &confinement.program;
        readable_by_vmm(program, true)?;
        // As the jailer has it.
        let jailed_name = Path::new("/").join(jail::NAME);
        let id = confinement.jailer.as_ref().map(|jailer| ["--id".into(), jailer.id.to_string()]);
        let seen_as = if id.is_some() { &jailed_name } else { program };
        let mut entries = Vec::new();
        entries.extend(Entry::new(stage, program, seen_as, Access::Execute.attributes())?);
        for seen in &confinement.seen {
            entries.extend(Entry::seen(stage, &seen.source, &seen.target, seen.access)?);
        }
        for device in &confinement.devices {
            entries.extend(Entry::new(stage, &device.source()?, &device.path, DEVICE)?);
        }
        let words = id.iter().flatten().chain(arguments).map(OsStr::new);
        let command = Command::new(seen_as, words)?;
        let lent = confinement.lent.as_ref().map(c_string).transpose()?;
        let way = Way::Namespaces { as_root: has_user_for_vmm(), lent };
        Ok(Self::new(confinement, command, entries, way))
    }

    /// A plan for the jailer, whose watcher tells the VMM's end to `ending`.
    pub fn for_jailer(
        confinement: &Confinement,
        jailer: &super::Jailer,
        arguments: &[String],
        ending: &OwnedFd,
    ) -> Result<Self> {
        let (jail, entries, command) = Jail::plan(confinement, jailer, arguments)?;
        let mut plan = Self::new(confinement, command, entries, Way::Jail(jail));
        plan.passed.push(ending.as_raw_fd());
        Ok(plan)
    }

    fn new(confinement: &Confinement, command: Command, entries: Vec<Entry>, way: Way) -> Self {
        Self {
            command,
            entries,
            passed: confinement.passed.iter().map(AsRawFd::as_raw_fd).collect(),
            stdout: confinement.stdout.as_ref().map(AsRawFd::as_raw_fd),
            stderr: confinement.stderr.as_ref().map(AsRawFd::as_raw_fd),
            way,
        }
    }

    /// Whether the child gets a user namespace, which needs ids.
    pub fn has_user_namespace(&self) -> bool {
        match self.way {
            Way::Namespaces { .. } => true,
            Way::Jail(_) => false,
        }
    }
}

/// Forks into new namespaces.
pub fn clone(plan: &Plan, ends: &Ends) -> Result<Pid, Errno> {
    let user = if plan.has_user_namespace() { libc::CLONE_NEWUSER } else { 0 };
    let (go, telling) = (ends.go.as_raw_fd(), ends.telling.as_raw_fd());
    let child = || {
        // SAFETY: in the child: what is closed is the parent's, and the copy
        // is out of the way of the numbers that `pass` hands out; then five
        // bytes that are there.
        unsafe {
            for end in ends.others {
                libc::close(end);
            }
            let away = libc::fcntl(telling, libc::F_DUPFD_CLOEXEC, PARKED + 50);
            // Too few descriptors are allowed: `pass` will fail and say so.
            let telling = if away < 0 {
                telling
            } else {
                libc::close(telling);
                away
            };
            let stumble = match run(plan, go, telling) {
                Ok(never) => match never {},
                Err(stumble) => stumble,
            };
            tell(telling, &stumble.report());
        }
    };
    // SAFETY: `child` is what may run in one.
    unsafe { fork(NAMESPACES | user, child) }
}

/// Has a child run something, and end.
///
/// # Safety
/// `child` must neither allocate nor take locks nor unwind.
unsafe fn fork(flags: c_int, child: impl FnOnce()) -> Result<Pid, Errno> {
    let flags = (flags | libc::SIGCHLD) as c_ulong;
    // SAFETY: without CLONE_VM this is a fork; the child runs on a copy of the
    // stack and ends here, without running anything of the supervisor's.
    let raw = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if raw == 0 {
        child();
        // SAFETY: ends the process.
        unsafe { libc::_exit(125) }
    }
    i32::try_from(raw).ok().and_then(Pid::from_raw).ok_or_else(|| Errno::from_raw_os_error(errno()))
}

/// Who does not listen any more will not be missed.
unsafe fn tell(telling: RawFd, what: &[u8]) {
    // SAFETY: as many bytes as there are.
    unsafe { libc::write(telling, what.as_ptr().cast(), what.len()) };
}

enum Never {}

fn run(plan: &Plan, go: RawFd, telling: RawFd) -> Result<Never, Stumble> {
    let mut byte = 0_u8;
    // SAFETY: every call below passes pointers into `plan` or to locals, all
    // NUL-terminated and alive until exec.
    unsafe {
        // Again at the end: changing the user clears it.
        die_with_parent(Step::Waiting)?;
        step(Step::Waiting, libc::read(go, (&raw mut byte).cast(), 1) as i64)?;
        if byte != 1 {
            return Err(Stumble { step: Step::Waiting, errno: libc::ECANCELED });
        }
        step(Step::Session, libc::setsid())?;
        match &plan.way {
            Way::Namespaces { as_root, lent } => {
                build_root(plan)?;
                drop_privileges(*as_root)?;
                limit()?;
                renumber(plan, &plan.passed)?;
                close_from(plan.passed.len(), libc::CLOSE_RANGE_CLOEXEC)?;
                // Comes after all changes of the user: they clear it.
                die_with_parent(Step::Passing)?;
                notice_orphanage(telling)?;
                if let Some(path) = lent {
                    lend::lend(path, telling)?;
                }
                Err(plan.command.exec())
            }
            Way::Jail(jail) => watcher::run(plan, jail, telling),
        }
    }
}

/// Has the kernel kill this process when the thread dies that made it.
unsafe fn die_with_parent(at: Step) -> Outcome {
    // SAFETY: takes numbers only.
    unsafe { step(at, libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0)) }
}

/// Fails if the parent was gone before its death could be told: nobody listens
/// any more.
unsafe fn notice_orphanage(telling: RawFd) -> Outcome {
    let mut orphaned = libc::pollfd { fd: telling, events: 0, revents: 0 };
    // SAFETY: one `pollfd`, as it says.
    unsafe { step(Step::Passing, libc::poll(&raw mut orphaned, 1, 0))? };
    if orphaned.revents & (libc::POLLERR | libc::POLLHUP) != 0 {
        return Err(Stumble { step: Step::Passing, errno: libc::ESRCH });
    }
    Ok(())
}

unsafe fn build_root(plan: &Plan) -> Outcome {
    // SAFETY: as in `run`.
    unsafe {
        debug_assert_eq!(STAGE, "/proc");
        let stage = c"/proc";
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        mount_stage(libc::MS_PRIVATE, stage, flags, c"mode=0755,size=64k")?;
        for entry in &plan.entries {
            entry.show()?;
        }
        let at = Step::PivotRoot;
        step(at, libc::chdir(stage.as_ptr()))?;
        step(at, libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        step(at, libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
        step(at, libc::chdir(c"/".as_ptr()))?;
        set_attributes(Step::MakingRoot, c"/", READ_ONLY, 0)
    }
}

/// Takes from this process and all it executes what capabilities it could ever
/// gain, except for some.
unsafe fn bound_capabilities(kept: u64) -> Outcome {
    for capability in (0..64).filter(|capability| kept & (1 << capability) == 0) {
        // SAFETY: takes numbers only.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        // EINVAL: the kernel has no such capability.
        if dropped < 0 && errno() != libc::EINVAL {
            return Err(Stumble::now(Step::Capabilities));
        }
    }
    Ok(())
}

unsafe fn forgo_new_privileges() -> Outcome {
    // SAFETY: takes numbers only.
    unsafe { step(Step::Capabilities, libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) }
}

unsafe fn drop_privileges(as_root: bool) -> Outcome {
    // SAFETY: as in `run`.
    unsafe {
        bound_capabilities(0)?;
        let at = Step::User;
        if as_root {
            step(at, libc::syscall(libc::SYS_setgroups, 0, null::<libc::gid_t>()))?;
        }
        step(at, libc::syscall(libc::SYS_setresgid, INNER_ID, INNER_ID, INNER_ID))?;
        step(at, libc::syscall(libc::SYS_setresuid, INNER_ID, INNER_ID, INNER_ID))?;
        forgo_new_privileges()
    }
}

/// Files that a VMM may have open at once.
const FILES_MAX: u64 = 1024;

unsafe fn limit() -> Outcome {
    // SAFETY: as in `run`.
    unsafe {
        let at = Step::Limits;
        // A core dump would put the guest's memory on the host's disk.
        for (resource, value) in [(libc::RLIMIT_CORE, 0), (libc::RLIMIT_NOFILE, FILES_MAX)] {
            let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
            step(at, libc::setrlimit(resource, &raw const limit))?;
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        step(at, libc::sigprocmask(libc::SIG_SETMASK, &raw const none, null_mut()))?;
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        Ok(())
    }
}

/// Gives descriptors their final numbers: the standard three, then these.
unsafe fn renumber(plan: &Plan, passed: &[RawFd]) -> Outcome {
    // SAFETY: as in `run`.
    unsafe {
        let at = Step::Passing;
        let null_device = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        step(at, null_device)?;
        let standard =
            [null_device, plan.stdout.unwrap_or(null_device), plan.stderr.unwrap_or(null_device)];
        let wanted = || standard.iter().chain(passed);
        // Parked first, or one's final number could be another's present one.
        for (descriptor, parked) in wanted().zip(PARKED..) {
            step(at, libc::dup3(*descriptor, parked, libc::O_CLOEXEC))?;
        }
        for (parked, number) in (PARKED..).zip(0..).take(wanted().count()) {
            step(at, libc::dup2(parked, number))?;
        }
        Ok(())
    }
}

/// Closes what comes after so many passed descriptors, now or at `exec`.
unsafe fn close_from(passed: usize, flags: c_uint) -> Outcome {
    let rest = FIRST_PASSED as c_uint + passed as c_uint;
    // SAFETY: takes numbers only.
    unsafe { step(Step::Passing, libc::syscall(libc::SYS_close_range, rest, c_uint::MAX, flags)) }
}
