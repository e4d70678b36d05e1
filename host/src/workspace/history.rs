//! What was run in a workspace, and what it wrote.
//!
//! ```text
//! history/
//!   <n>/record.json     what, when, how it ended     locked while it is recorded
//!   <n>/stdout, stderr  beginning and end of each    written while it runs
//!   process/<id>        which entry a kept process has
//! ```
//!
//! An entry's number is its directory's name: making the directory is taking the
//! number, so no two commands ever have the same and none is lost. A caller that
//! is killed leaves an entry that is open and that nobody records. Reading
//! changes nothing, and a damaged entry is in nobody else's way.

mod entry;
mod quote;
mod transcript;

pub use entry::{Ending, Found, Record, Recorder, exit_code};
pub use quote::quoted;
pub use transcript::{Ends, Extent, HEAD_MAX, Recorded, TAIL_MAX};

use crate::error::{Error, ErrorKind, Result};
use crate::store::lock::{Lock, Mode};
use crate::store::{discard_dir, disk_usage, subdirectory, write_atomically};
use entry::COMMAND_MAX;
use jiff::Timestamp;
use pyro_protocol::kept::ProcessId;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The directory's name in a workspace's.
const NAME: &str = "history";

/// Where it is told which entry a kept process has.
const PROCESSES: &str = "process";

/// How many commands are remembered; then the oldest is dropped. More than a
/// session of days, and few enough to list within a millisecond.
pub const ENTRIES_MAX: usize = 1000;

/// How much disk their output may take together; then the oldest is dropped.
pub const BYTES_MAX: u64 = 512 << 20;

/// Bounds are looked after once in so many commands: sizing up a thousand
/// entries takes longer than all else about a command.
const SWEEP_EVERY: u64 = 16;

/// How often another may take the number that we wanted before something must
/// be wrong.
const ATTEMPTS_MAX: u64 = 10_000;

/// A workspace's history.
#[derive(Debug, Clone)]
pub struct History {
    directory: PathBuf,
}

/// What is to be run, for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// As one line to read.
    pub line: String,
    /// The program and its arguments.
    pub argv: Vec<Vec<u8>>,
    /// Where it runs.
    pub cwd: String,
    /// As whom.
    pub user: String,
}

/// Which entries are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Only those with a smaller number.
    pub before: Option<u64>,
    /// Only those with a larger number.
    pub after: Option<u64>,
    /// At most so many: the newest, or with `after` alone the oldest.
    pub limit: usize,
}

impl History {
    /// The history in a workspace's directory.
    #[must_use]
    pub fn within(workspace: &Path) -> Self {
        Self { directory: workspace.join(NAME) }
    }

    /// Takes the next number and begins its entry.
    ///
    /// # Errors
    /// When the host's system refuses.
    pub fn begin(&self, command: Command) -> Result<Recorder> {
        subdirectory(&self.directory)?;
        let newest = self.sequences()?.into_iter().max().unwrap_or(0);
        let (sequence, directory, lock) = self.take_number(newest.saturating_add(1))?;
        if sequence.is_multiple_of(SWEEP_EVERY) {
            self.sweep();
        }
        let record = Record {
            sequence,
            command: cut(command.line),
            argv: shown(&command.argv),
            cwd: command.cwd,
            user: command.user,
            started_at: Timestamp::now(),
            process_id: None,
            ending: Ending::Open,
            stdout: Extent::default(),
            stderr: Extent::default(),
            heard: None,
        };
        let recorder = Recorder::open(directory.clone(), record, lock);
        let begun = recorder.and_then(|recorder| recorder.save().map(|()| recorder));
        begun.inspect_err(|_| drop(discard_dir(&directory)))
    }

