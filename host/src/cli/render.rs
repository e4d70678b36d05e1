//! What is shown on the terminal: answers, errors, events.

use super::interrupt::{Cause, Stop};
use super::progress::Progress;
use super::streams::{write_stderr, write_stdout};
use crate::event::{Event, Stream};
use crate::operation::{AnyAnswer, Ink, Streams};
use crate::{Error, ErrorKind};
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use serde_json::json;
use std::ffi::OsString;
use std::io::{self, IsTerminal, stderr, stdout};
use std::process::ExitCode;
use tokio::sync::{mpsc, oneshot};

/// What the shell says of a program whose reader went away.
const KILLED_BY_SIGPIPE: u8 = 128 + 13;

/// How answers and errors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// For a reader.
    Text,
    /// For a program.
    Json,
    /// The id of what was made, for a script; errors are for a reader.
    Id,
}

impl Format {
    /// What words that the parser did not understand seem to want.
    pub(super) fn guessed(words: &[OsString]) -> Self {
        match words.iter().take_while(|word| *word != "--").any(|word| word == "--json") {
            true => Self::Json,
            false => Self::Text,
        }
    }
}

/// What is told while an operation runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Telling {
    /// The bytes that pass through it.
    pass: bool,
    /// What the caller should know although nothing failed.
    warnings: bool,
    /// Each stage, also where nobody looks on: a log of what was done.
    log: bool,
}

impl Telling {
    /// What is told beside what passes through.
    pub(super) fn beside(streams: Streams, pass: bool) -> Self {
        let (warnings, log) = match streams {
            Streams::None => (true, true),
            Streams::Answer => (true, false),
            // A script takes all of stderr for the program's.
            Streams::Program => (stderr().is_terminal(), false),
        };
        Self { pass, warnings, log }
    }
}

/// Writes an answer. What passes through may have been written already.
pub(super) fn answer(answer: &dyn AnyAnswer, format: Format, streams: Streams) -> ExitCode {
    let written = match format {
        Format::Json => match answer.to_json().and_then(|json| serde_json::to_string_pretty(&json))
        {
            Ok(document) => write_stdout(format!("{document}\n").as_bytes()),
            Err(defect) => {
                let error = Error::new(ErrorKind::Internal, "the answer does not fit into JSON");
                return failure(&error.because(defect), format);
            }
        },
        Format::Id => {
            let id = answer.id().map(|id| format!("{id}\n")).unwrap_or_default();
            write_stdout(id.as_bytes())
        }
        Format::Text => match streams {
            Streams::None => write_stdout(answer.to_text(ink(&stdout())).as_bytes()),
            Streams::Answer | Streams::Program => {
                if let Some(note) = answer.note()
                    && Telling::beside(streams, true).warnings
                {
                    say(&format!("pyro: {note}\n"));
                }
                match answer.after_streams() {
                    None => Ok(()),
                    Some((Stream::Stdout, text)) => write_stdout(text.as_bytes()),
                    Some((Stream::Stderr, text)) => write_stderr(text.as_bytes()),
                }
            }
        },
    };
    finish(written, answer.exit_code())
}

/// Writes an error.
pub(super) fn failure(error: &Error, format: Format) -> ExitCode {
    let code = error.kind().exit_code();
    match format {
        Format::Json => finish(write_stdout(error_document(error).as_bytes()), code),
        Format::Text | Format::Id => {
            say(&error_text(error, ink(&stderr())));
            code.into()
        }
    }
}

fn error_text(error: &Error, ink: Ink) -> String {
    let paint = |style: Style, text: &str| match ink {
        Ink::Plain => text.to_owned(),
        Ink::Coloured => format!("{style}{text}{style:#}"),
    };
    let mut text = paint(AnsiColor::Red.on_default().bold(), "pyro:");
    text.push_str(&format!(" {}\n", error.chain()));
    if let Some(next_step) = error.next_step() {
        let hint = paint(AnsiColor::Cyan.on_default(), "hint:");
        text.push_str(&format!("{hint} {next_step}\n"));
    }
    text
}

fn error_document(error: &Error) -> String {
    format!("{:#}\n", json!({ "ok": false, "error": error }))
}

