//! One error for every layer above the machinery: what kind, what happened,
//! what it was about, what to do next.

use std::error::Error as StdError;
use std::path::Path;

/// What every fallible function of the library returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, for programs to act on. Serialised in snake case as the
/// `kind` of a JSON error.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request itself makes no sense; nothing was touched.
    InvalidInput,
    /// What the request names does not exist.
    NotFound,
    /// What the request names is in use, or in another state.
    Conflict,
    /// The host, the VMM or the guest cannot do this.
    Unsupported,
    /// The environment is known but not built on this host.
    EnvironmentMissing,
    /// A file of the environment is not what its manifest says.
    EnvironmentCorrupt,
    /// A record of pyro's own is damaged.
    StateCorrupt,
    /// The host lacks a program, a device or a permission.
    HostRequirement,
    /// The host has too little memory free.
    OutOfMemory,
    /// The host has too little disk free.
    DiskFull,
    /// The microVM did not come up.
    BootFailed,
    /// The microVM or its supervisor went away.
    GuestLost,
    /// The guest broke the protocol.
    Protocol,
    /// A server cannot be reached, or does not give what it is asked for.
    Network,
    /// What others made is not what it should be, by its digest or its form.
    Untrusted,
    /// The program to run is not in the guest. It never ran.
    ProgramNotFound,
    /// The program to run cannot be executed. It never ran.
    ProgramNotExecutable,
    /// Something took longer than it may.
    TimedOut,
    /// The caller changed its mind.
    Cancelled,
    /// The host's system refused.
    Io,
    /// A defect of pyro itself.
    Internal,
}

impl ErrorKind {
    /// The exit code of the command line: that of a shell where it has one, 2
    /// for a request that makes no sense, else 125, which says that pyro failed
    /// and not the guest's command.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            ErrorKind::ProgramNotExecutable => 126,
            ErrorKind::ProgramNotFound => 127,
            ErrorKind::TimedOut => 124,
            ErrorKind::Cancelled => 130,
            ErrorKind::InvalidInput => 2,
            ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::Unsupported
            | ErrorKind::EnvironmentMissing
            | ErrorKind::EnvironmentCorrupt
            | ErrorKind::StateCorrupt
            | ErrorKind::HostRequirement
            | ErrorKind::OutOfMemory
            | ErrorKind::DiskFull
            | ErrorKind::BootFailed
            | ErrorKind::GuestLost
            | ErrorKind::Protocol
            | ErrorKind::Network
            | ErrorKind::Untrusted
            | ErrorKind::Io
            | ErrorKind::Internal => 125,
        }
    }
}

/// As JSON has it.
impl std::fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use serde::Serialize;
        self.serialize(f)
    }
}

/// An error as every surface shows it.
///
/// `Display` is the message alone; the chain of sources is printed once, at the
/// edge, with [`Error::hint`] after it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error whose message is one sentence that names the thing, without a
    /// capital or a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// Says what to do next; a command to type goes in backquotes.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.set_hint(hint);
        self
    }

    /// The same for one who was handed it.
    pub(crate) fn set_hint(&mut self, hint: impl Into<String>) {
        self.hint = Some(hint.into());
    }

    /// Keeps what caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// An operation on a file of the host that its system refused. A full disk
    /// gets a kind of its own.
    pub fn io(action: impl Into<String>, error: std::io::Error) -> Self {
        let full = matches!(
            error.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
        );
        let kind = if full { ErrorKind::DiskFull } else { ErrorKind::Io };
        let made = Self::new(kind, action).because(error);
        if full {
            made.hint("free some space; `pyro env prune` removes unused images")
        } else {
            made
        }
    }

    /// A file of the caller's that cannot be read.
    pub fn unreadable(path: &Path, error: std::io::Error) -> Self {
        let message = format!("cannot read {}", path.display());
        if error.kind() != std::io::ErrorKind::NotFound {
            return Self::io(message, error);
        }
        Self::new(ErrorKind::NotFound, message)
            .because(error)
            .hint("name what is there; a relative path counts from where `pyro` was started")
    }

    /// What went wrong, for programs.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The sentence, without its causes.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do next, if anybody knows.
    #[must_use]
    pub fn next_step(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The sentence and its causes in one line, outermost first.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut line = self.message.clone();
        let mut source = self.source();
        while let Some(cause) = source {
            line.push_str(": ");
            line.push_str(&cause.to_string());
            source = cause.source();
        }
        line
    }
}

/// As programs get it: the kind, the whole chain, what to do next or null.
impl serde::Serialize for Error {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut object = serializer.serialize_struct("Error", 3)?;
        object.serialize_field("kind", &self.kind)?;
        object.serialize_field("message", &self.chain())?;
        object.serialize_field("hint", &self.hint)?;
        object.end()
    }
}
