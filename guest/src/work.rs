//! Calls that read and write files, on threads that may block: the agent itself
//! never waits for a disk.

use crate::server::Connection;
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::transfer::{CutOff, Incoming, NoPiece, Outgoing, incoming, outgoing};
use pyro_protocol::{AgentError, AgentErrorKind, FrameKind, FrameReader, Lost};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

/// Calls that work on files at the same time; more wait for their turn. Each may
/// hold some MiB of names or of a file, and the agent has 32 MiB in all.
const AT_ONCE: usize = 8;

/// The agent's threads that may block: those of these calls, whose hosts may make
/// them wait, and as many for all else, which never waits for a host.
pub const THREADS: usize = 2 * AT_ONCE;

static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// Does something on a thread, when it is its turn.
async fn in_turn<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let turn = TURNS.acquire().await;
    spawn_blocking(move || {
        let done = job();
        // Nobody closes it; were it so, there would be no turns to wait for.
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
        if self.0.load(Ordering::Relaxed) { Err(Stop::CutOff) } else { Ok(()) }
    }

    fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does the work, unless the caller goes away meanwhile.
pub(crate) async fn run<R: Fetch, W: Carry, T>(
    connection: &mut Connection<R, W>,
    job: impl FnOnce(&Cancel) -> Result<T, Stop> + Send + 'static,
) -> Result<Result<T, AgentError>, Lost>
where
    T: Send + 'static,
{
    let cancel = Cancel::default();
    let seen = cancel.clone();
    let mut thread = in_turn(move || job(&seen)).await;
    tokio::select! {
        biased;
        done = &mut thread => outcome(done),
        lost = silence(&mut connection.reader) => {
            cancel.cancel();
            // Its answer has no reader.
            drop(thread.await);
            Err(lost)
        }
    }
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
    job: impl FnOnce(&mut Outgoing) -> Result<T, Stop> + Send + 'static,
) -> Result<(), Lost>
where
    T: Serialize + Send + 'static,
{
    let (mut outgoing, mut outlet) = outgoing();
    let thread = in_turn(move || {
        let end = job(&mut outgoing)?;
        outgoing.flush()?;
        Ok(end)
    })
    .await;
    let forwarded = tokio::select! {
        biased;
        forwarded = outlet.forward(&mut connection.writer) => forwarded,
        lost = silence(&mut connection.reader) => Err(lost),
    };
    drop(outlet);
    let done = thread.await;
    forwarded?;
    match outcome(done)? {
        Ok(end) => connection.writer.send(FrameKind::DataEnd, &end).await,
        Err(error) => connection.writer.send(FrameKind::Error, &error).await,
    }
}

/// Gives the work what the host sends up to `DataEnd`.
pub(crate) async fn receive<R: Fetch, W: Carry, T>(
    connection: &mut Connection<R, W>,
    job: impl FnOnce(Incoming) -> Result<T, Stop> + Send + 'static,
) -> Result<Result<T, AgentError>, Lost>
where
    T: Send + 'static,
{
    let (incoming, inlet) = incoming();
    let mut thread = in_turn(move || job(incoming)).await;
    let arrived = tokio::select! {
        // What it could not do it says at once, however much is still to come.
        done = &mut thread => return outcome(done),
        arrived = inlet.forward(&mut connection.reader) => arrived,
    };
    let done = thread.await;
    match arrived? {
        Some(frame) if frame.kind != FrameKind::DataEnd => {
            Err(Lost::OutOfPlace { got: frame.kind, wanted: "Data or DataEnd" })
        }
        Some(_) | None => outcome(done),
    }
}

fn outcome<T>(done: Result<Result<T, Stop>, JoinError>) -> Result<Result<T, AgentError>, Lost> {
    match done {
        Ok(Ok(value)) => Ok(Ok(value)),
        Ok(Err(Stop::Refused(error))) => Ok(Err(error)),
        Ok(Err(Stop::CutOff)) => Err(Lost::CutOff),
        Err(_) => Ok(Err(AgentError::new(AgentErrorKind::System, "the agent failed at it"))),
    }
}

/// Returns when the host, which has nothing more to say, closes or speaks.
async fn silence<R: Fetch>(reader: &mut FrameReader<R>) -> Lost {
    match reader.next().await {
        Ok(frame) => Lost::OutOfPlace { got: frame.kind, wanted: "nothing" },
        Err(lost) => lost,
    }
}
