//! From a command to a running program.
//!
//! The child is made by clone3 and not by the standard library, because it must
//! be born in its cgroup: moving it there takes a grace period of the kernel's,
//! which on a machine without other work is tens of milliseconds. And because
//! "never ran" must be told apart: each step that can fail in the child says so
//! on a pipe that closes when the program starts.

use super::command::Command;
use super::leash::{Hold, Leash};
use super::{Process, failed, is_exhaustion};
use crate::guest::Guest;
use pyro_protocol::{AgentError, AgentErrorKind};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Gid, Pid, Uid};
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::timeout;

/// How long the kernel may take to read the program's file.
const EXEC_DEADLINE: Duration = Duration::from_secs(60);

// <linux/sched.h>; libc has it for glibc only.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

// <linux/close_range.h>
const CLOSE_ON_EXEC: libc::c_uint = 1 << 2;

/// Where a child gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Step {
    Streams = 1,
    Identity = 2,
    Directory = 3,
    Program = 4,
}

/// A child's last words: its step, then the errno.
const REPORT_LEN: usize = 5;

/// Starts the command. An error means that it never ran.
pub(super) async fn spawn(guest: &Guest, command: Command) -> Result<Process<'_>, AgentError> {
    let (process, report) = start(guest, &command).map_err(|error| resources(&error))?;
    confirm(&process.leash, report, &command).await?;
    Ok(process)
}

/// The same on a terminal, which becomes the controlling one of its session.
pub(crate) async fn spawn_on_terminal<'guest>(
    guest: &'guest Guest,
    command: &Command,
    terminal: &OwnedFd,
) -> Result<Leash<'guest>, AgentError> {
    let (leash, report) =
        start_on_terminal(guest, command, terminal).map_err(|error| resources(&error))?;
    confirm(&leash, report, command).await?;
    Ok(leash)
}

/// Waits until the child has become the program; one that cannot is ended.
async fn confirm(
    leash: &Leash<'_>,
    mut report: pipe::Receiver,
    command: &Command,
) -> Result<(), AgentError> {
    let mut bytes = Vec::with_capacity(REPORT_LEN);
    let reported = match timeout(EXEC_DEADLINE, report.read_to_end(&mut bytes)).await {
        Ok(read) => read.map(|_| ()),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    match (reported, bytes.as_slice()) {
        (Ok(()), []) => Ok(()),
        (Ok(()), [step, errno @ ..]) => {
            leash.end().await;
            let errno = errno.try_into().map(i32::from_le_bytes).unwrap_or(libc::EIO);
            Err(never_ran(*step, errno, command))
        }
        (Err(error), _) => {
            leash.end().await;
            Err(resources(&error))
        }
    }
}

/// The size of a program's pipes; see `GULP` in output.rs. The kernel allots it
/// as it is filled.
const PIPE_SIZE: usize = 1 << 20;

fn wide_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    // Refused when the user has too much in pipes: then it is a narrow one.
    let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_SIZE);
    Ok((reader, writer))
}

fn start<'guest>(
    guest: &'guest Guest,
    command: &Command,
) -> io::Result<(Process<'guest>, pipe::Receiver)> {
    let (report_reader, report) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stdout_reader, stdout) = wide_pipe()?;
    let (stderr_reader, stderr) = wide_pipe()?;
    let (stdin, stdin_writer) = if command.stdin {
        let (reader, writer) = wide_pipe()?;
        (reader, Some(writer))
    } else {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        (rustix::fs::open("/dev/null", flags, Mode::empty())?, None)
    };
    if let Some(user) = command.identity.as_ref().filter(|user| user.uid != 0) {
        // So that the user can open /dev/stdout, which is the pipe's inode.
        let owner = (Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)));
        let inputs = stdin_writer.is_some().then_some(&stdin);
        for pipe in [&stdout, &stderr].into_iter().chain(inputs) {
            rustix::fs::fchown(pipe, owner.0, owner.1)?;
        }
    }
    let hold = Hold::new(guest)?;
    // Whatever can fail does so before there is a child.
    let report_reader = pipe::Receiver::from_owned_fd(report_reader)?;
    let stdin_writer = stdin_writer.map(pipe::Sender::from_owned_fd).transpose()?;
    let stdout_reader = pipe::Receiver::from_owned_fd(stdout_reader)?;
    let stderr_reader = pipe::Receiver::from_owned_fd(stderr_reader)?;
    let own_oom_score = hold.cgroup().is_some();
    let streams = Streams::Pipes;
    let child = Child { command, own_oom_score, streams, stdin, stdout, stderr, report };
    let (pid, pidfd) = child.fork(hold.cgroup())?;
    let leash = Leash::new(guest, pid, pidfd, hold)?;
    let process =
        Process { leash, stdin: stdin_writer, stdout: stdout_reader, stderr: stderr_reader };
    Ok((process, report_reader))
}

