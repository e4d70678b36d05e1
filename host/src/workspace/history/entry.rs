//! One command that was run.

use super::transcript::{Extent, Recorded, Transcript};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Stream;
use crate::store::lock::{Lock, Mode};
use crate::store::record;
use jiff::Timestamp;
use pyro_protocol::kept::ProcessId;
use pyro_protocol::process::{Exit, Outcome};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The record's file name in an entry's directory.
const RECORD: &str = "record.json";

/// How much of a command, and of its arguments together, is written down.
pub(super) const COMMAND_MAX: usize = 16 * 1024;

/// What is written down of a command. Variables' values never are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number in the workspace's history, from 1.
    pub sequence: u64,
    /// The command as one line to read.
    pub command: String,
    /// The program and its arguments; what is not UTF-8 is replaced.
    pub argv: Vec<String>,
    /// Where it ran.
    pub cwd: String,
    /// As whom.
    pub user: String,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// Its id, if it outlives its caller.
    pub process_id: Option<String>,
    /// How it ended, as far as is known.
    pub ending: Ending,
    /// Its standard output.
    pub stdout: Extent,
    /// Its standard error.
    pub stderr: Extent,
    /// How many bytes of each the program wrote, as far as they are recorded, when
    /// what is recorded has another length: without the secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<(u64, u64)>,
}

impl record::Record for Record {
    const VERSION: u32 = 1;
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Ending {
    /// It has not, or whoever waited for it was killed before they could say.
    Open,
    /// The guest said how.
    Ended {
        /// The exit code as shells tell it: 124 after a time-out, 128+N after
        /// signal N.
        exit_code: u8,
        /// The signal that ended it.
        signal: Option<u8>,
        /// Whether its time was over.
        timed_out: bool,
        /// How long it ran, by the guest's clock.
        duration_ms: u64,
    },
    /// Nobody knows how: the guest was lost, or the caller broke off.
    Lost {
        /// The kind of the error that its caller got.
        kind: ErrorKind,
        /// The error itself.
        reason: String,
    },
}

impl Ending {
    /// As the guest told it.
    #[must_use]
    pub fn of(exit: Exit) -> Self {
        let (exit_code, signal, timed_out) = exit_code(exit.outcome);
        Self::Ended { exit_code, signal, timed_out, duration_ms: exit.took_us / 1000 }
    }

    /// As its caller was told.
    #[must_use]
    pub fn lost(error: &Error) -> Self {
        Self::Lost { kind: error.kind(), reason: error.chain() }
    }
}

/// Exit code, signal and whether the time was over, as shells tell them.
#[must_use]
pub fn exit_code(outcome: Outcome) -> (u8, Option<u8>, bool) {
    match outcome {
        Outcome::Exited { code } => (code, None, false),
        Outcome::Signaled { signal } => (128_u8.saturating_add(signal), Some(signal), false),
        Outcome::TimedOut => (124, None, true),
    }
}

/// An entry as a reader finds it.
#[derive(Debug)]
pub struct Found {
    directory: PathBuf,
    /// What is written down.
    pub record: Record,
    /// Whether somebody is recording it now.
    pub is_being_recorded: bool,
}

impl Found {
    /// Reads an entry.
    ///
    /// # Errors
    /// `NotFound`; or when its record is damaged.
    pub(super) fn read(directory: PathBuf, sequence: u64) -> Result<Self> {
        let record: Record = record::read(&directory.join(RECORD))?;
        if record.sequence != sequence {
            let message = format!("the record of command {sequence} is another's");
            return Err(Error::new(ErrorKind::StateCorrupt, message));
        }
        let is_being_recorded = record.ending == Ending::Open && {
            // Shared: those who look are not taken for one who records.
            Lock::try_take_dir(&directory, Mode::Shared)?.is_none()
        };
        Ok(Self { directory, record, is_being_recorded })
    }

    /// What it wrote to one of its streams, as far as it is kept.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn output(&self, stream: Stream) -> Result<Recorded> {
        let extent = match self.record.ending {
            // The file knows more.
            Ending::Open => None,
            Ending::Ended { .. } | Ending::Lost { .. } => Some(self.extent(stream)),
        };
        let path = self.directory.join(file_name(stream));
        Recorded::open(&path, extent)
            .map_err(|error| Error::io(format!("cannot read {}", path.display()), error))
    }

    fn extent(&self, stream: Stream) -> Extent {
        match stream {
            Stream::Stdout => self.record.stdout,
            Stream::Stderr => self.record.stderr,
        }
    }
}

