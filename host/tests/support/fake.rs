//! A table whose operations play a guest's program, a file that is sent to
//! standard output and one of which only a part is; and processes of this
//! executable that run the command line over it.

use libtest_mimic::{Arguments, Failed, Trial};
use pyro::event::{Event, Stream};
use pyro::operation::{Answer, Context, Effect, Entry, Operation, Page, Streams};
use pyro::{Error, ErrorKind, Pyro, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{PipeReader, Write as _};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode};
use tokio::io::AsyncReadExt;

/// The table under test.
pub const TABLE: &[Entry] = &[Entry::of::<Fake>(), Entry::of::<Pour>(), Entry::of::<Excerpt>()];

/// Set for the processes under test.
pub const UNDER_TEST: &str = "PYRO_FAKE_TABLE";

/// Names a descriptor to write a byte to when the operation starts, and another
/// when it is cancelled.
const DIARY: &str = "PYRO_FAKE_DIARY";

/// What is written to the diary when the operation starts.
pub const STARTED: u8 = b's';

/// What is written to the diary when the operation is cancelled.
pub const CANCELLED: u8 = b'c';

/// What `gulp` writes.
pub const GULP: usize = 1 << 20;

/// Runs tests, or the command line when this process is under test itself.
pub fn main(tests: &[(&str, fn())]) -> ExitCode {
    if std::env::var_os(UNDER_TEST).is_some() {
        let words: Vec<OsString> = std::env::args_os().collect();
        return pyro::cli::run(TABLE, &words);
    }
    let trials = tests.iter().map(|(name, test)| {
        let test = *test;
        Trial::test(*name, move || {
            let caught = std::panic::catch_unwind(test);
            caught.map_err(|_| Failed::from("see the panic above"))
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// `pyro` over [`TABLE`].
pub fn pyro() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(UNDER_TEST, "1");
    command
}

/// Starts a process that keeps a diary.
pub fn spawn_with_diary(mut command: Command) -> (Child, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let number = writer.as_raw_fd();
    command.env(DIARY, number.to_string());
    // SAFETY: only calls fcntl, which is safe between fork and exec.
    unsafe {
        command.pre_exec(move || match libc::fcntl(number, libc::F_SETFD, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    (command.spawn().unwrap(), reader)
}

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
    fn render(&self, page: &mut Page) -> fmt::Result {
        writeln!(page, "exit code {}", self.exit_code)
    }

    fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

impl Operation for Fake {
    const PATH: &'static [&'static str] = &["fake"];
    const TOOL: Option<&'static str> = Some("fake");
    const EFFECT: Effect = Effect::Reads;
    const STREAMS: Streams = Streams::Program;
    type Output = Played;

    async fn run(self, _: &Pyro, context: Context) -> Result<Played> {
        note(STARTED);
        let cancel = context.cancel.clone();
        if matches!(self.what, What::Stuck) {
            std::future::pending::<()>().await;
        }
        let exit_code = tokio::select! {
            exit_code = play(self.what, context) => exit_code,
            () = cancel.cancelled() => {
                note(CANCELLED);
                return Err(Error::new(ErrorKind::Cancelled, "the program was stopped"));
            }
        };
        Ok(Played { exit_code })
    }
}

/// Send bytes as an answer.
#[derive(Debug, clap::Args, Deserialize, JsonSchema)]
pub struct Pour {
    /// How many, in KiB.
    kib: u32,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Poured {
    takes_output: bool,
}

impl Answer for Poured {
    fn render(&self, _: &mut Page) -> fmt::Result {
        Ok(())
    }
}

impl Operation for Pour {
    const PATH: &'static [&'static str] = &["pour"];
    const TOOL: Option<&'static str> = None;
    const EFFECT: Effect = Effect::Reads;
    type Output = Poured;

    async fn run(self, _: &Pyro, context: Context) -> Result<Poured> {
        let pouring = async {
            for _ in 0..self.kib {
                let bytes = "y\n".repeat(512).into_bytes();
                context.events.emit(Event::Output { stream: Stream::Stdout, bytes }).await;
            }
        };
        tokio::select! {
            () = pouring => {}
            () = context.cancel.cancelled() => {
                return Err(Error::new(ErrorKind::Cancelled, "nobody takes it"));
            }
        }
        context.events.emit(Event::Warning("a remark".into())).await;
        Ok(Poured { takes_output: context.takes_output })
    }
}

/// Answer in bytes, but not with all of them.
#[derive(Debug, clap::Args, Deserialize, JsonSchema)]
pub struct Excerpt {}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Excerpted {}

impl Answer for Excerpted {
    fn render(&self, _: &mut Page) -> fmt::Result {
        Ok(())
    }

    fn note(&self) -> Option<String> {
        Some("there is more".into())
    }
}

impl Operation for Excerpt {
    const PATH: &'static [&'static str] = &["excerpt"];
    const TOOL: Option<&'static str> = None;
    const EFFECT: Effect = Effect::Reads;
    const STREAMS: Streams = Streams::Answer;
    type Output = Excerpted;

    async fn run(self, _: &Pyro, context: Context) -> Result<Excerpted> {
        context.events.emit(Event::Stage { name: "reading", subject: "a file".into() }).await;
        context.events.emit(Event::Warning("one file is left out".into())).await;
        let bytes = b"a part".to_vec();
        context.events.emit(Event::Output { stream: Stream::Stdout, bytes }).await;
        Ok(Excerpted {})
    }
}

fn note(what: u8) {
    if let Some(number) = std::env::var_os(DIARY) {
        let number = number.to_string_lossy().parse().unwrap();
        // SAFETY: the test gave this process the descriptor for this; it stays
        // open for the next note.
        let diary = ManuallyDrop::new(unsafe { File::from_raw_fd(number) });
        // The test may have stopped reading.
        drop((&*diary).write_all(&[what]));
    }
}

async fn play(what: What, mut context: Context) -> u8 {
    let events = context.events.clone();
    events.emit(Event::Stage { name: "booting", subject: "nothing".into() }).await;
    let write = async |stream, bytes: &[u8]| {
        events.emit(Event::Output { stream, bytes: bytes.to_vec() }).await;
    };
    if !matches!(what, What::Boot) {
        events.emit(Event::ProgramStarted).await;
    }
    match what {
        What::Both => {
            events.emit(Event::Warning("this is no guest".into())).await;
            write(Stream::Stdout, b"out\xff\n").await;
            write(Stream::Stderr, b"err\n").await;
            7
        }
        What::Cat => {
            // As in a guest: no input reads like an empty one.
            let Some(mut input) = context.stdin.take() else { return 0 };
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
