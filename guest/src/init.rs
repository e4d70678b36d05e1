//! PID 1: brings the system up, starts the agent, reaps what nobody else does.
//!
//! It is a program of its own kind because a process that waits for any child
//! takes the exit statuses away from whoever waits for a certain one: nothing
//! here starts a child but the agent.

mod initramfs;

use crate::{boot, log, power};
use rustix::process::{Pid, WaitOptions};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The agent's own name for itself; /proc/self/exe is still the base's binary
/// when the workspace has lost its own.
const SELF: &str = "/proc/self/exe";

/// The word that makes this binary the agent.
pub const SERVE: &str = "serve";

/// Deaths of the agent within [`RESTART_WINDOW`] that are made good.
const RESTARTS_MAX: usize = 3;

/// See [`RESTARTS_MAX`].
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// What PID 1 does: never returns while there is a machine.
pub fn run() -> ! {
    log::to_kernel();
    let reason = match initramfs::is_root() {
        true => initramfs::switch().unwrap_err(),
        false => init().unwrap_err(),
    };
    log::fatal(format_args!("init gives up, the machine goes off: {reason}"));
    rustix::fs::sync();
    let refusal = power::reboot();
    // The kernel panics when PID 1 ends, and panic=-1 restarts: the same end.
    log::fatal(format_args!("the kernel does not restart: {refusal}"));
    std::process::exit(1)
}

fn init() -> io::Result<Infallible> {
    boot::prepare()?;
    let mut deaths = VecDeque::new();
    loop {
        let agent = start_agent()?;
        let death = reap_until_end_of(&agent)?;
        log::fatal(format_args!("the agent died ({death})"));
        deaths.push_back(Instant::now());
        deaths.retain(|at: &Instant| at.elapsed() < RESTART_WINDOW);
        if deaths.len() > RESTARTS_MAX {
            return Err(io::Error::other("the agent dies again and again"));
        }
    }
}

fn start_agent() -> io::Result<Child> {
    Command::new(SELF).arg0("pyro-agent").arg(SERVE).spawn()
}

fn reap_until_end_of(agent: &Child) -> io::Result<String> {
    let agent = i32::try_from(agent.id()).ok().and_then(Pid::from_raw);
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if Some(pid) == agent => {
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
