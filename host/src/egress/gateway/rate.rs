//! How often something may happen, and how much may pass.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};
use tokio::time;

/// So many at once, and so many a second after that.
#[derive(Debug, Clone)]
pub struct Rate {
    burst: u32,
    per_second: u32,
    left: u32,
    since: Instant,
}

impl Rate {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Self { burst, per_second, left: burst, since: now }
    }

    /// Whether it may happen now; then it has.
    pub fn take(&mut self, now: Instant) -> bool {
        let one = Duration::from_secs(1) / self.per_second.max(1);
        let passed = now.saturating_duration_since(self.since);
        let gained = u32::try_from(passed.as_nanos() / one.as_nanos().max(1)).unwrap_or(u32::MAX);
        if gained >= self.burst - self.left {
            (self.left, self.since) = (self.burst, now);
        } else {
            self.left += gained;
            self.since += one * gained;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

/// How far ahead of its rate a [`Bandwidth`] may be.
const AHEAD: Duration = Duration::from_millis(250);

/// So many bytes a second, in bursts of a quarter of that.
#[derive(Debug, Clone)]
pub struct Bandwidth {
    bytes_per_second: f64,
    /// When all that has passed would have passed at that rate.
    paid: time::Instant,
}

impl Bandwidth {
    /// Nothing has passed yet.
    #[must_use]
    pub fn new(kib_per_second: NonZeroU32, now: time::Instant) -> Self {
        Self { bytes_per_second: f64::from(kib_per_second.get()) * 1024.0, paid: now }
    }

    /// Lets bytes pass; gives how long those that follow are to wait.
    pub fn pass(&mut self, bytes: usize, now: time::Instant) -> Duration {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        self.paid = self.paid.max(now.checked_sub(AHEAD).unwrap_or(now)) + takes;
        self.paid.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_paid_for_by_waiting() {
        let start = time::Instant::now();
        let mut bandwidth = Bandwidth::new(NonZeroU32::new(64).unwrap(), start);
        let mut now = start + Duration::from_secs(10);
        // A quarter of a second was saved, not ten.
        assert_eq!(bandwidth.pass(16 << 10, now), Duration::ZERO);
        let began = now;
        for _ in 0..100 {
            now += bandwidth.pass(32 << 10, now);
        }
        assert_eq!((now - began).as_secs(), 50);
    }

    #[test]
    fn a_burst_and_then_one_after_the_other() {
        let start = Instant::now();
        let mut rate = Rate::new(3, 10, start);
        let at = |ms| start + Duration::from_millis(ms);
        let mut taken = |ms| rate.take(at(ms));
        assert!(taken(0) && taken(0) && taken(0));
        assert!(!taken(0) && !taken(99));
        assert!(taken(100));
        assert!(!taken(150) && taken(200) && !taken(201));
        assert!(taken(5000) && taken(5000) && taken(5000));
        assert!(!taken(5000));
    }
}
