//! What an operation tells while it runs. Every surface renders it its own way.

use crate::secret::Redactor;
use crate::secret::redact::Redacting;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
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

/// What leaves secrets out of the events of one program.
struct Discreet {
    redactor: Redactor,
    stdout: Redacting,
    stderr: Redacting,
}

impl Discreet {
    fn of(&mut self, stream: Stream) -> &mut Redacting {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// The event as it may be told; nothing while that is open.
    fn pass(&mut self, event: Event) -> Option<Event> {
        Some(match event {
            Event::Output { stream, bytes } => {
                let bytes = self.of(stream).push(bytes);
                if bytes.is_empty() {
                    return None;
                }
                Event::Output { stream, bytes }
            }
            Event::Progress(text) => Event::Progress(self.redactor.string(text)),
            Event::Warning(text) => Event::Warning(self.redactor.string(text)),
            event @ (Event::Stage { .. } | Event::ProgramStarted) => event,
        })
    }
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
    discreet: Option<Arc<Mutex<Discreet>>>,
}

type Tap = Arc<dyn Fn(&Event) + Send + Sync>;

impl Events {
    /// A sink and the receiver to render from.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(PENDING_MAX);
        (Self { sender: Some(sender), ..Self::default() }, receiver)
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
        Self { tap: Some(tap), ..self }
    }

    /// The same sink, for what one program says: without secrets, for all who look
    /// and listen. What is held back meanwhile, [`Events::settle`] tells.
    #[must_use]
    pub fn without(self, redactor: &Redactor) -> Self {
        if redactor.is_empty() {
            return self;
        }
        let (stdout, stderr) = (redactor.stream(), redactor.stream());
        let discreet = Discreet { redactor: redactor.clone(), stdout, stderr };
        Self { discreet: Some(Arc::new(Mutex::new(discreet))), ..self }
    }

    /// Tells what was held back of both streams: no more comes.
    pub async fn settle(&self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let bytes = self.discreet(|discreet| discreet.of(stream).finish());
            self.tell_rest(stream, bytes).await;
        }
    }

    /// Tells what was held back of a stream: so many bytes that would come now are
    /// gone.
    pub async fn skip(&self, stream: Stream, bytes: u64) {
        let rest = self.discreet(|discreet| discreet.of(stream).skip(bytes).0);
        self.tell_rest(stream, rest).await;
    }

    /// How many bytes of a stream are held back.
    #[must_use]
    pub fn held(&self, stream: Stream) -> u64 {
        self.discreet(|discreet| discreet.of(stream).held())
    }

    fn discreet<T: Default>(&self, ask: impl FnOnce(&mut Discreet) -> T) -> T {
        match &self.discreet {
            Some(discreet) => ask(&mut discreet.lock().unwrap_or_else(PoisonError::into_inner)),
            None => T::default(),
        }
    }

    async fn tell_rest(&self, stream: Stream, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.tell(Event::Output { stream, bytes }).await;
        }
    }

    /// Sends an event, waiting while too many are pending. Nobody listening is
    /// no failure: cancellation has a channel of its own.
    pub async fn emit(&self, event: Event) {
        let event = match &self.discreet {
            Some(_) => self.discreet(|discreet| discreet.pass(event)),
            None => Some(event),
        };
        match event {
            Some(event) => self.tell(event).await,
            None => tokio::task::consume_budget().await,
        }
    }

    async fn tell(&self, event: Event) {
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
