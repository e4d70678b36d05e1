//! The first process of a jailed VMM's pid namespace.
//!
//! The jailer changes the user, which clears the death signal, so it cannot be
//! our child itself. The watcher makes the jail's place, starts the jailer, and
//! from then on holds what was passed, waits for the VMM, and tells how it
//! ended. With the watcher everything in the namespace ends; and it ends with
//! its supervisor, with the VMM, or with the jailer, whichever is first. It has
//! root's id, which the VMM has not, so the VMM cannot touch it, and none of
//! root's power.

use super::command::Command;
use super::root::{DEVICE, Entry, mount_stage};
use super::step::{HERE, Outcome, Step, Stumble, step};
use super::{
    FILES_MAX, Never, Plan, bound_capabilities, close_from, die_with_parent, forgo_new_privileges,
    fork, limit, notice_orphanage, renumber, tell,
};
use crate::confine::owner::readable_by_vmm;
use crate::confine::{Access, Confinement, FIRST_PASSED, Jailer, VMM_UID, c_string, jail};
use crate::error::{Error, Result};
use rustix::process::Pid;
use std::ffi::{CString, OsStr, OsString, c_int};
use std::os::fd::RawFd;
use std::path::Path;
use std::ptr::null;

/// Where there is this, files in memory can be mapped at multiples of 2 MiB, as
/// those on disks are; a VMM's memory for its guest depends on it.
const LARGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// Where the jail is.
pub struct Jail {
    /// The directory that it is mounted on.
    base: CString,
    /// How the file system in memory is mounted there.
    options: CString,
}

impl Jail {
    /// The jail, what is in it, and how the jailer is called.
    pub fn plan(
        confinement: &Confinement,
        jailer: &Jailer,
        arguments: &[String],
    ) -> Result<(Self, Vec<Entry>, Command)> {
        let base = jailer.prepare()?;
        let root = jailer.root();
        let program = &confinement.program;
        readable_by_vmm(program, true)?;
        let size = program
            .metadata()
            .map_err(|error| Error::io(format!("cannot look at {}", program.display()), error))?
            .len();
        let executable = Jailer::executable();
        let mut entries = Vec::new();
        entries.extend(Entry::new(&base, program, &executable, Access::Read.attributes())?);
        let within = |target: &Path| {
            let relative = target.strip_prefix("/").unwrap_or(target);
            if target.is_absolute() { root.join(relative) } else { target.to_owned() }
        };
        for seen in &confinement.seen {
            let access = match seen.access {
                // The program is one file, and the jailer's copy of it.
                Access::Execute | Access::Read => Access::Read,
                Access::Write => Access::Write,
            };
            entries.extend(Entry::seen(&base, &seen.source, &within(&seen.target), access)?);
        }
        for device in &confinement.devices {
            if !jail::MAKES.iter().any(|made| Path::new(made) == device.path) {
                let target = within(&device.path);
                entries.extend(Entry::new(&base, &device.path, &target, DEVICE)?);
            }
        }
        let relative = executable.strip_prefix("/").unwrap_or(&executable);
        // No word of cgroups: told of version 2, it would move the VMM out of
        // its own where the host has one that is called like the program.
        let words: [OsString; 13] = [
            "--id".into(),
            jailer.id.to_string().into(),
            "--exec-file".into(),
            base.join(relative).into(),
            "--uid".into(),
            VMM_UID.to_string().into(),
            "--gid".into(),
            VMM_UID.to_string().into(),
            "--chroot-base-dir".into(),
            base.clone().into(),
            "--resource-limit".into(),
            format!("no-file={FILES_MAX}").into(),
            "--".into(),
        ];
        let words = words.iter().map(OsString::as_os_str);
        let words = words.chain(arguments.iter().map(OsStr::new));
        let command = Command::new(&jailer.program, words)?;
        let aligned = if Path::new(LARGE_PAGES).exists() { ",huge=advise" } else { "" };
        let size = size + jail::ROOM;
        let options = c_string(format!("mode=0700,size={size},nr_inodes=256{aligned}"))?;
        Ok((Self { base: c_string(&base)?, options }, entries, command))
    }
}

