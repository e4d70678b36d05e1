//! What an operation tells while it runs. Every surface renders it its own way.

use tokio::sync::mpsc;

/// Something worth telling before the answer is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The operation entered a new stage, such as `booting`.
    Stage {
        /// One or two words in lower case.
        name: &'static str,
        /// What it concerns, such as an environment's name.
        subject: String,
    },
    /// A step of a long stage, such as one line of a build.
    Progress(String),
    /// Something the caller should know although nothing failed.
    Warning(String),
    /// Raw bytes of the guest's program.
    Output {
        /// Which of its two streams.
        stream: Stream,
        /// The bytes as they came.
        bytes: Vec<u8>,
    },
}

/// The two output streams of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// Events not yet rendered; then the operation waits, and through it the guest.
pub const PENDING_MAX: usize = 8;

/// Where an operation sends its events.
#[derive(Debug, Clone)]
pub struct Events(Option<mpsc::Sender<Event>>);

impl Events {
    /// A sink and the receiver to render from.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(PENDING_MAX);
        (Self(Some(sender)), receiver)
    }

    /// A sink that drops everything.
    #[must_use]
    pub fn discard() -> Self {
        Self(None)
    }

    /// Sends an event, waiting while too many are pending. Nobody listening is
    /// no failure: cancellation has a channel of its own.
    pub async fn emit(&self, event: Event) {
        if let Some(sender) = &self.0 {
            // Fails only when the receiver is gone.
            drop(sender.send(event).await);
        }
    }
}
