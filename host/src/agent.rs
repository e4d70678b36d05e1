//! Calls to the agent in a guest. One connection, one call.

pub mod diff;
pub mod file;
pub mod kept;
pub mod process;
pub(crate) mod transfer;

use crate::deadlines::Deadlines;
use crate::error::{Error, ErrorKind, Result};
use crate::guest_text;
use pyro_protocol::error::MESSAGE_MAX;
use pyro_protocol::handshake::{GENERATION, MAGIC};
use pyro_protocol::{
    AgentError, AgentErrorKind, CALL_PORT, Frame, FrameKind, FrameReader, FrameWriter, Hello, Lost,
    Request, Welcome,
};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How much of an agent's version an error shows.
const VERSION_MAX: usize = 32;

/// The agent of one guest, by its endpoint.
#[derive(Debug)]
pub struct AgentClient {
    directory: File,
    deadlines: Deadlines,
}

/// A greeted connection that has not carried its call yet.
pub struct Connection<S> {
    reader: FrameReader<tokio::io::ReadHalf<S>>,
    writer: FrameWriter<tokio::io::WriteHalf<S>>,
    /// What the agent said.
    pub welcome: Welcome,
    /// The guest's wall clock less the host's.
    pub clock: ClockReading,
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
            .map(|directory| Self { directory, deadlines })
            .map_err(|error| Error::io(format!("cannot open {}", directory.display()), error))
    }

    /// Opens a connection and greets the agent.
    pub async fn connect(&self) -> Result<Connection<UnixStream>> {
        let connecting = async {
            let stream = crate::vsock::connect(self.directory.as_fd(), CALL_PORT).await.map_err(
                |error| {
                    Error::new(ErrorKind::GuestLost, "the guest does not answer").because(error)
                },
            )?;
            Connection::greet(stream).await
        };
        let deadline = self.deadlines.greeting;
        timeout(deadline, connecting).await.unwrap_or_else(|_| Err(silent(deadline)))
    }

    /// Makes a call and waits for its reply.
    pub async fn call<R: Request>(&self, request: R, deadline: Duration) -> Result<R::Reply> {
        let mut connection = self.connect().await?;
        timeout(deadline, connection.call(request)).await.unwrap_or_else(|_| Err(silent(deadline)))
    }
}

fn silent(deadline: Duration) -> Error {
    Error::new(
        ErrorKind::GuestLost,
        format!("the guest did not answer within {} s", deadline.as_secs()),
    )
}

impl<S: AsyncRead + AsyncWrite> Connection<S> {
    /// Greets an agent that was just connected to.
    pub async fn greet(stream: S) -> Result<Self> {
        let (read, write) = tokio::io::split(stream);
        let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
        let sent = now_ns();
        writer.send(FrameKind::Hello, &Hello::ours()).await.map_err(lost)?;
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
        Ok(Self { reader, writer, welcome, clock: ClockReading { ahead_ns, error_ns } })
    }

    /// Sends the connection's call and waits for its reply.
    pub async fn call<R: Request>(&mut self, request: R) -> Result<R::Reply> {
        self.send_call(request).await?;
        reply(self.reader.next().await.map_err(lost)?, FrameKind::Reply)
    }

    /// Refuses what the agent is too old for.
    fn check_generation<R: Request>(&self) -> Result<()> {
        if R::SINCE > self.welcome.generation {
            let version = guest_text::escaped(&self.welcome.agent_version, VERSION_MAX);
            let message = format!("the guest's agent {version} cannot {}", R::NAME);
            return Err(Error::new(ErrorKind::Unsupported, message)
                .hint("build the environment again: `pyro env build NAME`"));
        }
        Ok(())
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
        AgentErrorKind::AlreadyExists | AgentErrorKind::Conflict => ErrorKind::Conflict,
        AgentErrorKind::WrongFileType | AgentErrorKind::OutOfTree | AgentErrorKind::TooLarge => {
            ErrorKind::InvalidInput
        }
    };
    Error::new(kind, guest_text::escaped(&error.message, MESSAGE_MAX))
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