/// Makes the jail's place, has the jailer started, and watches.
///
/// # Safety
/// In the child, which is the first of its pid namespace.
pub unsafe fn run(plan: &Plan, jail: &Jail, telling: RawFd) -> Result<Never, Stumble> {
    // SAFETY: as in `super::run`.
    unsafe {
        // What the host unmounts is unmounted here too, and not kept in use.
        mount_stage(libc::MS_SLAVE, &jail.base, libc::MS_NOSUID, &jail.options)?;
        hide_optional_devices()?;
        for entry in &plan.entries {
            entry.show()?;
        }
        limit()?;
        // The jailer keeps what power it has, and the VMM can gain none.
        forgo_new_privileges()?;
        bound_capabilities(jail::CAPABILITIES.bits())?;
        let vmm = || {
            let stumble = match become_jailer(plan, telling) {
                Ok(never) => match never {},
                Err(stumble) => stumble,
            };
            tell(telling, &stumble.report());
        };
        let vmm = fork(0, vmm)
            .map_err(|errno| Stumble { step: Step::Watcher, errno: errno.raw_os_error() })?;
        settle(plan, telling)?;
        watch(plan, vmm)
    }
}

/// Firecracker can use /dev/userfaultfd, and the jailer makes it where
/// /proc/misc lists it. Nothing of ours needs it, and it helps attackers.
unsafe fn hide_optional_devices() -> Outcome {
    // SAFETY: NUL-terminated strings.
    let hidden = unsafe {
        let misc = c"/proc/misc".as_ptr();
        libc::mount(c"/dev/null".as_ptr(), misc, null(), libc::MS_BIND, null())
    };
    // Without that file there is nothing to find.
    if hidden < 0 && super::errno() != libc::ENOENT {
        return Err(Stumble::now(Step::Mounting));
    }
    Ok(())
}

unsafe fn become_jailer(plan: &Plan, telling: RawFd) -> Result<Never, Stumble> {
    // SAFETY: as in `super::run`.
    unsafe {
        tell(telling, &HERE);
        renumber(plan, &[])?;
        close_from(0, libc::CLOSE_RANGE_CLOEXEC)?;
        Err(plan.command.exec())
    }
}

/// Gives up what the watcher does not need, and its connection with the
/// supervisor, who then knows that all is in place.
unsafe fn settle(plan: &Plan, telling: RawFd) -> Outcome {
    // SAFETY: as in `super::run`; the header and the two halves of the sets are
    // as the kernel's ABI has them.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"pyro-watcher".as_ptr(), 0, 0, 0);
        bound_capabilities(0)?;
        let header = [LINUX_CAPABILITY_VERSION_3, 0];
        let none = [0_u32; 6];
        step(Step::Capabilities, libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()))?;
        renumber(plan, &plan.passed)?;
        for standard in 1..FIRST_PASSED {
            step(Step::Passing, libc::dup2(0, standard))?;
        }
        die_with_parent(Step::Watcher)?;
        notice_orphanage(telling)?;
        close_from(plan.passed.len(), 0)
    }
}

const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Waits for the VMM and tells how it ended. Whoever else ends up here is
/// buried.
unsafe fn watch(plan: &Plan, vmm: Pid) -> Result<Never, Stumble> {
    let ending = FIRST_PASSED + plan.passed.len() as RawFd - 1;
    let mut status: c_int = 0;
    // SAFETY: pointers to locals.
    unsafe {
        loop {
            let ended = libc::waitpid(-1, &raw mut status, 0);
            if ended == vmm.as_raw_nonzero().get() {
                tell(ending, &status.to_ne_bytes());
                libc::_exit(0);
            }
            if ended < 0 && super::errno() != libc::EINTR {
                libc::_exit(125);
            }
        }
    }
}
