//! The guest's clocks.

use crate::guest::{Guest, Machine};
use pyro_protocol::power::{ClockShifted, ShiftClock};
use pyro_protocol::{AgentError, AgentErrorKind};
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const NANOS: i64 = 1_000_000_000;

/// Answers `ShiftClock`.
pub(crate) fn shift_for(guest: &Guest, call: ShiftClock) -> Result<ClockShifted, AgentError> {
    guest.require_activated()?;
    let shifted = match &guest.machine {
        Machine::Virtual { .. } => shift(call.offset_ns),
        Machine::InProcess { .. } => Ok(()),
    };
    shifted.map(|()| ClockShifted).map_err(|error| {
        let text = format!("the clock cannot be stepped: {error}");
        AgentError::new(AgentErrorKind::System, text)
    })
}

/// Adds so many nanoseconds to the wall clock in one step.
pub(crate) fn shift(offset_ns: i64) -> io::Result<()> {
    if offset_ns == 0 {
        return Ok(());
    }
    // SAFETY: timex is plain old data; zero is a valid value of each field.
    let mut change: libc::timex = unsafe { std::mem::zeroed() };
    change.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
    // The kernel wants the fraction positive, the seconds carry the sign.
    change.time.tv_sec = offset_ns.div_euclid(NANOS);
    change.time.tv_usec = offset_ns.rem_euclid(NANOS);
    // SAFETY: `change` is a valid timex for the whole call.
    if unsafe { libc::clock_adjtime(libc::CLOCK_REALTIME, &raw mut change) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The wall clock, in nanoseconds since the Unix epoch.
pub(crate) fn wall_ns() -> i64 {
    let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => nanos(since),
        Err(before) => -nanos(before.duration()),
    }
}

/// The time since the kernel started, in microseconds.
pub(crate) fn uptime_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000
        + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}