fn start_on_terminal<'guest>(
    guest: &'guest Guest,
    command: &Command,
    terminal: &OwnedFd,
) -> io::Result<(Leash<'guest>, pipe::Receiver)> {
    let (report_reader, report) = pipe_with(PipeFlags::CLOEXEC)?;
    if let Some(user) = command.identity.as_ref().filter(|user| user.uid != 0) {
        // So that the user can open /dev/pts/N, as after a login.
        rustix::fs::fchown(terminal, Some(Uid::from_raw(user.uid)), None)?;
    }
    let hold = Hold::new(guest)?;
    let report_reader = pipe::Receiver::from_owned_fd(report_reader)?;
    let child = Child {
        command,
        own_oom_score: hold.cgroup().is_some(),
        streams: Streams::Terminal,
        stdin: terminal.try_clone()?,
        stdout: terminal.try_clone()?,
        stderr: terminal.try_clone()?,
        report,
    };
    let (pid, pidfd) = child.fork(hold.cgroup())?;
    Ok((Leash::new(guest, pid, pidfd, hold)?, report_reader))
}

/// What a child's three streams are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streams {
    Pipes,
    /// One terminal, which is to be its session's.
    Terminal,
}

/// All that a child needs, made before it is born.
struct Child<'a> {
    command: &'a Command,
    /// Whether it must shed the agent's protection against the OOM killer.
    own_oom_score: bool,
    streams: Streams,
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    report: OwnedFd,
}

impl Child<'_> {
    /// Makes the child, in a cgroup if there is one.
    fn fork(&self, cgroup: Option<BorrowedFd<'_>>) -> io::Result<(Pid, OwnedFd)> {
        let argv = pointers(&self.command.argv);
        let envp = pointers(&self.command.envp);
        let groups: Vec<Gid> = self
            .command
            .identity
            .iter()
            .flat_map(|user| user.groups.iter().copied().map(Gid::from_raw))
            .collect();
        let mut pidfd: libc::c_int = -1;
        // SAFETY: clone_args is plain old data; zero means "not used".
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = libc::CLONE_PIDFD as u64;
        args.pidfd = (&raw mut pidfd) as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        if let Some(cgroup) = cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = cgroup.as_raw_fd() as u64;
        }
        // SAFETY: without CLONE_VM and a stack this is a fork: the child goes on
        // with a copy of everything. It has only this thread, so it calls
        // nothing that allocates, locks or asks libc about threads.
        let pid = unsafe {
            libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>())
        };
        match pid {
            0 => {
                let (step, errno) = self.become_program(&argv, &envp, &groups);
                let mut bytes = [0; REPORT_LEN];
                bytes[0] = step as u8;
                bytes[1..].copy_from_slice(&errno.raw_os_error().to_le_bytes());
                // Whoever reads it has gone or takes it; there is no third way.
                let _ = rustix::io::write(&self.report, &bytes);
                // SAFETY: ends the child without running anything of the parent's.
                unsafe { libc::_exit(127) }
            }
            // No child, and no descriptor: too many processes, or no memory.
            ..0 => Err(io::Error::last_os_error()),
            1.. => {
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
                // SAFETY: the kernel has put a new descriptor there.
                Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
            }
        }
    }

    /// Runs in the child. Returns only when something failed.
    fn become_program(
        &self,
        argv: &[*const c_char],
        envp: &[*const c_char],
        groups: &[Gid],
    ) -> (Step, Errno) {
        let at = |step: Step| move |errno: Errno| (step, errno);
        let streams = self.take_streams().map_err(at(Step::Streams));
        let ready = streams
            .and_then(|()| self.take_identity(groups).map_err(at(Step::Identity)))
            .and_then(|()| rustix::process::chdir(&*self.command.cwd).map_err(at(Step::Directory)));
        match ready {
            Ok(()) => (Step::Program, exec(&self.command.candidates, argv, envp)),
            Err(failed) => failed,
        }
    }

    fn take_streams(&self) -> Result<(), Errno> {
        rustix::process::setsid()?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        rustix::stdio::dup2_stdin(&self.stdin)?;
        rustix::stdio::dup2_stdout(&self.stdout)?;
        rustix::stdio::dup2_stderr(&self.stderr)?;
        match self.streams {
            Streams::Pipes => {}
            Streams::Terminal => rustix::process::ioctl_tiocsctty(&self.stdin)?,
        }
        // SAFETY: touches only flags of descriptors, and closes none.
        match unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_ON_EXEC) } {
            0 => {}
            _ => return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
        // SAFETY: both are plain system calls in musl, and the set is valid.
        unsafe {
            // Rust's runtime ignores it, and exec would keep that.
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        }
        if self.own_oom_score {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let score = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty())?;
            rustix::io::write(&score, b"0")?;
        }
        Ok(())
    }

    /// By the system calls for one thread: libc's would look for others.
    fn take_identity(&self, groups: &[Gid]) -> Result<(), Errno> {
        let Some(user) = &self.command.identity else {
            return Ok(());
        };
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        rustix::thread::set_thread_groups(groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)
    }
}

