//! What an operation tells while it runs. Every surface renders it its own way.

use std::fmt;
use std::sync::Arc;
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
    /// The guest's program runs from here on: signals reach it.
    ProgramStarted,
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

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        })
    }
}

/// Events not yet rendered; then the operation waits, and through it the guest.
pub const PENDING_MAX: usize = 8;

/// Where an operation sends its events.
#[derive(Clone, Default)]
pub struct Events {
    sender: Option<mpsc::Sender<Event>>,
    tap: Option<Tap>,
}

type Tap = Arc<dyn Fn(&Event) + Send + Sync>;

impl Events {
    /// A sink and the receiver to render from.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(PENDING_MAX);
        (Self { sender: Some(sender), tap: None }, receiver)
    }

    /// A sink that drops everything.
    #[must_use]
    pub fn discard() -> Self {
        Self::default()
    }

    /// The same sink, with one more who looks at each event on its way.
    #[must_use]
    pub fn tap(self, look: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        let tap: Tap = match self.tap {
            None => Arc::new(look),
            Some(earlier) => Arc::new(move |event| {
                earlier(event);
                look(event);
            }),
        };
        Self { sender: self.sender, tap: Some(tap) }
    }

    /// Sends an event, waiting while too many are pending. Nobody listening is
    /// no failure: cancellation has a channel of its own.
    pub async fn emit(&self, event: Event) {
        if let Some(look) = &self.tap {
            look(&event);
        }
        let heard = match &self.sender {
            Some(sender) => sender.send(event).await.is_ok(),
            None => false,
        };
        if !heard {
            // Sending to nobody never waits; who does so in a loop must still
            // come to hear of its cancellation.
            tokio::task::consume_budget().await;
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("heard", &self.sender.is_some()).finish_non_exhaustive()
    }
}
