//! Calls that read and write files, on threads that may block: the agent itself
//! never waits for a disk.

#[cfg(test)]
mod tests;

use crate::server::{Connection, while_awaited};
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::transfer::{
    CutOff, Incoming, Inlet, NoPiece, Outgoing, Outlet, Taken, incoming, outgoing,
};
use pyro_protocol::{AgentError, AgentErrorKind, FrameKind, FrameReader, FrameWriter, Lost};
use rustix::io::Errno;
use serde::Serialize;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::timeout;

/// Calls that work on files at the same time; more wait for their turn. Each may
/// hold some MiB of names or of a file, and the agent has 32 MiB in all.
const AT_ONCE: usize = 8;

/// Of diffs and patches. Each may take about ten megabytes.
const BULK_AT_ONCE: usize = 2;

/// Frames that a transfer out hands over at once, of 32 KiB each, three times as
/// many being in memory: where there is room for large batches, and else.
const BATCH: usize = 32;
const SMALL_BATCH: usize = 4;

/// Transfers of files for which there is: 6 MiB of the agent's 32. Diffs have
/// taken theirs.
const LARGE_BATCHES: usize = 2;

/// The agent's threads that may block: those of these calls, whose hosts may make
/// them wait, and as many for all else, which never waits for a host.
pub const THREADS: usize = 2 * AT_ONCE;

/// How long a host may neither take nor give a byte of a transfer while others
/// wait for a turn.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of calls that work on files.
static FILES: LazyLock<Turns> =
    LazyLock::new(|| Turns { large_batches: LARGE_BATCHES, ..Turns::new(AT_ONCE, PATIENCE) });

/// Of diffs and patches.
pub(crate) static BULK: LazyLock<Turns> = LazyLock::new(|| Turns::new(BULK_AT_ONCE, PATIENCE));

/// How many may work at the same time.
pub(crate) struct Turns {
    at_once: usize,
    places: Semaphore,
    /// How many of them may have large batches.
    large_batches: usize,
    /// How many wait for a place.
    waiting: watch::Sender<usize>,
    patience: Duration,
}

/// The right to work, until it is dropped. It goes along to the thread that does
/// the work: one whose caller has gone still takes memory until it notices.
pub(crate) struct Turn {
    /// Nobody closes the semaphore; were it so, there would be no turns to wait for.
    _place: Option<SemaphorePermit<'static>>,
}

/// Counts one that waits.
struct Waiter<'turns>(&'turns watch::Sender<usize>);

