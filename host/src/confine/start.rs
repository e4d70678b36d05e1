//! From a description to a running program.

use super::cgroup::{Group, Hierarchy};
use super::child::{self, Ends, Failure, Plan, Told};
use super::lend::Loan;
use super::owner::{VMM_UID, has_user_for_vmm};
use super::{Confined, Confinement, can_jail};
use crate::error::{Error, ErrorKind, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair, sockopt,
};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use tokio::io::unix::AsyncFd;

/// How long a VMM may take to be confined and executed.
const STARTING_MAX: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// Starts the program. Returns once it executes; a jailed one, once the jailer
/// does, which says on standard error why it does not go on, and ends.
///
/// Call it from the thread that lives as long as the program shall: its death
/// kills the program.
///
/// # Errors
/// `Unsupported` when the host forbids what confinement needs, with what to do;
/// pyro does not run an unconfined VMM.
pub fn spawn(confinement: Confinement, arguments: &[String]) -> Result<Confined> {
    if confinement.jailer.is_some() && confinement.lent.is_some() {
        return Err(Error::new(ErrorKind::Internal, "nothing is lent to what a jailer starts"));
    }
    match confinement.jailer.as_ref().filter(|_| can_jail()) {
        None => start(&Plan::for_namespaces(&confinement, arguments)?, &confinement, None),
        Some(jailer) => {
            // Looked into only when the watcher is gone, be the other end open or not.
            let (ending, told) = pipe(PipeFlags::NONBLOCK)?;
            let plan = Plan::for_jailer(&confinement, jailer, arguments, &told)?;
            start(&plan, &confinement, Some(File::from(ending)))
        }
    }
}

/// A child that waits to be let go on.
pub(super) struct Begun {
    pub pid: Pid,
    pub going: File,
    pub telling: OwnedFd,
}

pub(super) fn begin(plan: &Plan) -> Result<Begun> {
    let (go, going) = pipe(PipeFlags::empty())?;
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (listening, telling) =
        pair.map_err(|errno| Error::io("cannot make a pair of sockets", errno.into()))?;
    sockopt::set_socket_passcred(&listening, true)
        .map_err(|errno| Error::io("cannot learn who speaks", errno.into()))?;
    let others = [going.as_raw_fd(), listening.as_raw_fd()];
    let ends = Ends { go: &go, telling: &telling, others };
    let pid = child::clone(plan, &ends)
        .map_err(|errno| plan.refused(&Failure { step: "clone", hint: None, errno }))?;
    Ok(Begun { pid, going: File::from(going), telling: listening })
}

fn start(plan: &Plan, confinement: &Confinement, ending: Option<File>) -> Result<Confined> {
    let Begun { pid, mut going, telling } = begin(plan)?;
    let watched = pidfd_open(pid, PidfdFlags::empty())
        .map_err(|errno| Error::io("cannot watch the VMM", errno.into()))?;
    // SAFETY: the descriptor is owned and stays the same.
    let pidfd = unsafe { AsyncFd::register(watched) }
        .map_err(|error| Error::io("cannot watch the VMM", error.into()))?;
    let mut confined = Confined { pid, pidfd, ending, ended: None, _loan: None, _group: None };
    // From here on `confined` kills the child when an error drops it.
    if plan.has_user_namespace() {
        map_ids(pid)?;
    }
    confined._group = limit(confinement, pid, confined.is_jailed())?;
    going.write_all(&[1]).map_err(|error| Error::io("cannot start the VMM", error))?;
    let mut loan = None;
    while let Some(Heard { told, speaker, handed }) = listen(&telling)? {
        match told {
            Told::Here => confined.pid = speaker.unwrap_or(pid),
            Told::Lends => loan = Some(Loan::new(handed)?),
            Told::Failed(failure) => return Err(plan.refused(&failure)),
        }
    }
    confined._loan = loan.map(|loan| loan.give_when_asked(confined.pid)).transpose()?;
    Ok(confined)
}

/// What the child tells, who it is that tells, and what is handed over with it.
struct Heard {
    told: Told,
    speaker: Option<Pid>,
    handed: Vec<OwnedFd>,
}

/// What the child tells next; `None` at the end.
fn listen(telling: &OwnedFd) -> Result<Option<Heard>> {
    let failed = |errno: Errno| Error::io("cannot learn whether the VMM started", errno.into());
    let mut ready = [PollFd::new(telling, PollFlags::IN)];
    if rustix::event::poll(&mut ready, Some(&STARTING_MAX)).map_err(failed)? == 0 {
        let message = format!("the VMM did not start within {} s", STARTING_MAX.tv_sec);
        return Err(Error::new(ErrorKind::TimedOut, message));
    }
    let mut report = [0; 8];
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(Loan::HANDED))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut report)];
    let received =
        recvmsg(telling, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC).map_err(failed)?;
    let (mut speaker, mut handed) = (None, Vec::new());
    for message in ancillary.drain() {
        match message {
            RecvAncillaryMessage::ScmCredentials(who) => speaker = Some(who.pid),
            RecvAncillaryMessage::ScmRights(descriptors) => handed.extend(descriptors),
            _ => {}
        }
    }
    let told = Told::parse(&report[..received.bytes]);
    Ok(told.map(|told| Heard { told, speaker, handed }))
}

