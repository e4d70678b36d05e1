//! How often something may happen.

use std::time::{Duration, Instant};

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

#[cfg(test)]
mod tests {
    use super::*;

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
