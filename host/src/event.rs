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
    /// What a person sees of standard output, who waits for less.
    screen: Option<Redacting>,
}

/// What may be told of an event.
#[derive(Default)]
enum Passed {
    /// Nothing yet.
    #[default]
    Nothing,
    /// This, to all.
    Whole(Event),
    /// These bytes of standard output.
    Apart {
        /// To whoever looks at it on its way.
        looked: Vec<u8>,
        /// To the person.
        shown: Vec<u8>,
    },
}

impl Passed {
    fn of(stream: Stream, bytes: Vec<u8>) -> Self {
        output(stream, bytes).map_or(Self::Nothing, Self::Whole)
    }
}

fn output(stream: Stream, bytes: Vec<u8>) -> Option<Event> {
    (!bytes.is_empty()).then_some(Event::Output { stream, bytes })
}

impl Discreet {
    fn of(&mut self, stream: Stream) -> &mut Redacting {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// What this gives of a stream, and of the screen if that shows it.
    fn each(&mut self, stream: Stream, mut ask: impl FnMut(&mut Redacting) -> Vec<u8>) -> Passed {
        match (stream, &mut self.screen) {
            (Stream::Stdout, Some(screen)) => {
                Passed::Apart { looked: ask(&mut self.stdout), shown: ask(screen) }
            }
            (Stream::Stdout | Stream::Stderr, _) => Passed::of(stream, ask(self.of(stream))),
        }
    }

    /// The event as it may be told.
    fn pass(&mut self, event: Event) -> Passed {
        match event {
            Event::Output { stream, bytes } if self.screen.is_some() => {
                self.each(stream, |redacting| redacting.push(bytes.clone()))
            }
            Event::Output { stream, bytes } => Passed::of(stream, self.of(stream).push(bytes)),
            Event::Progress(text) => Passed::Whole(Event::Progress(self.redactor.string(text))),
            Event::Warning(text) => Passed::Whole(Event::Warning(self.redactor.string(text))),
            event @ (Event::Stage { .. } | Event::ProgramStarted) => Passed::Whole(event),
        }
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
        let discreet = Discreet { redactor: redactor.clone(), stdout, stderr, screen: None };
        Self { discreet: Some(Arc::new(Mutex::new(discreet))), ..self }
    }

    /// The same sink, for a person at a terminal: what is held back, [`Events::hurry`]
    /// shows them. Whoever looks at events on their way does not see it so.
    #[must_use]
    pub fn at_terminal(self) -> Self {
        self.discreet(|discreet| discreet.screen = Some(discreet.redactor.stream()));
        self
    }

    /// Shows the person what is held back: they have waited for it.
    pub async fn hurry(&self) {
        let shown = self.discreet(|discreet| match &mut discreet.screen {
            Some(screen) => Passed::Apart { looked: Vec::new(), shown: screen.finish() },
            None => Passed::Nothing,
        });
        self.tell(shown).await;
    }

    /// Tells what was held back of both streams: no more comes. Whoever looks at
    /// events on their way has seen all of it before anybody is waited for.
    pub async fn settle(&self) {
        let rest = [Stream::Stdout, Stream::Stderr].map(|stream| {
            self.looked(self.discreet(|discreet| discreet.each(stream, Redacting::finish)))
        });
        for event in rest {
            self.send(event).await;
        }
    }

    /// Tells what was held back of a stream: so many bytes that would come now are
    /// gone.
    pub async fn skip(&self, stream: Stream, bytes: u64) {
        let rest = |discreet: &mut Discreet| discreet.each(stream, |all| all.skip(bytes).0);
        self.tell(self.discreet(rest)).await;
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

    /// Sends an event, waiting while too many are pending. Nobody listening is
    /// no failure: cancellation has a channel of its own.
    pub async fn emit(&self, event: Event) {
        self.tell(match &self.discreet {
            Some(_) => self.discreet(|discreet| discreet.pass(event)),
            None => Passed::Whole(event),
        })
        .await;
    }

    async fn tell(&self, passed: Passed) {
        self.send(self.looked(passed)).await;
    }

    /// What is to be sent, once those have seen it who look.
    fn looked(&self, passed: Passed) -> Option<Event> {
        match passed {
            Passed::Nothing => None,
            Passed::Whole(event) => {
                self.look(&event);
                Some(event)
            }
            Passed::Apart { looked, shown } => {
                if let Some(event) = output(Stream::Stdout, looked) {
                    self.look(&event);
                }
                output(Stream::Stdout, shown)
            }
        }
    }

    async fn send(&self, event: Option<Event>) {
        let heard = match (&self.sender, event) {
            (Some(sender), Some(event)) => sender.send(event).await.is_ok(),
            (_, _) => false,
        };
        if !heard {
            // Sending to nobody never waits; who does so in a loop must still
            // come to hear of its cancellation.
            tokio::task::consume_budget().await;
        }
    }

    fn look(&self, event: &Event) {
        if let Some(look) = &self.tap {
            look(event);
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("heard", &self.sender.is_some()).finish_non_exhaustive()
    }
}
