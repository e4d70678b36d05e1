//! Threads that may start no process: whoever starts one all the same is killed.

use std::io;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Where a filter sees the number of a system call, and the low half of its
/// first argument.
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = 16;

const fn step(code: u16, k: u32, skip_if: u8, skip_else: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt: skip_if, jf: skip_else, k }
}

/// Kills whoever forks, and lets threads be. `clone3`, whose flags no filter
/// sees, is said to be missing; then everybody uses `clone`.
const FILTER: [libc::sock_filter; 10] = [
    step(LOAD, NUMBER, 0, 0),
    step(IF_EQUAL, libc::SYS_fork as u32, 5, 0),
    step(IF_EQUAL, libc::SYS_vfork as u32, 4, 0),
    step(IF_EQUAL, libc::SYS_clone3 as u32, 4, 0),
    step(IF_EQUAL, libc::SYS_clone as u32, 0, 4),
    step(LOAD, FIRST_ARGUMENT, 0, 0),
    step(IF_SET, libc::CLONE_THREAD as u32, 2, 0),
    step(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
    step(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32, 0, 0),
    step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
];

/// From here on this thread, and those it starts, start no process and live to
/// tell. There is no way back. May be called between fork and exec.
pub fn start_no_process() -> io::Result<()> {
    let program = libc::sock_fprog { len: FILTER.len() as u16, filter: FILTER.as_ptr().cast_mut() };
    // SAFETY: the kernel reads the program, which outlives both calls, and
    // writes nothing; neither call allocates.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
    };
    if refused { Err(io::Error::last_os_error()) } else { Ok(()) }
}