/// Tries each file in turn, as execvp does: one that is not there is passed
/// over, one that may not be executed too but is remembered.
fn exec(candidates: &[CString], argv: &[*const c_char], envp: &[*const c_char]) -> Errno {
    let mut verdict = Errno::NOENT;
    for candidate in candidates {
        let candidate: &CStr = candidate;
        // SAFETY: all three are NUL-terminated and outlive the call.
        unsafe { libc::execve(candidate.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        match Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO) {
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => {}
            Errno::ACCESS => verdict = Errno::ACCESS,
            errno => return errno,
        }
    }
    verdict
}

/// With the null pointer that ends such a list.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([null()]).collect()
}

/// What a child's report means to the caller.
fn never_ran(step: u8, errno: i32, command: &Command) -> AgentError {
    let reason = io::Error::from_raw_os_error(errno);
    if is_exhaustion(&reason) {
        return resources(&reason);
    }
    let (kind, what) = match step {
        _ if step == Step::Directory as u8 => {
            let kind = match errno {
                libc::ENOENT | libc::ENOTDIR => AgentErrorKind::DirectoryNotFound,
                _ => AgentErrorKind::System,
            };
            (kind, command.cwd.to_string_lossy().into_owned())
        }
        _ if step == Step::Program as u8 => {
            let kind = match errno {
                libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG => {
                    AgentErrorKind::ProgramNotFound
                }
                libc::E2BIG => AgentErrorKind::InvalidArgument,
                _ => AgentErrorKind::ProgramNotExecutable,
            };
            (kind, command.program())
        }
        _ if step == Step::Identity as u8 => {
            (AgentErrorKind::System, "taking on the user".to_owned())
        }
        _ => (AgentErrorKind::System, "preparing the process".to_owned()),
    };
    AgentError::new(kind, format!("{what}: {reason}"))
}

fn resources(error: &io::Error) -> AgentError {
    failed("the process cannot be started", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn p3_a_child_that_cannot_be_made_is_an_error() {
        let command = Command {
            candidates: Vec::new(),
            argv: Vec::new(),
            envp: Vec::new(),
            cwd: CString::default(),
            identity: None,
            stdin: false,
        };
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let child = Child {
            command: &command,
            own_oom_score: false,
            streams: Streams::Pipes,
            stdin: null(),
            stdout: null(),
            stderr: null(),
            report: null(),
        };
        // The kernel makes no child in what is no cgroup.
        let refused = child.fork(Some(null().as_fd())).map(drop);
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
