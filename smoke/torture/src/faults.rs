//! What is done to pyro meanwhile.

use crate::ground::Ground;
use crate::tally::Tally;
use fastrand::Rng;
use pyro_smoke::{ends_within, is_vmm};
use rustix::process::{Pid, Signal, kill_process};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// What a fault may still be the reason for: a guest that was killed is started
/// again by the next command, which takes its time.
const AFTERMATH: Duration = Duration::from_secs(20);

/// Between two of them.
const PAUSE_MS: std::ops::Range<u64> = 1000..6000;

/// How long what was killed may take to be gone.
const DYING_MAX: Duration = Duration::from_secs(10);

/// How long the disk is full, or read-only, or a supervisor stands still.
pub const LASTING_MS: std::ops::Range<u64> = 500..4000;

#[derive(Default)]
pub struct Faults {
    /// When the last one was over.
    last: Mutex<Option<Instant>>,
    /// Shared by whoever does something to a workspace; whoever wants nobody to
    /// takes it alone.
    pub gate: RwLock<()>,
}

impl Faults {
    pub fn strike(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether one may be the reason of what failed that began then.
    pub fn disturbed(&self, since: Instant) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last + AFTERMATH > since)
    }
}

/// Waits a while and then does something bad.
pub fn inject(ground: &Ground, faults: &Faults, tally: &Tally, random: &mut Rng) {
    sleep(random, PAUSE_MS);
    match random.u32(..12) {
        0..4 => {
            if kill(ground, random, |line| line.contains("__supervise"), Signal::KILL) {
                faults.strike();
                tally.fault("supervisor killed");
            }
        }
        4..8 => {
            if kill(ground, random, is_vmm, Signal::KILL) {
                faults.strike();
                tally.fault("VMM killed");
            }
        }
        8 => {
            faults.strike();
            if kill(ground, random, |line| line.contains("__supervise"), Signal::STOP) {
                tally.fault("supervisor stood still");
                sleep(random, LASTING_MS);
                kill_all(ground, |line| line.contains("__supervise"), Signal::CONT);
            }
            faults.strike();
        }
        9 => {
            faults.strike();
            if let Some(_ballast) = ground.fill() {
                tally.fault("disk full");
                sleep(random, LASTING_MS);
            }
            faults.strike();
        }
        _ => read_only(ground, faults, tally, random),
    }
}

/// A disk becomes read-only only once nobody has a file on it open to write: all
/// that runs is killed before.
fn read_only(ground: &Ground, faults: &Faults, tally: &Tally, random: &mut Rng) {
    let nobody = faults.gate.write().unwrap_or_else(PoisonError::into_inner);
    faults.strike();
    let all = ground.home.processes();
    kill_all(ground, |line| line.contains("__supervise"), Signal::KILL);
    // A VMM ends with its supervisor.
    let gone = all.into_iter().all(|(pid, _)| ends_within(pid, DYING_MAX));
    let Some(protected) = ground.protect().filter(|_| gone) else { return };
    tally.fault("disk read-only, all killed");
    drop(nobody);
    sleep(random, LASTING_MS);
    drop(protected);
    faults.strike();
}

fn sleep(random: &mut Rng, range: std::ops::Range<u64>) {
    std::thread::sleep(Duration::from_millis(random.u64(range)));
}

fn kill(ground: &Ground, random: &mut Rng, which: fn(&str) -> bool, signal: Signal) -> bool {
    let all = ground.home.processes();
    let some: Vec<_> = all.into_iter().filter(|(_, line)| which(line)).collect();
    random.choice(some).is_some_and(|(pid, _)| send(pid, signal))
}

fn kill_all(ground: &Ground, which: fn(&str) -> bool, signal: Signal) {
    for (pid, line) in ground.home.processes() {
        if which(&line) {
            send(pid, signal);
        }
    }
}

fn send(pid: u32, signal: Signal) -> bool {
    Pid::from_raw(pid.cast_signed()).is_some_and(|pid| kill_process(pid, signal).is_ok())
}
