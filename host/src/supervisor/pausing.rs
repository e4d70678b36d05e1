//! A guest that stands still, its memory kept, and goes on.
//!
//! Whoever looks is told so by [`Running`], and a call is refused before it is
//! made. So that this is never less than the truth, it is told before the VMM is
//! asked, and taken back when nothing comes of it.

use super::Guest;
use super::keep::{RUNNING_NAME, Running};
use crate::error::{Error, ErrorKind, Result};
use crate::store::record;
use crate::vmm::Metrics;
use jiff::Timestamp;
use pyro_protocol::power::ShiftClock;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;

/// How long a VMM that did not do as it was told gets to take the opposite.
const UNDO_MAX: Duration = Duration::from_secs(1);

/// How long a VMM may take to say what it has counted, while other orders wait.
const METRICS_MAX: Duration = Duration::from_secs(1);

/// How long a guest that goes on may take to have its clock set.
pub(super) const CLOCK_MAX: Duration = Duration::from_secs(5);

/// A clock that is no farther off is left alone: a step is worse than the error.
const CLOCK_SLACK: Duration = Duration::from_millis(10);

/// What others are told of a running guest.
pub(super) struct Told {
    path: PathBuf,
    running: Running,
}

impl Told {
    /// Tells it from now on, in a workspace's directory.
    pub(super) fn new(directory: &Path, running: Running) -> Result<Self> {
        let told = Self { path: directory.join(RUNNING_NAME), running };
        record::write(&told.path, &told.running)?;
        Ok(told)
    }

    /// Since when the guest stands still.
    pub(super) fn paused_at(&self) -> Option<Timestamp> {
        self.running.paused_at
    }

    fn tell(&mut self, paused_at: Option<Timestamp>) -> Result<()> {
        let running = Running { paused_at, ..self.running.clone() };
        // The supervisor does not outlive the host: there is no power failure
        // after which anybody would ask.
        record::write_without_sync(&self.path, &running)?;
        self.running = running;
        Ok(())
    }
}

/// What becomes of a guest's processors.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Pause,
    Resume,
}

impl Turn {
    const fn back(self) -> Self {
        match self {
            Self::Pause => Self::Resume,
            Self::Resume => Self::Pause,
        }
    }
}

impl Guest {
    /// Makes it stand still; waits for none of its calls. Says whether it did
    /// before.
    pub(super) async fn pause(&mut self, told: &mut Told) -> Result<bool> {
        if told.paused_at().is_some() {
            return Ok(true);
        }
        self.turn(told, Turn::Pause, Some(Timestamp::now())).await.map(|()| false)
    }

    /// Lets it go on. Says whether it did before. Its clock is still as late as
    /// it stood still.
    pub(super) async fn resume(&mut self, told: &mut Told) -> Result<bool> {
        if told.paused_at().is_none() {
            return Ok(true);
        }
        self.turn(told, Turn::Resume, None).await.map(|()| false)
    }

    /// Makes it stand still for a moment: nobody is told, calls wait.
    pub(super) async fn stand_still(&mut self) -> Result<()> {
        let Err(error) = self.ask(Turn::Pause).await else { return Ok(()) };
        // It may still do it once it comes to itself; then this too, in order.
        drop(timeout(UNDO_MAX, self.ask(Turn::Resume)).await);
        Err(error)
    }

    /// Lets it go on after that moment, with the right time. One that does not is
    /// told to stand still.
    pub(super) async fn go_on(&mut self, told: &mut Told, still: Duration) -> Result<()> {
        if let Err(error) = self.ask(Turn::Resume).await {
            told.tell(Some(Timestamp::now()))?;
            return Err(error);
        }
        if still > CLOCK_SLACK {
            // A clock that is late is no reason to call the rest in question.
            drop(self.set_clock().await);
        }
        Ok(())
    }

    async fn turn(
        &mut self,
        told: &mut Told,
        turn: Turn,
        paused_at: Option<Timestamp>,
    ) -> Result<()> {
        let before = told.paused_at();
        told.tell(paused_at)?;
        let Err(error) = self.ask(turn).await else { return Ok(()) };
        // It may still do it once it comes to itself; then this too, in order.
        drop(timeout(UNDO_MAX, self.ask(turn.back())).await);
        told.tell(before)?;
        Err(error)
    }

    async fn ask(&mut self, turn: Turn) -> Result<()> {
        let Self { process, endpoint, .. } = self;
        tokio::select! {
            turned = match turn {
                Turn::Pause => process.pause(),
                Turn::Resume => process.resume(),
            } => turned,
            () = endpoint => Err(lost()),
        }
    }

    /// What its VMM has counted.
    pub(super) async fn metrics(&mut self) -> Result<Metrics> {
        let Self { process, endpoint, .. } = self;
        let counted = tokio::select! {
            counted = timeout(METRICS_MAX, process.metrics()) => counted,
            () = endpoint => return Err(lost()),
        };
        counted.unwrap_or_else(|_| {
            let message = format!("the VMM did not say within {} s", METRICS_MAX.as_secs());
            Err(Error::new(ErrorKind::TimedOut, message))
        })
    }

    /// Sets its wall clock by the host's, as when it came up.
    pub(super) async fn set_clock(&mut self) -> Result<()> {
        let way = self.way.clone();
        let setting = async move {
            let mut connection = way.read_clock().await?;
            let ahead_ns = connection.clock.ahead_ns;
            if u128::from(ahead_ns.unsigned_abs()) <= CLOCK_SLACK.as_nanos() {
                return Ok(());
            }
            // The guest may claim to live at the end of all time.
            let shift = ShiftClock { offset_ns: ahead_ns.saturating_neg() };
            connection.call(shift, CLOCK_MAX).await.map(drop)
        };
        tokio::select! {
            set = timeout(CLOCK_MAX, setting) => set.unwrap_or_else(|_| {
                let message = format!("the guest did not answer within {} s", CLOCK_MAX.as_secs());
                Err(Error::new(ErrorKind::TimedOut, message))
            }),
            how = self.run_until_end() => {
                Err(Error::new(ErrorKind::GuestLost, format!("the VMM {how}")))
            }
        }
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::GuestLost, "the guest lost its channel")
}
