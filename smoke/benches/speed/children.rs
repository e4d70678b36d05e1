//! Processes that the benchmark starts, and their end whatever happens.

use crate::Result;
use std::io::{BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What runs now, and the signal that ends it.
static RUNNING: Mutex<Vec<(libc::pid_t, libc::c_int)>> = Mutex::new(Vec::new());

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// A process that ends with this.
#[derive(Debug)]
pub struct Kept {
    child: Child,
    ending: libc::c_int,
}

/// Starts a process that is ended by `ending`: when dropped, on Ctrl-C, and
/// when the benchmark itself is killed. Call it from the main thread.
pub fn start(mut command: Command, ending: libc::c_int) -> Result<Kept> {
    // SAFETY: these calls are async-signal-safe, and the set is initialised
    // before it is used. The mask would be inherited otherwise.
    unsafe {
        command.pre_exec(move || {
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            match libc::prctl(libc::PR_SET_PDEATHSIG, ending, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let child = command.spawn().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    let kept = Kept { child, ending };
    running().push((kept.pid(), ending));
    if interrupted() {
        return Err("interrupted".into());
    }
    Ok(kept)
}

impl Kept {
    pub fn pid(&self) -> libc::pid_t {
        libc::pid_t::try_from(self.child.id()).expect("a process id")
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for its own end, which must be a success.
    pub fn succeed(mut self) -> Result<()> {
        let status = self.child.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("a measured command ended with {status}").into()),
        }
    }

    /// Ends it and waits for that.
    pub fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            send(self.pid(), self.ending);
        }
        drop(self.child.wait());
        running().retain(|(pid, _)| *pid != self.pid());
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs a command to its end, which must be a success, and gives what it wrote.
pub fn output(mut command: Command) -> Result<String> {
    command.stdout(Stdio::piped());
    let mut kept = start(command, libc::SIGTERM)?;
    let mut text = String::new();
    let stdout = kept.child().stdout.take().ok_or("no stdout")?;
    BufReader::new(stdout).read_to_string(&mut text)?;
    kept.succeed()?;
    Ok(text)
}

/// From now on a signal ends what runs; what waits for it then fails, and the
/// benchmark unwinds as after any failure. A second one ends it at once.
pub fn end_on_signals() {
    let signals = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
    // SAFETY: the set is initialised before it is used; threads and processes
    // started later inherit the mask, and [`start`] clears it in children.
    let set = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        set
    };
    std::thread::spawn(move || {
        loop {
            let mut signal = 0;
            // SAFETY: both are there.
            unsafe { libc::sigwait(&raw const set, &raw mut signal) };
            if INTERRUPTED.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
            eprintln!("bench: interrupted, cleaning up");
            running().iter().for_each(|(pid, ending)| send(*pid, *ending));
        }
    });
}

pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

fn running() -> MutexGuard<'static, Vec<(libc::pid_t, libc::c_int)>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send(pid: libc::pid_t, signal: libc::c_int) {
    // SAFETY: kill takes no pointers. The process was not waited for yet, or
    // a moment ago; one that is gone needs no signal.
    unsafe { libc::kill(pid, signal) };
}
