//! How long a program runs, and how it ended.

use super::leash::Leash;
use pyro_protocol::process::{Exit, Outcome};
use std::io;
use std::time::Duration;
use tokio::time::timeout;

/// How long the kernel may take to end what got KILL; something stuck in it
/// may take for ever.
pub(super) const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// A program's life, over.
pub(super) struct Life {
    ended: Ended,
    took_us: u64,
}

enum Ended {
    ByItself,
    TimedOut,
}

/// Waits until the program is gone, and sees to it that it is in time.
pub(super) async fn wait(leash: &Leash<'_>, allowed: Option<Duration>) -> io::Result<Life> {
    let ended = match allowed {
        None => leash.gone().await.map(|()| Ended::ByItself)?,
        Some(allowed) => match timeout(allowed, leash.gone()).await {
            Ok(gone) => gone.map(|()| Ended::ByItself)?,
            Err(_) => {
                leash.kill();
                // Stuck or not, the caller gets its answer.
                drop(timeout(KILL_DEADLINE, leash.gone()).await);
                Ended::TimedOut
            }
        },
    };
    let took_us = u64::try_from(leash.age().as_micros()).unwrap_or(u64::MAX);
    Ok(Life { ended, took_us })
}

impl Life {
    /// What to tell the host.
    pub(super) fn exit(self, leash: &Leash<'_>) -> io::Result<Exit> {
        let outcome = match self.ended {
            Ended::TimedOut => Outcome::TimedOut,
            Ended::ByItself => leash.outcome()?,
        };
        Ok(Exit { outcome, took_us: self.took_us })
    }
}
