//! What comes along with a request besides its arguments.

use crate::event::Events;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Standard input for the guest's program.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;

/// What comes along with a request besides its arguments: where to report, what
/// to feed the guest's program, how the caller can still intervene.
///
/// The default is a caller who listens to nothing and never intervenes.
pub struct Context {
    /// Where to report while it runs.
    pub events: Events,
    /// What the guest's program reads; `None` is an empty input.
    pub stdin: Option<Input>,
    /// Cancelled when the caller wants no answer any more. What the request made
    /// is cleaned up all the same.
    pub cancel: CancellationToken,
    /// Numbers of signals for the guest's program. Closed from the start when
    /// the caller will send none.
    pub signals: mpsc::Receiver<u8>,
}

impl Default for Context {
    fn default() -> Self {
        let (_, signals) = mpsc::channel(1);
        Self { events: Events::discard(), stdin: None, cancel: CancellationToken::new(), signals }
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
