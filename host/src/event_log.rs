//! What happened to a workspace: one line of JSON each, only ever appended.
//!
//! Every line is written by one system call on a descriptor that appends, so
//! lines of several processes never mix. A line never holds a variable's value,
//! a file's content or anything else that might be a secret.

use crate::error::{Error, Result};
use crate::guest_text;
use crate::published::Published;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The log's file name; the part before it has `.1` appended.
const NAME: &str = "events.jsonl";

/// The version of a line's fields.
const VERSION: u32 = 1;

/// The log's size before it becomes the part before: an active workspace writes
/// some 200 bytes for each command.
const LOG_MAX: u64 = 16 << 20;

/// The most of a command or a path that a line shows.
const WHAT_MAX: usize = 400;

/// The longest line that is read back.
const LINE_MAX: usize = 64 * 1024;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// The version of these fields.
    pub v: u32,
    /// When, RFC 3339 in UTC.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub happening: Happening,
}

/// What can happen to a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happening {
    /// Somebody asked something of it, and this came of it.
    Operation {
        /// As on the command line: `workspace exec`.
        operation: String,
        /// Through which surface: `cli`, `mcp` or `sdk`.
        caller: String,
        /// What in particular, such as a command or a path.
        what: Option<String>,
        /// `ok`, or the kind of the error.
        result: String,
        /// From the request to the answer.
        duration_ms: u64,
    },
    /// It was made.
    Created,
    /// Its guest answers calls.
    Started {
        /// From starting the VMM to the mounted workspace.
        boot_ms: u64,
        /// Whether a template was restored, in place of a boot.
        #[serde(default)]
        restored: bool,
        /// Why its kernel booted though there was a template.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        template_failure: Option<String>,
    },
    /// Its guest was powered off in good order, or killed on request.
    Stopped {
        /// Who asked.
        by: StoppedBy,
        /// Whether its disk was made consistent before.
        clean: bool,
    },
    /// Its guest stands still, its memory kept.
    Paused,
    /// Its guest goes on.
    Resumed,
    /// Programs of the host can connect to a TCP port of its guest.
    PortPublished(Published),
    /// They can no more.
    PortUnpublished(Published),
    /// Its guest went away unasked.
    Crashed {
        /// How its VMM ended.
        how: String,
    },
    /// Its disk was replaced: by a fresh one, or by a snapshot's.
    Reset {
        /// The snapshot's name; null for the baseline.
        snapshot: Option<String>,
    },
    /// A copy of its disk was taken.
    SnapshotCreated {
        /// The snapshot's name.
        snapshot: String,
        /// How long its guest stood still for it.
        still_ms: u64,
    },
    /// A snapshot is called otherwise.
    SnapshotRenamed {
        /// As it was called.
        snapshot: String,
        /// As it is called.
        to: String,
    },
    /// A snapshot is gone.
    SnapshotDeleted {
        /// The snapshot's name.
        snapshot: String,
    },
    /// Another workspace was made from it.
    Forked {
        /// That workspace's id.
        workspace_id: String,
        /// The snapshot that it began with; null for the disk as it was.
        snapshot: Option<String>,
    },
    /// Its network policy decided.
    Network {
        /// What the guest wanted: `connect` (TCP), `send` (UDP) or `resolve` (DNS).
        action: String,
        /// An address with a port, or a name.
        destination: String,
        /// The names that the guest was told for the address.
        names: Vec<String>,
        /// Whether it may.
        allowed: bool,
        /// What decided: a rule such as `r3`, `otherwise` where no rule matched,
        /// or a word of pyro's own, such as `built-in:private`.
        rule: String,
    },
    /// More was decided than is written down.
    NetworkOmitted {
        /// How many decisions are missing.
        count: u64,
    },
    /// Its guest has no network: what carries it broke, and cannot be made again
    /// yet.
    NetworkLost {
        /// What broke, and why it is not there again.
        why: String,
    },
    /// What carries its network broke and is there again. Connections that there
    /// were are not.
    NetworkReopened {
        /// What broke.
        why: String,
    },
    /// A program was given one of its secrets.
    SecretUsed {
        /// The secret's name.
        secret: String,
        /// The variable that the program has it in.
        variable: String,
    },
}

/// Why a guest was powered off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoppedBy {
    /// A caller's request.
    Request,
    /// Its time to live was over.
    Ttl,
    /// Its supervisor was told to end, as when the host shuts down.
    Signal,
}

/// A workspace's log.
#[derive(Debug, Clone)]
pub struct EventLog {
    path: PathBuf,
}

