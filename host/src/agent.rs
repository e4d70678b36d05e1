//! Calls to the agent in a guest. One connection, one call.

mod counted;
pub mod diff;
mod disk;
pub mod file;
pub mod kept;
pub mod process;
pub mod service;
pub mod shell;
pub(crate) mod transfer;
mod tunnel;

use counted::Counted;

use crate::deadlines::Deadlines;
use crate::error::{Error, ErrorKind, Result};
use crate::guest_text;
use crate::vsock::calls::Underway;
use crate::vsock::{Dialled, Endpoint};
use pyro_protocol::error::MESSAGE_MAX;
use pyro_protocol::handshake::{GENERATION, MAGIC};
use pyro_protocol::{
    AgentError, AgentErrorKind, CALL_PORT, Call, Frame, FrameKind, FrameReader, FrameWriter, Hello,
    Lost, Request, Welcome,
};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How much of an agent's version an error shows.
const VERSION_MAX: usize = 32;

/// What leads to an agent.
pub type Channel = Counted<UnixStream>;

/// The agent of one guest, by its endpoint.
#[derive(Debug)]
pub struct AgentClient {
    directory: File,
    deadlines: Deadlines,
    passed: Arc<AtomicU64>,
    /// For the next connection.
    dialled: Mutex<Option<(Dialled, Underway)>>,
}

/// A greeted connection that has not carried its call yet.
pub struct Connection<S> {
    reader: FrameReader<tokio::io::ReadHalf<S>>,
    writer: FrameWriter<tokio::io::WriteHalf<S>>,
    /// What the agent said.
    pub welcome: Welcome,
    /// The guest's wall clock less the host's.
    pub clock: ClockReading,
    /// How long the agent may say nothing, or take nothing, in a transfer.
    silence: Duration,
}

/// How far the guest's wall clock is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// Guest less host, in nanoseconds.
    pub ahead_ns: i64,
    /// How wrong that may be either way, in nanoseconds: half the round trip.
    pub error_ns: i64,
}

impl AgentClient {
    /// The agent whose endpoint lies in a workspace's directory.
    pub fn new(directory: &Path, deadlines: Deadlines) -> Result<Self> {
        File::open(directory)
            .map(|directory| Self {
                directory,
                deadlines,
                passed: Arc::default(),
                dialled: Mutex::default(),
            })
            .map_err(|error| Error::io(format!("cannot open {}", directory.display()), error))
    }

    /// How many bytes have passed, either way.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Opens a connection and greets the agent.
    pub async fn connect(&self) -> Result<Connection<Channel>> {
        self.open(None).await
    }

    /// Opens a connection, greets the agent, and sends the connection's call in
    /// the same breath; its reply is still to be awaited. Only for what every
    /// agent can: nobody has asked this one yet.
    async fn connect_with<R: Request>(&self, request: R) -> Result<Connection<Channel>> {
        const { assert!(R::SINCE.0 == 1, "the agent may be older") };
        let connection = self.open(Some(request.into())).await?;
        connection.require::<R>()?;
        Ok(connection)
    }

    /// Asks for the next connection ahead, so that the guest opens its side of it
    /// while its caller does something else. If that fails, the one who needs it
    /// hears of it. Says whether there is an endpoint at all: that of a guest that
    /// has just gone away is not, or nobody listens on it.
    pub async fn dial_ahead(&self) -> bool {
        let dialled = self.dial().await;
        let gone = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
        let there = !dialled.as_ref().is_err_and(|error| gone.contains(&error.kind()));
        *self.dialled.lock().unwrap_or_else(PoisonError::into_inner) = dialled.ok();
        there
    }

    async fn dial(&self) -> io::Result<(Dialled, Underway)> {
        let underway = Underway::begin(&self.directory)?;
        let dialled = Endpoint::open(&self.directory)?.dial(CALL_PORT).await?;
        Ok((dialled, underway))
    }