impl<'turns> Waiter<'turns> {
    fn new(waiting: &'turns watch::Sender<usize>) -> Self {
        waiting.send_modify(|count| *count += 1);
        Self(waiting)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Turns {
    fn new(at_once: usize, patience: Duration) -> Self {
        let (places, waiting) = (Semaphore::new(at_once), watch::Sender::new(0));
        Self { at_once, places, large_batches: 0, waiting, patience }
    }

    /// Waits for a turn.
    pub(crate) async fn take(&'static self) -> Turn {
        if let Ok(place) = self.places.try_acquire() {
            return Turn { _place: Some(place) };
        }
        let _waiter = Waiter::new(&self.waiting);
        Turn { _place: self.places.acquire().await.ok() }
    }

    /// For one more transfer out, whose turn is taken.
    fn batch(&self) -> usize {
        let working = self.at_once.saturating_sub(self.places.available_permits());
        if working <= self.large_batches { BATCH } else { SMALL_BATCH }
    }

    /// Waits for the host on behalf of one that has a turn: as long as it takes,
    /// but not in others' way.
    pub(crate) async fn patiently<T>(
        &self,
        transfer: impl Future<Output = Result<T, Lost>>,
    ) -> Result<T, Lost> {
        let mut transfer = pin!(transfer);
        if let Ok(done) = timeout(self.patience, &mut transfer).await {
            return done;
        }
        let mut waiting = self.waiting.subscribe();
        tokio::select! {
            biased;
            done = transfer => done,
            // The sender lives as long as `self`.
            _ = waiting.wait_for(|waiting| *waiting > 0) => {
                Err(Lost::Io(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// Does the work, unless the caller goes away before it is done.
    pub(crate) async fn run<R: Fetch, W: Carry, T>(
        &'static self,
        connection: &mut Connection<R, W>,
        job: impl FnOnce(&Cancel) -> Result<T, Stop> + Send + 'static,
    ) -> Result<Result<T, AgentError>, Lost>
    where
        T: Send + 'static,
    {
        let turn = while_awaited(&mut connection.reader, self.take()).await?;
        let caller = Caller::default();
        let mut thread = start(turn, &caller, job);
        match while_awaited(&mut connection.reader, &mut thread).await {
            Ok(done) => outcome(done),
            Err(lost) => {
                drop(caller);
                // Its answer has no reader.
                drop(thread.await);
                Err(lost)
            }
        }
    }

    /// See [`send`].
    async fn send<R: Fetch, W: Carry, T>(
        &'static self,
        connection: &mut Connection<R, W>,
        job: impl FnOnce(&mut Outgoing, &Cancel) -> Result<T, Stop> + Send + 'static,
    ) -> Result<(), Lost>
    where
        T: Serialize + Send + 'static,
    {
        let turn = while_awaited(&mut connection.reader, self.take()).await?;
        let (mut outgoing, mut outlet) = outgoing(self.batch());
        let caller = Caller::default();
        let thread = start(turn, &caller, move |cancel| {
            let end = job(&mut outgoing, cancel)?;
            outgoing.flush()?;
            Ok(end)
        });
        let Connection { reader, writer, .. } = connection;
        let forwarding = self.forward(&mut outlet, writer);
        let forwarded = while_awaited(reader, forwarding).await.flatten();
        drop(outlet);
        if forwarded.is_err() {
            drop(caller);
        }
        let done = thread.await;
        forwarded?;
        match outcome(done)? {
            Ok(end) => connection.writer.send(FrameKind::DataEnd, &end).await,
            Err(error) => connection.writer.send(FrameKind::Error, &error).await,
        }
    }

    async fn forward<W: Carry>(
        &self,
        outlet: &mut Outlet,
        writer: &mut FrameWriter<W>,
    ) -> Result<(), Lost> {
        while let Some(frame) = outlet.next().await {
            self.patiently(writer.send_buffer(FrameKind::Data, frame)).await?;
        }
        Ok(())
    }

    /// See [`receive`]. Who waits for a turn leaves unread what the host sends
    /// meanwhile, and so does not hear of its going; the work hears of it first.
    async fn receive<R: Fetch, W: Carry, T>(
        &'static self,
        connection: &mut Connection<R, W>,
        job: impl FnOnce(Incoming, &Cancel) -> Result<T, Stop> + Send + 'static,
    ) -> Result<Result<T, AgentError>, Lost>
    where
        T: Send + 'static,
    {
        let turn = self.take().await;
        let (incoming, inlet) = incoming();
        let caller = Caller::default();
        let mut thread = start(turn, &caller, move |cancel| job(incoming, cancel));
        let arrived = tokio::select! {
            // What it could not do it says at once, however much is still to come.
            done = &mut thread => return outcome(done),
            arrived = self.take_in(inlet, &mut connection.reader) => arrived,
        };
        let lost = match arrived {
            Ok(Arrived::SomeUnread) => return outcome(thread.await),
            Ok(Arrived::All) => match while_awaited(&mut connection.reader, &mut thread).await {
                Ok(done) => return outcome(done),
                Err(lost) => lost,
            },
            Err(lost) => lost,
        };
        drop(caller);
        drop(thread.await);
        Err(lost)
    }

    /// Hands over what arrives, to the end or until the work wants no more.
    async fn take_in<R: Fetch>(
        &self,
        inlet: Inlet,
        reader: &mut FrameReader<R>,
    ) -> Result<Arrived, Lost> {
        loop {
            let frame = self.patiently(reader.next()).await?;
            match inlet.take(frame).await {
                Taken::More => {}
                Taken::ByNobody => return Ok(Arrived::SomeUnread),
                Taken::Last(frame) if frame.kind == FrameKind::DataEnd => return Ok(Arrived::All),
                Taken::Last(frame) => {
                    return Err(Lost::OutOfPlace { got: frame.kind, wanted: "Data or DataEnd" });
                }
            }
        }
    }
}

/// How much of a transfer to here has arrived.
enum Arrived {
    All,
    /// The work wants no more.
    SomeUnread,
}

/// Does something on a thread, if anybody still waits for it then.
fn start<T: Send + 'static>(
    turn: Turn,
    caller: &Caller,
    job: impl FnOnce(&Cancel) -> Result<T, Stop> + Send + 'static,
) -> JoinHandle<Result<T, Stop>> {
    let cancel = caller.cancel();
    spawn_blocking(move || {
        let done = cancel.check().and_then(|()| job(&cancel));
        drop(turn);
        done
    })
}

/// Why a call's work ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It cannot be done.
    Refused(AgentError),
    /// Nobody waits for it any more.
    CutOff,
}

impl From<AgentError> for Stop {
    fn from(error: AgentError) -> Self {
        Self::Refused(error)
    }
}

impl From<CutOff> for Stop {
    fn from(CutOff: CutOff) -> Self {
        Self::CutOff
    }
}

impl From<NoPiece> for Stop {
    fn from(error: NoPiece) -> Self {
        match error {
            NoPiece::CutOff(CutOff) => Self::CutOff,
            NoPiece::Bad(bad) => AgentError::new(AgentErrorKind::Protocol, bad.to_string()).into(),
        }
    }
}

/// What tells a thread that its caller has gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// To be asked wherever work goes on for long.
    pub(crate) fn check(&self) -> Result<(), Stop> {
        if self.is_cancelled() { Err(Stop::CutOff) } else { Ok(()) }
    }

    /// The same, where only the system's errors are known.
    pub(crate) fn check_errno(&self) -> Result<(), Errno> {
        if self.is_cancelled() { Err(Errno::CANCELED) } else { Ok(()) }
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// One that waits for work; dropping it cancels the work.
#[derive(Debug, Default)]
pub(crate) struct Caller(Cancel);

impl Caller {
    /// For the thread that does the work.
    pub(crate) fn cancel(&self) -> Cancel {
        self.0.clone()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Does the work on files, unless the caller goes away before it is done.
pub(crate) async fn run<R: Fetch, W: Carry, T>(
    connection: &mut Connection<R, W>,
    job: impl FnOnce(&Cancel) -> Result<T, Stop> + Send + 'static,
) -> Result<Result<T, AgentError>, Lost>
where
    T: Send + 'static,
{
    FILES.run(connection, job).await
}

/// Does the work and replies.
pub(crate) async fn answer<R: Fetch, W: Carry, T>(
    connection: &mut Connection<R, W>,
    job: impl FnOnce(&Cancel) -> Result<T, Stop> + Send + 'static,
) -> Result<(), Lost>
where
    T: Serialize + Send + 'static,
{
    let done = run(connection, job).await?;
    connection.reply(done).await
}

/// Sends what the work puts out, and its result as the end of the transfer.
pub(crate) async fn send<R: Fetch, W: Carry, T>(
    connection: &mut Connection<R, W>,
    job: impl FnOnce(&mut Outgoing, &Cancel) -> Result<T, Stop> + Send + 'static,
) -> Result<(), Lost>
where
    T: Serialize + Send + 'static,
{
    FILES.send(connection, job).await
}

/// Gives the work what the host sends up to `DataEnd`.
pub(crate) async fn receive<R: Fetch, W: Carry, T>(
    connection: &mut Connection<R, W>,
    job: impl FnOnce(Incoming, &Cancel) -> Result<T, Stop> + Send + 'static,
) -> Result<Result<T, AgentError>, Lost>
where
    T: Send + 'static,
{
    FILES.receive(connection, job).await
}

fn outcome<T>(done: Result<Result<T, Stop>, JoinError>) -> Result<Result<T, AgentError>, Lost> {
    match done {
        Ok(Ok(value)) => Ok(Ok(value)),
        Ok(Err(Stop::Refused(error))) => Ok(Err(error)),
        Ok(Err(Stop::CutOff)) => Err(Lost::CutOff),
        Err(_) => Ok(Err(AgentError::new(AgentErrorKind::System, "the agent failed at it"))),
    }
}