impl EventLog {
    /// The log in a workspace's directory.
    #[must_use]
    pub fn within(directory: &Path) -> Self {
        Self { path: directory.join(NAME) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends what has just happened.
    ///
    /// # Errors
    /// When the host's system refuses. What happened has happened all the same.
    pub fn append(&self, happening: Happening) -> Result<()> {
        let refused = |error| Error::io(format!("cannot write {}", self.path.display()), error);
        let line = Line { v: VERSION, at: Timestamp::now(), happening };
        let mut bytes = serde_json::to_vec(&line).map_err(|error| refused(error.into()))?;
        bytes.push(b'\n');
        let mut file = self.open_to_append().map_err(refused)?;
        let mut size = file.metadata().map_err(refused)?.size();
        if size > LOG_MAX && self.set_aside(&file) {
            file = self.open_to_append().map_err(refused)?;
            size = 0;
        }
        if self.is_torn(size) {
            bytes.insert(0, b'\n');
        }
        // Once: what does not fit on the host's disk is a torn line.
        match file.write(&bytes).map_err(refused)? {
            written if written == bytes.len() => Ok(()),
            _ => Err(refused(std::io::ErrorKind::StorageFull.into())),
        }
    }

    fn open_to_append(&self) -> std::io::Result<File> {
        File::options().append(true).create(true).mode(0o600).open(&self.path)
    }

    /// Whether the last line was cut off, as a full disk does.
    fn is_torn(&self, size: u64) -> bool {
        let mut last = [0];
        size > 0
            && File::open(&self.path)
                .and_then(|file| file.read_exact_at(&mut last, size - 1))
                .is_ok_and(|()| last != *b"\n")
    }

    /// Makes the log the part before, unless somebody else does: a second one
    /// would replace it by the first lines of the new log. Whoever has it open
    /// still writes to it, and nothing is lost.
    fn set_aside(&self, file: &File) -> bool {
        if flock(file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return false;
        }
        let id = |meta: std::io::Result<fs::Metadata>| meta.ok().map(|m| (m.dev(), m.ino()));
        id(file.metadata()) == id(self.path.metadata())
            && fs::rename(&self.path, self.before()).is_ok()
    }

    fn before(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".1");
        name.into()
    }

    /// The newest `limit` lines, oldest first. What is no line of ours, as a
    /// crash of the host may leave it, is left out.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn newest(&self, limit: usize) -> Result<Vec<Line>> {
        let mut lines = std::collections::VecDeque::new();
        for path in [self.before(), self.path.clone()] {
            let Some(mut file) = self.open(&path)? else { continue };
            read_lines(&mut file, |line| {
                if lines.len() == limit {
                    lines.pop_front();
                }
                lines.push_back(line);
            })
            .map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
        }
        Ok(lines.into())
    }

    fn open(&self, path: &Path) -> Result<Option<BufReader<File>>> {
        match File::open(path) {
            Ok(file) => Ok(Some(BufReader::new(file))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("cannot read {}", path.display()), error)),
        }
    }

    /// Reads on from where an earlier reading ended.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn follow(&self) -> Result<Follower> {
        // This very file, whatever becomes of its name.
        let mut file = self.open(&self.path)?;
        if let Some(file) = &mut file {
            file.seek(SeekFrom::End(0)).map_err(|error| {
                Error::io(format!("cannot read {}", self.path.display()), error)
            })?;
        }
        Ok(Follower { log: self.clone(), file })
    }
}

/// Reads a log as it grows.
#[derive(Debug)]
pub struct Follower {
    log: EventLog,
    file: Option<BufReader<File>>,
}

impl Follower {
    /// What was appended since the last time.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn news(&mut self) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        let path = self.log.path.clone();
        let failed = |error| Error::io(format!("cannot read {}", path.display()), error);
        if self.file.is_none() {
            self.file = self.log.open(&path)?;
        }
        if let Some(file) = &mut self.file {
            read_lines(file, |line| lines.push(line)).map_err(failed)?;
            let open = file.get_ref().metadata().map_err(failed)?;
            let named = path.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
            if named != Some((open.dev(), open.ino())) {
                // It became the part before; the next time the new one is read.
                self.file = None;
            }
        }
        Ok(lines)
    }
}

/// Reads whole lines up to the end; half a line is left for the next time.
fn read_lines(file: &mut BufReader<File>, mut take: impl FnMut(Line)) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let at = file.stream_position()?;
        let length = file.read_until(b'\n', &mut bytes)?;
        if length == 0 {
            return Ok(());
        }
        if bytes.last() != Some(&b'\n') {
            file.seek(SeekFrom::Start(at))?;
            return Ok(());
        }
        if length <= LINE_MAX
            && let Ok(line) = serde_json::from_slice(&bytes)
        {
            take(line);
        }
    }
}

