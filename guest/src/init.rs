//! PID 1: brings the system up, starts the agent, reaps what nobody else does.
//!
//! It is a process of its own because one that waits for any child takes the
//! exit statuses away from whoever waits for a certain one: nothing here starts
//! a child but the agent. And the agent is forked, not executed: under emulation
//! loading the same binary once more costs more than all the mounts, and it can
//! be started again when the workspace has lost its own copy of it.

mod initramfs;

use crate::listen::Doors;
use crate::{boot, log, power};
use rustix::process::{Pid, WaitOptions};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::time::{Duration, Instant};

/// Deaths of the agent within [`RESTART_WINDOW`] that are made good.
const RESTARTS_MAX: usize = 3;

/// See [`RESTARTS_MAX`].
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// Which of its lives an agent lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// The machine has just been started.
    First,
    /// Another agent died; the host may still talk to that.
    Another,
}

/// What the agent does in one of its lives; returns only when it cannot go on.
type Agent = fn(Life, &Doors) -> io::Error;

/// What PID 1 does, with what its child, the agent, does: never returns while
/// there is a machine.
pub fn run(agent: Agent) -> ! {
    log::to_kernel();
    let lived = match initramfs::is_root() {
        true => initramfs::switch(),
        false => init(agent),
    };
    let reason = match lived {
        Ok(never) => match never {},
        Err(reason) => reason,
    };
    log::fatal(format_args!("init gives up, the machine goes off: {reason}"));
    rustix::fs::sync();
    let refusal = power::reboot();
    // The kernel panics when PID 1 ends, and panic=-1 restarts: the same end.
    log::fatal(format_args!("the kernel does not restart: {refusal}"));
    std::process::exit(1)
}

fn init(agent: Agent) -> io::Result<Infallible> {
    rustix::thread::set_name(c"pyro-init")?;
    boot::prepare()?;
    let doors = Doors::open()?;
    let mut deaths = VecDeque::new();
    let mut life = Life::First;
    loop {
        let death = reap_until_end_of(start(agent, life, &doors)?)?;
        life = Life::Another;
        log::fatal(format_args!("the agent died ({death})"));
        deaths.push_back(Instant::now());
        deaths.retain(|at: &Instant| at.elapsed() < RESTART_WINDOW);
        if deaths.len() > RESTARTS_MAX {
            return Err(io::Error::other("the agent dies again and again"));
        }
    }
}

fn start(agent: Agent, life: Life, doors: &Doors) -> io::Result<Pid> {
    // SAFETY: this process has one thread, so the child has all of it.
    match unsafe { libc::fork() } {
        0 => {
            log::fatal(format_args!("the agent cannot go on: {}", agent(life, doors)));
            std::process::exit(1)
        }
        pid => Pid::from_raw(pid.max(0)).ok_or_else(io::Error::last_os_error),
    }
}

fn reap_until_end_of(agent: Pid) -> io::Result<String> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == agent => {
                let cause = match status.terminating_signal() {
                    Some(signal) => format!("signal {signal}"),
                    None => format!("status {}", status.exit_status().unwrap_or_default()),
                };
                return Ok(cause);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