    async fn connection(&self) -> Result<Channel> {
        let ahead = self.dialled.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((ahead, underway)) = ahead
            && let Ok(stream) = ahead.answered().await
        {
            return Ok(Counted::new(stream, Arc::clone(&self.passed), underway));
        }
        let (dialled, underway) = self.dial().await.map_err(unanswered)?;
        let stream = dialled.answered().await.map_err(unanswered)?;
        Ok(Counted::new(stream, Arc::clone(&self.passed), underway))
    }

    async fn open(&self, call: Option<Call>) -> Result<Connection<Channel>> {
        let connecting = async {
            let stream = self.connection().await?;
            Connection::open(stream, call, self.deadlines.silence).await
        };
        within(self.deadlines.greeting, connecting).await
    }

    /// Makes a call and waits for its reply.
    pub async fn call<R: Request>(&self, request: R, deadline: Duration) -> Result<R::Reply> {
        self.ask(request, deadline).await.map(|(_, reply)| reply)
    }

    /// Makes a call that more follows after its reply.
    pub(crate) async fn begin<R: Request>(
        &self,
        request: R,
    ) -> Result<(Connection<Channel>, R::Reply)> {
        self.ask(request, self.deadlines.reply).await
    }

    /// One round trip, where every agent knows the call.
    async fn ask<R: Request>(
        &self,
        request: R,
        deadline: Duration,
    ) -> Result<(Connection<Channel>, R::Reply)> {
        let mut connection = self.connect_with(request).await?;
        let reply = within(deadline, connection.reply::<R>()).await?;
        Ok((connection, reply))
    }
}

fn unanswered(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::ResourceBusy {
        return Error::new(ErrorKind::Conflict, "the workspace's time is over, and it ends now")
            .hint("start it again when it is stopped: `pyro workspace start WORKSPACE`");
    }
    Error::new(ErrorKind::GuestLost, "the guest does not answer").because(error)
}

/// What the guest has to do its part of, in time.
async fn within<T>(deadline: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(deadline, work).await.unwrap_or_else(|_| {
        let message = format!("the guest did not answer within {} s", deadline.as_secs());
        Err(Error::new(ErrorKind::GuestLost, message))
    })
}

impl<S: AsyncRead + AsyncWrite> Connection<S> {
    /// Greets an agent that was just connected to.
    pub async fn greet(stream: S) -> Result<Self> {
        Self::open(stream, None, Deadlines::default().silence).await
    }

    async fn open(stream: S, call: Option<Call>, silence: Duration) -> Result<Self> {
        let (read, write) = tokio::io::split(stream);
        let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
        let sent = now_ns();
        match call {
            None => writer.send(FrameKind::Hello, &Hello::ours()).await,
            Some(call) => match writer.queue(FrameKind::Hello, &Hello::ours()) {
                Ok(()) => writer.send(FrameKind::Call, &call).await,
                Err(error) => Err(error),
            },
        }
        .map_err(lost)?;
        let welcome: Welcome = reply(reader.next().await.map_err(lost)?, FrameKind::Welcome)?;
        let received = now_ns();
        if welcome.magic != MAGIC || welcome.generation > GENERATION {
            return Err(Error::new(
                ErrorKind::Protocol,
                "the guest is no pyro agent that this pyro knows",
            ));
        }
        let error_ns = (received - sent).max(0) / 2;
        let ahead_ns = welcome.clock_ns.saturating_sub(sent.saturating_add(error_ns));
        let clock = ClockReading { ahead_ns, error_ns };
        Ok(Self { reader, writer, welcome, clock, silence })
    }

    /// The connection itself, for what follows its call.
    pub(crate) fn into_frames(
        self,
    ) -> (FrameReader<tokio::io::ReadHalf<S>>, FrameWriter<tokio::io::WriteHalf<S>>) {
        (self.reader, self.writer)
    }

