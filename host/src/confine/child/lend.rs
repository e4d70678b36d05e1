//! The last step before `exec` where a file is lent: from then on whoever opens
//! anything with exactly `O_RDWR` waits for what the supervisor says to it.

use super::step::{LENDS, Outcome, Step, Stumble, step};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::ffi::{CStr, c_long};
use std::io::IoSlice;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `<linux/audit.h>`: what the kernel calls the processor's own system calls.
/// Those of its ancestors (i386) and of x32 are nobody's here, and are let pass.
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// `<asm-generic/fcntl.h>`: musl says it with each open, and on x86-64 it means
/// nothing. In glibc it is 0.
const O_LARGEFILE: u32 = 0o100_000;

// Where the filter's parts begin.
const FLAGS_OF_OPENAT: usize = 7;
const COMPARE: usize = 8;
const ASK: usize = 10;
const ALLOW: usize = 11;

/// Who opens with exactly `O_RDWR` is to ask; all else is as without a filter.
/// Of the flags only the lower half is looked at, as the kernel does.
static FILTER: [libc::sock_filter; ALLOW + 1] = [
    load(offset_of!(libc::seccomp_data, arch)),
    compare(1, AUDIT_ARCH_X86_64, 2, ALLOW),
    load(offset_of!(libc::seccomp_data, nr)),
    compare(3, libc::SYS_openat as u32, FLAGS_OF_OPENAT, 4),
    compare(4, libc::SYS_open as u32, 5, ALLOW),
    load(argument(1)),
    instruction(libc::BPF_JMP | libc::BPF_JA, (COMPARE - 7) as u32, 0, 0),
    load(argument(2)),
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, !O_LARGEFILE, 0, 0),
    compare(9, libc::O_RDWR as u32, ASK, ALLOW),
    instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
    instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
];

const fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

const fn load(offset: usize) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32, 0, 0)
}

/// The instruction at `at` goes on at one of two others.
const fn compare(at: usize, with: u32, same: usize, other: usize) -> libc::sock_filter {
    let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    instruction(code, with, (same - at - 1) as u8, (other - at - 1) as u8)
}

/// Where an argument's lower half is.
const fn argument(number: usize) -> usize {
    offset_of!(libc::seccomp_data, args) + number * size_of::<u64>()
}

/// Opens the file, for reading, as the program could itself; has the kernel ask
/// whoever gets the listener; and hands both to the supervisor.
///
/// # Safety
/// In the child, which can gain no privileges any more, and opens nothing with
/// `O_RDWR` until it executes.
pub unsafe fn lend(path: &CStr, telling: RawFd) -> Outcome {
    // SAFETY: NUL-terminated; the descriptors are new, and `telling` is open.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        step(Step::Showing, file)?;
        let file = OwnedFd::from_raw_fd(file);
        let listener = listen()?;
        answers_with_a_file(&listener, &file)?;
        let handed = [listener.as_fd(), file.as_fd()];
        hand_over(BorrowedFd::borrow_raw(telling), &handed)
            .map_err(|errno| Stumble { step: Step::Lending, errno: errno.raw_os_error() })
    }
}

/// Installs the filter.
unsafe fn listen() -> Result<OwnedFd, Stumble> {
    let program = libc::sock_fprog {
        len: FILTER.len() as u16,
        filter: (&raw const FILTER).cast_mut().cast(),
    };
    // SAFETY: the kernel reads as many instructions as there are; what it gives
    // back is a new descriptor, closed by `exec`.
    unsafe {
        let listener: c_long = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        );
        step(Step::Lending, listener)?;
        Ok(OwnedFd::from_raw_fd(listener as RawFd))
    }
}

/// Fails where a file is no answer (Linux before 5.14): better now than when the
/// program asks. Nobody has asked yet, which is all that the kernel may object to.
unsafe fn answers_with_a_file(listener: &OwnedFd, file: &OwnedFd) -> Outcome {
    let nobody = libc::seccomp_notif_addfd {
        id: 0,
        flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
        srcfd: file.as_raw_fd() as u32,
        newfd: 0,
        newfd_flags: 0,
    };
    // SAFETY: a structure of the size that the request's number says.
    let returned = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const nobody)
    };
    if returned < 0 && super::errno() == libc::ENOENT {
        return Ok(());
    }
    step(Step::Lending, returned)
}

fn hand_over(telling: BorrowedFd<'_>, handed: &[BorrowedFd<'_>; 2]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(handed)) {
        return Err(Errno::NOBUFS);
    }
    sendmsg(telling, &[IoSlice::new(&LENDS)], &mut ancillary, SendFlags::empty()).map(drop)
}