/// Writes what the parser answers by itself: help, the version, or what is wrong
/// with the words.
pub(super) fn parser_verdict(verdict: &clap::Error, format: Format) -> ExitCode {
    let text = verdict.render();
    let code = u8::try_from(verdict.exit_code()).unwrap_or(2);
    match (verdict.use_stderr(), format) {
        (false, _) => finish(write_stdout(inked(&text, &stdout()).as_bytes()), code),
        (true, Format::Text | Format::Id) => {
            say(&inked(&text, &stderr()));
            code.into()
        }
        (true, Format::Json) => {
            let text = text.to_string();
            let what = text.split("\n\n").next().unwrap_or_default();
            let what = what.strip_prefix("error: ").unwrap_or(what).trim();
            let error = Error::new(ErrorKind::InvalidInput, what)
                .hint("`pyro --help`, or `--help` after a command, shows what there is");
            failure(&error, Format::Json)
        }
    }
}

fn inked(text: &clap::builder::StyledStr, stream: &impl anstream::stream::RawStream) -> String {
    match ink(stream) {
        Ink::Plain => text.to_string(),
        Ink::Coloured => text.ansi().to_string(),
    }
}

fn ink(stream: &impl anstream::stream::RawStream) -> Ink {
    match AutoStream::choice(stream) {
        ColorChoice::Never => Ink::Plain,
        ColorChoice::Auto | ColorChoice::AlwaysAnsi | ColorChoice::Always => Ink::Coloured,
    }
}

/// The exit code, once standard output has taken what it should or not.
pub(super) fn finish(written: io::Result<()>, code: u8) -> ExitCode {
    match written {
        Ok(()) => code.into(),
        Err(error) => unwritable(&error),
    }
}

fn unwritable(error: &io::Error) -> ExitCode {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return KILLED_BY_SIGPIPE.into();
    }
    say(&format!("pyro: cannot write the output: {error}\n"));
    ErrorKind::Io.exit_code().into()
}

/// The exit code of an operation that was stopped, after saying so where a
/// program waits for an answer.
pub(super) fn stopped(cause: &Cause, error: &Error, format: Format) -> ExitCode {
    match (cause, format) {
        (Cause::Unwritable(error), _) => unwritable(error),
        (Cause::Signal(signal), Format::Text | Format::Id) => by_signal(*signal),
        (Cause::Signal(signal), Format::Json) => {
            // Who stopped us need not read on.
            drop(write_stdout(error_document(error).as_bytes()));
            by_signal(*signal)
        }
    }
}

/// As a shell tells that a signal ended a program.
pub(super) fn by_signal(signal: rustix::process::Signal) -> ExitCode {
    u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX).into()
}

/// Says something on standard error, for whoever may be listening.
fn say(text: &str) {
    drop(write_stderr(text.as_bytes()));
}

/// Shows events in a thread of its own, so that a reader who does not read
/// blocks neither signals nor the guest's clock. The receiver returned hears
/// when everything is shown.
pub(super) fn show_events(
    mut events: mpsc::Receiver<Event>,
    telling: Telling,
    stop: Stop,
) -> io::Result<oneshot::Receiver<()>> {
    let (done, shown) = oneshot::channel();
    std::thread::Builder::new().name("events".into()).spawn(move || {
        let mut progress = Progress::new(telling.log);
        while let Some(event) = events.blocking_recv() {
            if let Err(error) = show(event, &mut progress, telling) {
                stop.because(Cause::Unwritable(error));
                break;
            }
        }
        progress.clear();
        drop(done);
    })?;
    Ok(shown)
}

fn show(event: Event, progress: &mut Progress, telling: Telling) -> io::Result<()> {
    match event {
        Event::Stage { name, subject } => progress.enter(format!("{name} {subject}")),
        Event::Progress(step) => progress.step(&step),
        Event::Warning(warning) if telling.warnings => {
            progress.aside(|| say(&format!("pyro: warning: {warning}\n")));
        }
        Event::ProgramStarted if telling.pass => progress.clear(),
        Event::Output { stream, bytes } if telling.pass => {
            progress.clear();
            match stream {
                Stream::Stdout => write_stdout(&bytes)?,
                Stream::Stderr => write_stderr(&bytes)?,
            }
        }
        Event::Warning(_) | Event::ProgramStarted | Event::Output { .. } => {}
    }
    Ok(())
}
