//! The processor time of pyro itself: of the whole `pyro run -- true` less the
//! VMM's.
//!
//! A waiting parent is told the sum over a whole tree of processes, the VMM's
//! seconds included, and /proc counts in ticks of 10 ms. So the benchmark traces
//! `pyro` and all that it starts, and reads each process's own clock, which
//! counts nanoseconds, in the one moment when it stands still and is still
//! there: as a zombie that its tracer has not yet let go. The VMM's clock is
//! read when it has just become QEMU: what it spent before, on namespaces and
//! mounts, is confinement and so pyro's. Then it is let go and runs untraced.

use crate::Result;
use crate::children;
use crate::guest;
use crate::report::{Figure, Goal, Row};
use crate::sample::Series;
use pyro_smoke::Home;
use std::collections::HashSet;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::ptr::null_mut;
use std::time::Duration;

const RUNS: usize = 9;

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    let (mut all, mut command, mut supervisor, mut confinement) =
        (Series::default(), Series::default(), Series::default(), Series::default());
    for _ in 0..RUNS {
        let cost = Cost::of_a_run(home)?;
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        command.push(millis(cost.command));
        supervisor.push(millis(cost.supervisor));
        confinement.push(millis(cost.confinement));
        all.push(millis(cost.command + cost.supervisor + cost.confinement));
    }
    Ok(vec![Figure {
        title: "What pyro itself adds around a boot",
        goal: Goal::at_most(all.median(), 30.0, "ms"),
        rows: vec![
            Row::new("processor time of `pyro run debian:12 -- true` without the VMM's", "ms", all),
            Row::new("of it, the command", "ms", command),
            Row::new("of it, the supervisor", "ms", supervisor),
            Row::new("of it, confinement: the VMM's process before it is QEMU", "ms", confinement),
        ],
        notes: vec![],
    }])
}

/// Processor time, in user and in system mode together.
#[derive(Debug, Default)]
struct Cost {
    command: Duration,
    supervisor: Duration,
    confinement: Duration,
}

impl Cost {
    fn of_a_run(home: &Home) -> Result<Self> {
        let mut command = guest::run(home, &["true"]);
        command.stdout(Stdio::null());
        // SAFETY: ptrace is a mere system call.
        unsafe {
            command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        // Stands still after its exec, and what it starts is traced from birth.
        let pyro = children::start(command, libc::SIGTERM)?;
        let first = wait(pyro.pid(), libc::WSTOPPED)?;
        let options = libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_EXITKILL;
        trace(libc::PTRACE_SETOPTIONS, first.pid, options)?;
        reap(first.pid)?;
        trace(libc::PTRACE_CONT, first.pid, 0)?;
        let cost = Self::follow(pyro.pid())?;
        drop(pyro);
        Ok(cost)
    }

    /// Follows the tree of processes to its end.
    fn follow(pyro: libc::pid_t) -> Result<Self> {
        let mut cost = Self::default();
        let mut met = HashSet::from([pyro]);
        loop {
            let change = wait(0, libc::WSTOPPED | libc::WEXITED)?;
            let Change { pid, ended, .. } = change;
            let clock = processor_time(pid);
            if ended {
                // A thread has no clock of its own here; its process's counts it.
                match clock {
                    Some(clock) if pid == pyro => cost.command = clock,
                    Some(clock) => cost.supervisor += clock,
                    None => {}
                }
            }
            if ended && pid == pyro {
                // Whoever waits for it as its parent lets it go.
                return Ok(cost);
            }
            let status = reap(pid)?;
            if ended {
                continue;
            }
            let became_qemu = status >> 16 == libc::PTRACE_EVENT_EXEC && !is_pyro(pid);
            if became_qemu {
                cost.confinement += clock.ok_or("the VMM has no clock")?;
                trace(libc::PTRACE_DETACH, pid, 0)?;
                continue;
            }
            // Those born under a tracer begin with a stop that nobody sent.
            let signal = libc::WSTOPSIG(status);
            let first = met.insert(pid) && signal == libc::SIGSTOP;
            let event = status >> 16 != 0;
            trace(libc::PTRACE_CONT, pid, if first || event { 0 } else { signal })?;
        }
    }
}

fn is_pyro(pid: libc::pid_t) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|exe| exe == pyro_smoke::pyro_executable())
}

/// A traced process that has stopped or ended, and stays so until reaped.
pub struct Change {
    pid: libc::pid_t,
    ended: bool,
}

/// Waits for one process, or with 0 for any, and leaves it as it is.
pub fn wait(pid: libc::pid_t, what: libc::c_int) -> Result<Change> {
    let kind = if pid == 0 { libc::P_ALL } else { libc::P_PID };
    // SAFETY: siginfo_t is plain old data, and is there for the call to fill in.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = what | libc::WNOWAIT | libc::__WALL;
        if libc::waitid(kind, pid.unsigned_abs(), &raw mut info, flags) < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        let ended = matches!(info.si_code, libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED);
        Ok(Change { pid: info.si_pid(), ended })
    }
}

fn reap(pid: libc::pid_t) -> Result<libc::c_int> {
    let mut status = 0;
    // SAFETY: the status is there for the call to fill in.
    match unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } {
        reaped if reaped == pid => Ok(status),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

fn trace(request: libc::c_int, pid: libc::pid_t, data: libc::c_int) -> Result<()> {
    // SAFETY: none of the requests made here reads or writes our memory.
    match unsafe {
        libc::ptrace(request, pid, null_mut::<libc::c_void>(), libc::c_long::from(data))
    } {
        0 => Ok(()),
        // It was killed while it stood still; its end is the next thing heard.
        _ if std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH) => Ok(()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// What all threads of a process have used, the ended ones too.
pub fn processor_time(pid: libc::pid_t) -> Option<Duration> {
    // SAFETY: both values are there for the calls to fill in.
    unsafe {
        let mut clock = 0;
        let mut time: libc::timespec = std::mem::zeroed();
        if libc::clock_getcpuclockid(pid, &raw mut clock) != 0
            || libc::clock_gettime(clock, &raw mut time) != 0
        {
            return None;
        }
        Some(Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?))
    }
}
