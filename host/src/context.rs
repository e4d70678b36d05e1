//! What comes along with a request besides its arguments.

mod admitted;
mod discretion;
mod roots;

pub use admitted::Admitted;
pub use discretion::Discretion;
pub use roots::Roots;

use crate::agent::shell::Act;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Events;
use pyro_protocol::shell::TerminalSize;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Standard input for the guest's program.
pub type Input = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// What comes along with a request besides its arguments: where to report, what
/// to feed the guest's program, how the caller can still intervene.
///
/// The default is a caller who listens to nothing and never intervenes.
pub struct Context {
    /// Where to report while it runs.
    pub events: Events,
    /// What the guest's program reads; `None` is an empty input.
    pub stdin: Option<Input>,
    /// The terminal that the guest's program is to have instead of three streams.
    pub terminal: Option<Terminal>,
    /// Cancelled when the caller wants no answer any more. What the request made
    /// is cleaned up all the same.
    pub cancel: CancellationToken,
    /// Numbers of signals for the guest's program. Closed from the start when
    /// the caller will send none.
    pub signals: mpsc::Receiver<u8>,
    /// Whether whoever hears the events takes the bytes of [`Event::Output`] for
    /// the answer itself, as a command line does that was not asked for JSON.
    ///
    /// [`Event::Output`]: crate::Event::Output
    pub takes_output: bool,
    /// Which files of the host the request may name.
    pub roots: Roots,
    /// Who asks, for the workspace's event log.
    pub caller: Caller,
    /// What must not be told, once it is known which workspace it is about.
    pub discretion: Discretion,
}

/// A terminal of the caller's, for the guest's program. What is written there
/// comes as [`Event::Output`] of its standard output.
///
/// [`Event::Output`]: crate::Event::Output
#[derive(Debug)]
pub struct Terminal {
    /// How large it is.
    pub size: TerminalSize,
    /// What is done at it. Closed when nobody sits there any more, which ends the
    /// program.
    pub acts: mpsc::Receiver<Act>,
}

/// Through which surface a request came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Caller {
    /// The command line.
    Cli,
    /// A model, through the MCP server.
    Mcp,
    /// A program that uses the library.
    #[default]
    Sdk,
}

impl Caller {
    /// As the event log has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cli => "cli",
            Self::Mcp => "mcp",
            Self::Sdk => "sdk",
        }
    }
}

impl Context {
    /// What the work comes to, unless the caller changes its mind meanwhile.
    ///
    /// # Errors
    /// Those of the work, and `Cancelled`.
    pub async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        unless_cancelled(&self.cancel, work).await
    }
}

/// The same for whoever has only the token.
pub(crate) async fn unless_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        done = work => done,
        () = cancel.cancelled() => Err(cancelled()),
    }
}

/// That the caller changed its mind.
pub(crate) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "cancelled")
}

impl Default for Context {
    fn default() -> Self {
        let (_, signals) = mpsc::channel(1);
        Self {
            events: Events::discard(),
            stdin: None,
            terminal: None,
            cancel: CancellationToken::new(),
            signals,
            takes_output: false,
            roots: Roots::UNLIMITED,
            caller: Caller::default(),
            discretion: Discretion::default(),
        }
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("stdin", &self.stdin.is_some())
            .field("cancelled", &self.cancel.is_cancelled())
            .finish_non_exhaustive()
    }
}