/// A command or a path as a line shows it.
#[must_use]
pub fn shown(what: &str) -> String {
    guest_text::escaped(what, WHAT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happened(what: &str) -> Happening {
        Happening::Crashed { how: what.into() }
    }

    #[test]
    fn lines_come_back_in_order_and_the_oldest_go_first() {
        let home = tempfile::tempdir().expect("a directory");
        let log = EventLog::within(home.path());
        assert!(log.newest(10).expect("none yet").is_empty());
        for n in 0..20 {
            log.append(happened(&n.to_string())).expect("appended");
        }
        let newest = log.newest(3).expect("read");
        let told: Vec<_> = newest.into_iter().map(|line| line.happening).collect();
        assert_eq!(told, ["17", "18", "19"].map(happened));
    }

    #[test]
    fn r3_what_is_no_line_is_in_nobodys_way() {
        let home = tempfile::tempdir().expect("a directory");
        let log = EventLog::within(home.path());
        fs::write(log.path(), b"\xff\xfe\n{\"v\":1}\n\n").expect("written");
        log.append(happened("well")).expect("appended");
        let mut file = File::options().append(true).open(log.path()).expect("there");
        file.write_all(b"{\"v\":1,\"at\"").expect("torn");
        assert_eq!(log.newest(10).expect("read").len(), 1);
        log.append(happened("after it")).expect("appended");
        assert_eq!(log.newest(10).expect("read").len(), 2, "it is no part of the torn one");
    }

    #[test]
    fn r2_a_follower_reads_the_log_that_was_there() {
        let home = tempfile::tempdir().expect("a directory");
        let log = EventLog::within(home.path());
        log.append(happened("old")).expect("appended");
        let mut follower = log.follow().expect("there");
        log.append(happened("one")).expect("appended");
        // Before it is looked at.
        fs::rename(log.path(), log.before()).expect("renamed");
        log.append(happened("two")).expect("appended");
        let mut heard = follower.news().expect("read");
        heard.extend(follower.news().expect("read"));
        let heard: Vec<_> = heard.into_iter().map(|line| line.happening).collect();
        assert_eq!(heard, ["one", "two"].map(happened));
    }

    #[test]
    fn a_follower_hears_what_is_new_and_only_that() {
        let home = tempfile::tempdir().expect("a directory");
        let log = EventLog::within(home.path());
        log.append(happened("old")).expect("appended");
        let mut follower = log.follow().expect("there");
        assert!(follower.news().expect("read").is_empty());
        log.append(happened("new")).expect("appended");
        assert_eq!(follower.news().expect("read").len(), 1);
        // It is replaced meanwhile.
        fs::rename(log.path(), log.before()).expect("renamed");
        log.append(happened("newer")).expect("appended");
        let mut heard = follower.news().expect("read");
        heard.extend(follower.news().expect("read"));
        assert_eq!(heard.len(), 1);
    }

    #[test]
    fn r2_lines_of_many_writers_never_mix() {
        let home = tempfile::tempdir().expect("a directory");
        let log = EventLog::within(home.path());
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let log = log.clone();
                scope.spawn(move || {
                    for n in 0..50 {
                        log.append(happened(&format!("{writer} {n}"))).expect("appended");
                    }
                });
            }
        });
        assert_eq!(log.newest(1000).expect("read").len(), 400);
    }

    /// Two who both find it too long must not set the new one aside as well.
    #[test]
    fn r2_a_log_that_is_too_long_is_set_aside_once() {
        let home = tempfile::tempdir().expect("a directory");
        let log = EventLog::within(home.path());
        // Each is looked at, in vain.
        let line = [&[b' '; 1023][..], b"\n"].concat();
        let long = line.repeat(usize::try_from(LOG_MAX).expect("fits") / line.len() + 1);
        fs::write(log.path(), long).expect("written");
        let (start, writers) = (std::sync::Barrier::new(8), 0..8);
        std::thread::scope(|scope| {
            for writer in writers {
                let (log, start) = (log.clone(), &start);
                scope.spawn(move || {
                    start.wait();
                    log.append(happened(&writer.to_string())).expect("appended");
                });
            }
        });
        assert!(log.before().metadata().expect("set aside").len() > LOG_MAX);
        assert_eq!(log.newest(100).expect("read").len(), 8, "every line is somewhere");
    }
}
