//! What a guest takes the time to be.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// How far a guest's clock may be off, in seconds.
pub const CLOCK_TOLERANCE: f64 = 0.1;

/// What a guest's shell answers [`clock_error`] with, until its input ends.
pub const ANSWERING: &str = "while read x; do date +%s.%N; done";

const READINGS: usize = 20;

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// The least error of a guest's clock, in seconds, that is consistent with all it
/// answers.
///
/// # Panics
/// When it does not answer with a time.
pub fn clock_error(ask: &mut impl Write, mut answer: impl FnMut() -> String) -> f64 {
    // Each reading lies between the asking and the answer; on a crowded host
    // these are far apart, so several are intersected.
    let (mut low, mut high) = (f64::MIN, f64::MAX);
    for _ in 0..READINGS {
        let asked = now();
        ask.write_all(b"x\n").expect("the guest reads");
        let guest: f64 = answer().parse().expect("a time");
        let answered = now();
        (low, high) = (low.max(guest - answered), high.min(guest - asked));
    }
    low.max(-high).max(0.0)
}