/// Writes a command's entry down as it goes. What cannot be written stops the
/// recording, never the command: [`Recorder::finish`] says so in the end.
#[derive(Debug)]
pub struct Recorder {
    directory: PathBuf,
    record: Record,
    stdout: Transcript,
    stderr: Transcript,
    failure: Option<Error>,
    _lock: Lock,
}

impl Recorder {
    /// Records into an entry that is nobody else's, from the end of what is there.
    pub(super) fn open(directory: PathBuf, record: Record, lock: Lock) -> Result<Self> {
        let transcript = |stream| {
            let path = directory.join(file_name(stream));
            let what = format!("cannot write {}", path.display());
            Transcript::open(path).map_err(|error| Error::io(what, error))
        };
        let (mut stdout, mut stderr) = (transcript(Stream::Stdout)?, transcript(Stream::Stderr)?);
        if record.heard.is_some() {
            // What was recorded since that was written down, nobody counted.
            for (transcript, stream, extent) in [
                (&mut stdout, Stream::Stdout, record.stdout),
                (&mut stderr, Stream::Stderr, record.stderr),
            ] {
                let path = directory.join(file_name(stream));
                transcript.rewind(extent.bytes).map_err(|error| {
                    Error::io(format!("cannot write {}", path.display()), error)
                })?;
            }
        }
        Ok(Self { directory, record, stdout, stderr, failure: None, _lock: lock })
    }

    /// Its number in the workspace's history.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.record.sequence
    }

    /// Whether the command outlives its caller.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.record.process_id.is_some()
    }

    /// How many bytes of a stream have been heard of: where to go on.
    #[must_use]
    pub fn heard(&self, stream: Stream) -> u64 {
        match (stream, self.record.heard) {
            (Stream::Stdout, Some((stdout, _))) => stdout,
            (Stream::Stderr, Some((_, stderr))) => stderr,
            (Stream::Stdout, None) => self.stdout.extent().bytes,
            (Stream::Stderr, None) => self.stderr.extent().bytes,
        }
    }

    /// Whether what has been heard of is not what is recorded.
    #[must_use]
    pub fn counts_apart(&self) -> bool {
        self.record.heard.is_some()
    }

    /// Writes down how many bytes have been heard of, when what is recorded has
    /// another length.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_heard(&mut self, heard: (u64, u64)) -> Result<()> {
        self.record.heard = Some(heard);
        self.record.stdout = self.stdout.extent();
        self.record.stderr = self.stderr.extent();
        self.save()
    }

    /// Adds what the program wrote.
    pub fn push(&mut self, stream: Stream, bytes: &[u8]) {
        self.write(stream, |transcript| transcript.push(bytes));
    }

    /// Notes that the program wrote so many bytes and they are gone.
    pub fn skip(&mut self, stream: Stream, bytes: u64) {
        self.write(stream, |transcript| transcript.skip(bytes));
    }

    fn write(
        &mut self,
        stream: Stream,
        write: impl FnOnce(&mut Transcript) -> std::io::Result<()>,
    ) {
        if self.failure.is_some() {
            return;
        }
        let transcript = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if let Err(error) = write(transcript) {
            let path = self.directory.join(file_name(stream));
            self.failure = Some(Error::io(format!("cannot write {}", path.display()), error));
        }
    }

    /// Notes under which id the command outlives its caller.
    pub(super) fn set_process(&mut self, id: ProcessId) -> Result<()> {
        self.record.process_id = Some(id.to_string());
        self.save()
    }

    /// Writes down how it ended, or that it has not.
    ///
    /// # Errors
    /// The first thing that could not be written.
    pub fn finish(mut self, ending: Ending) -> Result<()> {
        self.record.ending = ending;
        self.record.stdout = self.stdout.extent();
        self.record.stderr = self.stderr.extent();
        let saved = self.save();
        self.failure.map_or(saved, Err)
    }

    /// Leaves nothing: the command never ran.
    pub fn discard(self) {
        // What stays says for itself that it came to nothing.
        drop(crate::store::discard_dir(&self.directory));
    }

    /// Nothing is written of an entry that was dropped meanwhile.
    pub(super) fn save(&self) -> Result<()> {
        match self.directory.symlink_metadata() {
            Ok(_) => record::write_without_sync(&self.directory.join(RECORD), &self.record),
            Err(_) => Ok(()),
        }
    }
}

/// The id of the process that an entry is about.
pub(super) fn process_of(directory: &Path) -> Option<ProcessId> {
    record::read_field(&directory.join(RECORD), "process_id").ok()??.parse().ok()
}

fn file_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}