/// Puts the child into its cgroup, where the host has one for it.
fn limit(confinement: &Confinement, pid: Pid, watched: bool) -> Result<Option<Group>> {
    let Some((workspace, mut limits)) = confinement.limited else { return Ok(None) };
    let Ok(hierarchy) = Hierarchy::find() else { return Ok(None) };
    // The watcher is one more.
    limits.pids = limits.pids.map(|pids| pids.saturating_add(watched.into()));
    hierarchy.confine(workspace, limits, pid).map(Some)
}

impl Plan {
    fn refused(&self, failure: &Failure) -> Error {
        let Failure { step, hint, errno } = *failure;
        let message = format!("cannot confine the VMM: {step} failed");
        let unsupported = match errno {
            Errno::PERM | Errno::ACCESS | Errno::NOSPC | Errno::INVAL | Errno::NOSYS => true,
            // Somebody else's filter asks already.
            Errno::BUSY => hint.is_some(),
            _ => false,
        };
        let hint = hint.unwrap_or(if self.has_user_namespace() {
            "the host must allow user namespaces: see `sysctl user.max_user_namespaces \
             kernel.unprivileged_userns_clone kernel.apparmor_restrict_unprivileged_userns`"
        } else {
            "the host must let root make namespaces and mount in them; an ordinary user needs \
             no such right"
        });
        let error = if unsupported {
            Error::new(ErrorKind::Unsupported, message).hint(hint)
        } else {
            Error::new(ErrorKind::Io, message)
        };
        error.because(std::io::Error::from(errno))
    }
}

/// Gives the child's user namespace its ids: as root, root to set up with and
/// [`VMM_UID`] to run as; otherwise the caller's own.
pub(super) fn map_ids(pid: Pid) -> Result<()> {
    let write = |name: &str, text: String| {
        let path = format!("/proc/{}/{name}", pid.as_raw_nonzero());
        std::fs::write(&path, text)
            .map_err(|error| Error::io(format!("cannot write {path}"), error))
    };
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if has_user_for_vmm() {
        let map = format!("0 0 1\n{} {VMM_UID} 1\n", child::INNER_ID);
        write("uid_map", map.clone())?;
        write("gid_map", map)
    } else {
        write("setgroups", "deny".into())?;
        write("uid_map", format!("{} {} 1\n", child::INNER_ID, uid.as_raw()))?;
        write("gid_map", format!("{} {} 1\n", child::INNER_ID, gid.as_raw()))
    }
}

fn pipe(flags: PipeFlags) -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(flags | PipeFlags::CLOEXEC)
        .map_err(|errno| Error::io("cannot make a pipe", errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, WaitOptions, WaitStatus, waitpid};

    /// `None` where the host forbids namespaces.
    fn begin() -> Option<Begun> {
        // A static program that ends well, should it ever be executed.
        let confinement = Confinement::new(&std::env::current_exe().expect("this test"));
        let plan = Plan::for_namespaces(&confinement, &["--list".into()]).expect("a plan");
        match super::begin(&plan) {
            Ok(begun) => Some(begun),
            Err(error) => {
                eprintln!("skipped: this host makes no namespaces: {}", error.chain());
                None
            }
        }
    }

    /// Kills what does not end by itself.
    fn end_of(pid: Pid) -> Option<WaitStatus> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("ours");
        let patience = Timespec { tv_sec: 5, tv_nsec: 0 };
        let ended = rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience));
        let by_itself = ended.expect("polled") == 1;
        if !by_itself {
            rustix::process::kill_process(pid, Signal::KILL).expect("it is there");
        }
        let (_, status) = waitpid(Some(pid), WaitOptions::empty()).expect("ours").expect("ended");
        by_itself.then_some(status)
    }

    /// The supervisor may be killed between any two of its steps; nothing of
    /// the VMM may then go on, holding the workspace's lock.
    #[test]
    fn r9_a_child_whose_supervisor_dies_before_it_may_go_on_ends() {
        let Some(Begun { pid, going, telling }) = begin() else { return };
        drop((going, telling));
        let status = end_of(pid).expect("it waits for ever");
        // By itself, or by SIGPIPE as it wants to report.
        assert!(status.exit_status() == Some(125) || status.terminating_signal() == Some(13));
    }

    #[test]
    fn r9_a_child_whose_supervisor_dies_while_it_is_confined_does_not_exec() {
        let Some(Begun { pid, mut going, telling }) = begin() else { return };
        map_ids(pid).expect("ids");
        // Now nobody would hear of a failure.
        drop(telling);
        going.write_all(&[1]).expect("it listens");
        let status = end_of(pid).expect("it goes on");
        assert!(status.exit_status() == Some(125) || status.terminating_signal() == Some(13));
    }
}