    /// Sends the connection's call and waits for its reply.
    pub async fn call<R: Request>(&mut self, request: R, deadline: Duration) -> Result<R::Reply> {
        self.require::<R>()?;
        let call: Call = request.into();
        within(deadline, async {
            self.writer.send(FrameKind::Call, &call).await.map_err(lost)?;
            self.reply::<R>().await
        })
        .await
    }

    /// Refuses what is newer than the agent.
    fn require<R: Request>(&self) -> Result<()> {
        if R::SINCE <= self.welcome.generation {
            return Ok(());
        }
        let version = guest_text::escaped(&self.welcome.agent_version, VERSION_MAX);
        let message = format!("the guest's agent {version} cannot {}", R::NAME);
        Err(Error::new(ErrorKind::Unsupported, message)
            .hint("build the environment again: `pyro env build NAME`"))
    }

    async fn reply<R: Request>(&mut self) -> Result<R::Reply> {
        reply(self.reader.next().await.map_err(lost)?, FrameKind::Reply)
    }
}

/// Decodes what was asked for, or the agent's error.
fn reply<T: serde::de::DeserializeOwned>(frame: Frame, wanted: FrameKind) -> Result<T> {
    if frame.kind == FrameKind::Error {
        let error: AgentError = frame.decode(FrameKind::Error).map_err(lost)?;
        return Err(refused(error));
    }
    frame.decode(wanted).map_err(lost)
}

fn refused(error: AgentError) -> Error {
    let kind = match error.kind {
        AgentErrorKind::InvalidArgument => ErrorKind::InvalidInput,
        AgentErrorKind::WrongState => ErrorKind::Conflict,
        AgentErrorKind::ProgramNotFound => ErrorKind::ProgramNotFound,
        AgentErrorKind::ProgramNotExecutable => ErrorKind::ProgramNotExecutable,
        AgentErrorKind::DirectoryNotFound | AgentErrorKind::UserNotFound => ErrorKind::NotFound,
        AgentErrorKind::OutOfResources | AgentErrorKind::System => ErrorKind::Io,
        AgentErrorKind::Unsupported => ErrorKind::Unsupported,
        AgentErrorKind::Protocol => ErrorKind::Protocol,
        AgentErrorKind::NotFound => ErrorKind::NotFound,
        AgentErrorKind::AlreadyExists
        | AgentErrorKind::Conflict
        | AgentErrorKind::WrongFileType => ErrorKind::Conflict,
        AgentErrorKind::OutOfTree | AgentErrorKind::TooLarge => ErrorKind::InvalidInput,
    };
    let refused = Error::new(kind, guest_text::escaped(&error.message, MESSAGE_MAX));
    match error.kind {
        AgentErrorKind::UserNotFound => {
            refused.hint("`--user` takes a name of the guest's, or numbers such as `1000:1000`")
        }
        AgentErrorKind::OutOfTree => refused
            .hint("name what is below /workspace; a command in the guest reaches all the rest"),
        AgentErrorKind::InvalidArgument
        | AgentErrorKind::WrongState
        | AgentErrorKind::ProgramNotFound
        | AgentErrorKind::ProgramNotExecutable
        | AgentErrorKind::DirectoryNotFound
        | AgentErrorKind::OutOfResources
        | AgentErrorKind::System
        | AgentErrorKind::Unsupported
        | AgentErrorKind::Protocol
        | AgentErrorKind::NotFound
        | AgentErrorKind::AlreadyExists
        | AgentErrorKind::Conflict
        | AgentErrorKind::WrongFileType
        | AgentErrorKind::TooLarge => refused,
    }
}

fn lost(error: Lost) -> Error {
    let kind = match error {
        Lost::Closed | Lost::CutOff | Lost::Io(_) => ErrorKind::GuestLost,
        Lost::Header(_) | Lost::Payload(_) | Lost::OutOfPlace { .. } => ErrorKind::Protocol,
    };
    Error::new(kind, "the connection to the guest was lost").because(error)
}

/// The host's wall clock.
fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
