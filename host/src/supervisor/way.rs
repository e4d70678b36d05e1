//! The supervisor's own way to the agent, which nobody can take from it.

use super::trunk::Trunk;
use crate::agent::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::vsock::Endpoint;
use pyro_protocol::CALL_PORT;
use std::fs::File;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// A clock reading worse than this is taken again, on a crowded host.
const CLOCK_ERROR_MAX: Duration = Duration::from_millis(20);

/// How often; then the best one serves.
const CLOCK_READINGS_MAX: usize = 10;

/// How the supervisor reaches the agent.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// Over the channel that it serves the endpoint with.
    Trunk(Trunk),
    /// Over the endpoint that the VMM serves.
    Endpoint(Endpoint),
}

/// Both directions of a connection.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

impl Way {
    /// Over the endpoint in a workspace's directory.
    pub(super) fn endpoint(directory: &File) -> Result<Self> {
        Endpoint::open(directory)
            .map(Self::Endpoint)
            .map_err(|error| Error::io("cannot find the VMM's vsock endpoint", error))
    }

    /// Opens a connection and greets the agent. Needs a deadline around it.
    pub(super) async fn greet(&self) -> Result<Connection<Box<dyn Duplex>>> {
        let stream: io::Result<Box<dyn Duplex>> = match self {
            Self::Trunk(trunk) => match trunk.open(CALL_PORT).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(io::Error::other(error)),
            },
            Self::Endpoint(endpoint) => match endpoint.connect(CALL_PORT).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(error),
            },
        };
        let stream = stream.map_err(|error| {
            Error::new(ErrorKind::GuestLost, "the agent does not answer").because(error)
        })?;
        Connection::greet(stream).await
    }

    /// The same, until it is known well how far the guest's clock is off: on a
    /// crowded host a round trip may take long, and the clock is known no better
    /// than to half of it.
    pub(super) async fn read_clock(&self) -> Result<Connection<Box<dyn Duplex>>> {
        let mut best = self.greet().await?;
        for _ in 1..CLOCK_READINGS_MAX {
            if u128::from(best.clock.error_ns.unsigned_abs()) <= CLOCK_ERROR_MAX.as_nanos() {
                break;
            }
            let again = self.greet().await?;
            if again.clock.error_ns < best.clock.error_ns {
                best = again;
            }
        }
        Ok(best)
    }
}
