//! Why something could not be fetched.

use super::url::{BadUrl, Url};
use crate::error::{Error, ErrorKind};
use hyper::StatusCode;
use std::io;
use std::time::Duration;

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is nowhere that we can go.
    #[error(transparent)]
    Url(#[from] BadUrl),
    /// The host has no certificates, so no server can prove who it is.
    #[error("this host trusts no certificate authority")]
    NoCertificates(#[source] io::Error),
    /// Nobody answers there, or not with a certificate that is trusted.
    #[error("cannot reach {origin}")]
    Unreachable {
        /// The server, or the proxy on the way.
        origin: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It is there and says nothing.
    #[error("{origin} is silent for {} s", after.as_secs())]
    Silent {
        /// The server.
        origin: String,
        /// For how long.
        after: Duration,
    },
    /// It sends, and never comes to an end.
    #[error("{url} is still not there after {} s", after.as_secs())]
    Slow {
        /// What was asked for.
        url: Url,
        /// How long it was waited for.
        after: Duration,
    },
    /// The server does not give it.
    #[error("the server answers {status} for {url}")]
    Refused {
        /// What was asked for.
        url: Url,
        /// The answer.
        status: StatusCode,
    },
    /// It sends us elsewhere, again and again, or to where nobody proves anything.
    #[error("{url} leads elsewhere: {why}")]
    Astray {
        /// What sent us.
        url: Url,
        /// Why we do not go.
        why: &'static str,
    },
    /// There is more than there may be.
    #[error("{url} has more than {} MiB", bytes_max >> 20)]
    TooLarge {
        /// What was asked for.
        url: Url,
        /// How much there may be.
        bytes_max: u64,
    },
    /// It ends before its end.
    #[error("{url} broke off after {bytes} bytes")]
    Broken {
        /// What was asked for.
        url: Url,
        /// What arrived.
        bytes: u64,
        /// What went wrong.
        source: hyper::Error,
    },
    /// It cannot be kept.
    #[error("cannot write what was fetched")]
    Write(#[from] io::Error),
}

impl FetchError {
    /// Whether the same may go well a moment later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Broken { .. } | Self::Silent { .. } | Self::Unreachable { .. } => true,
            Self::Url(_)
            | Self::NoCertificates(_)
            | Self::Slow { .. }
            | Self::Refused { .. }
            | Self::Astray { .. }
            | Self::TooLarge { .. }
            | Self::Write(_) => false,
        }
    }
}

impl From<FetchError> for Error {
    fn from(error: FetchError) -> Self {
        let message = error.to_string();
        match error {
            FetchError::Url(_) => Self::new(ErrorKind::InvalidInput, message)
                .hint("it is `http://` or `https://`, a host, and a path"),
            FetchError::NoCertificates(source) => Self::new(ErrorKind::HostRequirement, message)
                .because(source)
                .hint("`apt-get install ca-certificates`, or set SSL_CERT_FILE"),
            FetchError::Write(source) => Self::io(message, source),
            FetchError::Unreachable { source, .. } => {
                Self::new(ErrorKind::Network, message).because(source)
            }
            FetchError::Broken { source, .. } => {
                Self::new(ErrorKind::Network, message).because(source)
            }
            FetchError::Silent { .. }
            | FetchError::Slow { .. }
            | FetchError::Refused { .. }
            | FetchError::Astray { .. }
            | FetchError::TooLarge { .. } => Self::new(ErrorKind::Network, message),
        }
    }
}
