//! Gives a confined program a file for reading that it opens for writing.
//!
//! The child's last step has installed a filter (`child/lend.rs`), by which the
//! kernel asks here before the program opens anything with exactly `O_RDWR`. It
//! is told once, with the file; then the listener is closed, and the kernel by
//! itself refuses what would have been asked. So a program that was taken over
//! cannot keep its supervisor busy, and nothing here lives as long as a VMM.
//!
//! No path is read from the program's memory, which it may change meanwhile:
//! what it opens does not matter, for what it gets it could open by itself.

use crate::error::{Error, ErrorKind, Result};
use libc::{seccomp_notif, seccomp_notif_addfd, seccomp_notif_resp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::Pid;
use std::os::fd::{AsRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::task::AbortOnDropHandle;

/// How often it is asked in all until the file is given. More than once where a
/// signal interrupts the program while it opens, or another process of its asks.
const QUESTIONS_MAX: usize = 16;

/// The listener, and what is lent.
#[derive(Debug)]
pub(super) struct Loan {
    listener: OwnedFd,
    file: OwnedFd,
}

impl Loan {
    /// How many descriptors the child hands over.
    pub const HANDED: usize = 2;

    pub fn new(handed: Vec<OwnedFd>) -> Result<Self> {
        let handed = <[OwnedFd; Self::HANDED]>::try_from(handed);
        // The kernel leaves out what is one too many for this process.
        let [listener, file] = handed.map_err(|_| {
            Error::new(ErrorKind::Io, "cannot take what the VMM hands over")
                .hint("allow more open files: `ulimit -n`")
        })?;
        Ok(Self { listener, file })
    }

    /// Waits in a task of its own, so that who talks to the program first need
    /// not serve it here. Dropped, it gives nothing any more.
    pub fn give_when_asked(self, program: Pid) -> Result<AbortOnDropHandle<()>> {
        let Self { listener, file } = self;
        // SAFETY: the descriptor is owned and stays the same.
        let listener = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) }
            .map_err(|error| Error::io("cannot watch what the VMM opens", error.into()))?;
        Ok(AbortOnDropHandle::new(tokio::spawn(async move {
            for _ in 0..QUESTIONS_MAX {
                let Some(asked) = asked(&listener).await else { return };
                if asked.is_some_and(|asked| answer(&listener, &asked, &file, program)) {
                    return;
                }
            }
        })))
    }
}

/// Waits for a question: `None` when nobody can ask any more, and `Some(None)`
/// when who asked has been interrupted.
async fn asked(listener: &AsyncFd<OwnedFd>) -> Option<Option<seccomp_notif>> {
    const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        let mut readiness = listener.readable().await.ok()?;
        // Receiving waits for a question where there is none, so readiness is not
        // believed.
        let mut ready = [PollFd::new(listener, PollFlags::IN)];
        retry_on_intr(|| poll(&mut ready, Some(&NOW))).ok()?;
        let ready = ready[0].revents();
        if ready.contains(PollFlags::IN) {
            return Some(receive(listener));
        }
        if !ready.is_empty() {
            return None;
        }
        readiness.clear_ready();
    }
}

/// Whether it was given.
fn answer(
    listener: &AsyncFd<OwnedFd>,
    asked: &seccomp_notif,
    file: &OwnedFd,
    program: Pid,
) -> bool {
    let refused = if is_thread_of(asked.pid, program) {
        match give(listener, asked.id, file) {
            Ok(()) => return true,
            Err(errno) => errno,
        }
    } else {
        Errno::ACCESS
    };
    refuse(listener, asked.id, refused);
    false
}

/// Whether it is the program that asks, and not one that it has started. Should
/// who asked be gone, and this be somebody else, no answer reaches anybody.
fn is_thread_of(asking: u32, program: Pid) -> bool {
    std::fs::exists(format!("/proc/{}/task/{asking}", program.as_raw_nonzero())).unwrap_or(false)
}

fn receive(listener: &AsyncFd<OwnedFd>) -> Option<seccomp_notif> {
    // SAFETY: numbers only, and the kernel insists on zeroes.
    let mut asked: seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is of the request's size.
    let received = unsafe { request(listener, libc::SECCOMP_IOCTL_NOTIF_RECV, &mut asked) };
    received.ok().map(|()| asked)
}

/// Gives a copy of the descriptor and answers with its number, at once. It takes
/// the moment in which the kernel wakes who asked.
fn give(listener: &AsyncFd<OwnedFd>, id: u64, file: &OwnedFd) -> Result<(), Errno> {
    let mut answer = seccomp_notif_addfd {
        id,
        flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
        srcfd: file.as_raw_fd().cast_unsigned(),
        newfd: 0,
        newfd_flags: 0,
    };
    // SAFETY: the structure is of the request's size.
    unsafe { request(listener, libc::SECCOMP_IOCTL_NOTIF_ADDFD, &mut answer) }
}

fn refuse(listener: &AsyncFd<OwnedFd>, id: u64, errno: Errno) {
    let mut answer = seccomp_notif_resp { id, val: 0, error: -errno.raw_os_error(), flags: 0 };
    // Who has been interrupted needs no answer.
    // SAFETY: the structure is of the request's size.
    let _ = unsafe { request(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, &mut answer) };
}

/// # Safety
/// `argument` must be what the request takes.
unsafe fn request<T>(
    listener: &AsyncFd<OwnedFd>,
    request: libc::Ioctl,
    argument: &mut T,
) -> Result<(), Errno> {
    retry_on_intr(|| {
        // SAFETY: as the caller says; it is not kept beyond the call.
        let returned = unsafe { libc::ioctl(listener.as_raw_fd(), request, &raw mut *argument) };
        if returned < 0 {
            Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
        } else {
            Ok(())
        }
    })
}