    /// Making the directory is taking the number.
    fn take_number(&self, first: u64) -> Result<(u64, PathBuf, Lock)> {
        for sequence in first..first.saturating_add(ATTEMPTS_MAX) {
            let directory = self.entry_dir(sequence);
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => {
                    let message = format!("cannot make {}", directory.display());
                    return Err(Error::io(message, error));
                }
            }
            // Somebody who looks at it this moment is gone the next.
            if let Some(lock) = Lock::take_dir(&directory, Mode::Exclusive, LOOK_MAX)? {
                return Ok((sequence, directory, lock));
            }
        }
        let message = format!("no number is free in {}", self.directory.display());
        Err(Error::new(ErrorKind::StateCorrupt, message))
    }

    /// Notes that the command of an entry goes on as a kept process.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn name_process(&self, recorder: &mut Recorder, id: ProcessId) -> Result<()> {
        recorder.set_process(id)?;
        subdirectory(&self.directory.join(PROCESSES))?;
        write_atomically(&self.process_file(id), recorder.sequence().to_string().as_bytes())
    }

    /// The number of the entry of a kept process.
    #[must_use]
    pub fn of_process(&self, id: ProcessId) -> Option<u64> {
        let number = fs::read(self.process_file(id)).ok()?;
        std::str::from_utf8(&number).ok().and_then(parse_number)
    }

    /// Goes on recording an entry that is open and that nobody records; `None`
    /// if it is not so.
    ///
    /// # Errors
    /// When it is damaged or the host's system refuses.
    pub fn resume(&self, sequence: u64) -> Result<Option<Recorder>> {
        let directory = self.entry_dir(sequence);
        let Some(lock) = Lock::try_take_dir(&directory, Mode::Exclusive)? else { return Ok(None) };
        // Read once it is locked: it may just have been completed.
        let record = crate::store::record::read::<Record>(&directory.join("record.json"))?;
        match record.ending {
            Ending::Open => Recorder::open(directory, record, lock).map(Some),
            Ending::Ended { .. } | Ending::Lost { .. } => Ok(None),
        }
    }

    /// One entry.
    ///
    /// # Errors
    /// `NotFound`, or when it is damaged.
    pub fn entry(&self, sequence: u64) -> Result<Found> {
        Found::read(self.entry_dir(sequence), sequence)
    }

    /// Entries in the order of their numbers, each as it could be read.
    ///
    /// # Errors
    /// When the history itself cannot be read.
    pub fn entries(&self, range: Range) -> Result<Vec<(u64, Result<Found>)>> {
        let mut sequences = self.sequences()?;
        sequences.retain(|sequence| {
            range.before.is_none_or(|before| *sequence < before)
                && range.after.is_none_or(|after| *sequence > after)
        });
        sequences.sort_unstable();
        let excess = sequences.len().saturating_sub(range.limit);
        match (range.after, range.before) {
            (Some(_), None) => sequences.truncate(range.limit),
            (_, _) => drop(sequences.drain(..excess)),
        }
        Ok(sequences.into_iter().map(|sequence| (sequence, self.entry(sequence))).collect())
    }

    /// The numbers that are taken, in no order.
    ///
    /// # Errors
    /// When the directory cannot be read. That there is none is no error.
    pub fn sequences(&self) -> Result<Vec<u64>> {
        let unreadable =
            |error| Error::io(format!("cannot read {}", self.directory.display()), error);
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut sequences = Vec::new();
        for entry in entries {
            sequences
                .extend(entry.map_err(unreadable)?.file_name().to_str().and_then(parse_number));
        }
        Ok(sequences)
    }

    /// Drops the oldest entries until the bounds are kept. What cannot be
    /// dropped now is for the next time.
    fn sweep(&self) {
        let Ok(mut sequences) = self.sequences() else { return };
        sequences.sort_unstable_by(|one, other| other.cmp(one));
        let mut bytes = 0_u64;
        // The newest is the one that is being recorded.
        for (kept, sequence) in sequences.into_iter().enumerate().skip(1) {
            let directory = self.entry_dir(sequence);
            bytes = bytes.saturating_add(disk_usage(&directory));
            if kept >= ENTRIES_MAX || bytes > BYTES_MAX {
                if let Some(id) = entry::process_of(&directory) {
                    drop(fs::remove_file(self.process_file(id)));
                }
                drop(discard_dir(&directory));
            }
        }
        self.sweep_discarded();
    }

    /// What a sweep that was killed has renamed and not removed.
    fn sweep_discarded(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let discarded = crate::store::DISCARDED_PREFIX.as_bytes();
            if name.as_encoded_bytes().starts_with(discarded) {
                drop(fs::remove_dir_all(entry.path()));
            }
        }
    }

    fn entry_dir(&self, sequence: u64) -> PathBuf {
        self.directory.join(sequence.to_string())
    }

    /// The id is twelve hexadecimal digits whatever the guest says.
    fn process_file(&self, id: ProcessId) -> PathBuf {
        self.directory.join(PROCESSES).join(id.to_string())
    }
}

/// How long somebody who only looks may hold an entry.
const LOOK_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// A number as we write it: no sign, no leading zero.
fn parse_number(name: &str) -> Option<u64> {
    let number = name.parse().ok()?;
    (number > 0 && u64::to_string(&number) == name).then_some(number)
}

fn cut(mut line: String) -> String {
    if line.len() > COMMAND_MAX {
        line.truncate(line.floor_char_boundary(COMMAND_MAX));
        line.push('…');
    }
    line
}

fn shown(argv: &[Vec<u8>]) -> Vec<String> {
    let mut room = COMMAND_MAX;
    let words = argv.iter().map_while(|word| {
        if room == 0 {
            return None;
        }
        let kept = &word[..word.len().min(room)];
        // An empty word takes room as well: there may be a million.
        room = room.saturating_sub(kept.len() + 1);
        Some(String::from_utf8_lossy(kept).into_owned())
    });
    words.collect()
}

#[cfg(test)]
mod tests;
