//! An operation that plays a guest's program.

use pyro::event::{Event, Stream};
use pyro::operation::{Answer, Context, Effect, Entry, Operation, Page};
use pyro::{Error, ErrorKind, Pyro, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use tokio::io::AsyncReadExt;

/// The table under test.
pub const TABLE: &[Entry] = &[Entry::of::<Fake>()];

/// Names a descriptor to write to once the operation runs.
pub const STARTED: &str = "PYRO_FAKE_STARTED";

/// What `gulp` writes.
pub const GULP: usize = 1 << 20;

/// Play a guest's program.
#[derive(Debug, clap::Args, Deserialize, JsonSchema)]
pub struct Fake {
    /// Which.
    what: What,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema, clap::ValueEnum)]
enum What {
    /// Write to both streams, warn, fail.
    Both,
    /// Copy the input to the output.
    Cat,
    /// Read the input and give up at once.
    Sip,
    /// Write without end.
    Flood,
    /// Write a good deal.
    Gulp,
    /// Tell of signals.
    Wait,
    /// Never start.
    Boot,
    /// Never start, never stop.
    Stuck,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Played {
    exit_code: u8,
}

impl Answer for Played {
    fn render(&self, _: &mut Page) -> fmt::Result {
        Ok(())
    }

    fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

impl Operation for Fake {
    const PATH: &'static [&'static str] = &["fake"];
    const TOOL: Option<&'static str> = None;
    const EFFECT: Effect = Effect::Reads;
    const STREAMS: bool = true;
    type Output = Played;

    async fn run(self, _: &Pyro, context: Context) -> Result<Played> {
        tell_started();
        let cancel = context.cancel.clone();
        if matches!(self.what, What::Stuck) {
            std::future::pending::<()>().await;
        }
        let exit_code = tokio::select! {
            exit_code = play(self.what, context) => exit_code,
            () = cancel.cancelled() => {
                return Err(Error::new(ErrorKind::Cancelled, "the program was stopped"));
            }
        };
        Ok(Played { exit_code })
    }
}

fn tell_started() {
    if let Some(number) = std::env::var_os(STARTED) {
        let number = number.to_string_lossy().parse().unwrap();
        // SAFETY: the test gave this process the descriptor for this.
        let mut started = unsafe { File::from_raw_fd(number) };
        started.write_all(b".").unwrap();
    }
}

async fn play(what: What, mut context: Context) -> u8 {
    let events = context.events.clone();
    let write = async |stream, bytes: &[u8]| {
        events.emit(Event::Output { stream, bytes: bytes.to_vec() }).await;
    };
    if !matches!(what, What::Boot) {
        events.emit(Event::ProgramStarted).await;
    }
    match what {
        What::Both => {
            events.emit(Event::Stage { name: "booting", subject: "nothing".into() }).await;
            events.emit(Event::Warning("this is no guest".into())).await;
            write(Stream::Stdout, b"out\xff\n").await;
            write(Stream::Stderr, b"err\n").await;
            7
        }
        What::Cat => {
            let mut input = context.stdin.take().unwrap();
            let mut buffer = vec![0; 32 * 1024];
            loop {
                match input.read(&mut buffer).await.unwrap() {
                    0 => return 0,
                    count => write(Stream::Stdout, &buffer[..count]).await,
                }
            }
        }
        What::Sip => {
            let mut input = context.stdin.take().unwrap();
            let mut buffer = [0; 1];
            tokio::select! {
                biased;
                _ = input.read(&mut buffer) => 0,
                () = std::future::ready(()) => 7,
            }
        }
        What::Flood => loop {
            write(Stream::Stdout, "y\n".repeat(16 * 1024).as_bytes()).await;
        },
        What::Gulp => {
            write(Stream::Stdout, &vec![b'x'; GULP]).await;
            0
        }
        What::Wait => {
            write(Stream::Stdout, b"ready\n").await;
            while let Some(number) = context.signals.recv().await {
                write(Stream::Stdout, format!("signal {number}\n").as_bytes()).await;
            }
            0
        }
        What::Boot | What::Stuck => std::future::pending().await,
    }
}
