//! When a service that ended is started again.

use pyro_protocol::process::Outcome;
use pyro_protocol::service::Restart;
use std::time::Duration;

/// The pause before the first time in a row; each is twice the one before.
const FIRST: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// One that was up so long has not ended in a row with those before.
const SETTLED: Duration = Duration::from_secs(10);

/// What is to be done about an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: its policy is content.
    Rest,
    /// Nothing: it ended too often in a row.
    GiveUp,
    /// Start it after a pause.
    Again(Duration),
}

/// Counts ends in a row.
#[derive(Debug)]
pub(super) struct Backoff {
    restart: Restart,
    in_a_row: u32,
}

impl Backoff {
    pub(super) fn new(restart: Restart) -> Self {
        Self { restart, in_a_row: 0 }
    }

    /// After an end by itself; `up` is how long it was ready.
    pub(super) fn after(&mut self, outcome: Option<Outcome>, up: Duration) -> Next {
        let did_well = outcome == Some(Outcome::Exited { code: 0 });
        let limit = match self.restart {
            Restart::Never => return Next::Rest,
            Restart::OnFailure { .. } if did_well => return Next::Rest,
            Restart::OnFailure { limit } | Restart::Always { limit } => limit,
        };
        if up >= SETTLED {
            self.in_a_row = 0;
        }
        if self.in_a_row >= limit {
            return Next::GiveUp;
        }
        // Beyond, it is the longest anyway.
        let pause = FIRST.saturating_mul(1 << self.in_a_row.min(16)).min(LONGEST);
        self.in_a_row += 1;
        Next::Again(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Option<Outcome> = Some(Outcome::Exited { code: 1 });
    const WELL: Option<Outcome> = Some(Outcome::Exited { code: 0 });

    #[test]
    fn pauses_double_up_to_a_limit_of_time_and_of_number() {
        let mut backoff = Backoff::new(Restart::OnFailure { limit: 12 });
        let millis: Vec<u128> =
            std::iter::from_fn(|| match backoff.after(FAILED, Duration::ZERO) {
                Next::Again(pause) => Some(pause.as_millis()),
                Next::Rest | Next::GiveUp => None,
            })
            .collect();
        let expected =
            [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000];
        assert_eq!(millis, expected);
        assert_eq!(backoff.after(FAILED, SETTLED), Next::Again(FIRST), "it was well for long");
        let mut never_gives_up = Backoff::new(Restart::Always { limit: u32::MAX });
        for _ in 0..100 {
            assert!(matches!(never_gives_up.after(None, Duration::ZERO), Next::Again(_)));
        }
    }

    #[test]
    fn policies_differ_in_what_they_are_content_with() {
        let after = |restart, outcome| Backoff::new(restart).after(outcome, Duration::ZERO);
        assert_eq!(after(Restart::Never, FAILED), Next::Rest);
        assert_eq!(after(Restart::OnFailure { limit: 3 }, WELL), Next::Rest);
        assert_eq!(after(Restart::OnFailure { limit: 3 }, FAILED), Next::Again(FIRST));
        assert_eq!(after(Restart::OnFailure { limit: 0 }, FAILED), Next::GiveUp);
        let killed = Some(Outcome::Signaled { signal: 9 });
        assert_eq!(after(Restart::OnFailure { limit: 3 }, killed), Next::Again(FIRST));
        assert_eq!(after(Restart::Always { limit: 3 }, WELL), Next::Again(FIRST));
    }
}
