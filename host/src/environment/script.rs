//! Runs the build scripts of images/: each in a process group of its own that
//! never outlives us, its output told line by line.

use super::failure;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events};
use crate::store::staging::Staging;
use rustix::process::{Pid, Signal, kill_process_group};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStdin, Command};
use tokio_util::sync::CancellationToken;

/// What the scripts are called in a staging directory.
pub const ROOT: &str = "root.sh";
pub const STOCK: &str = "kernel/stock.sh";
pub const INITRD: &str = "kernel/initrd.sh";
pub const TUNED: &str = "kernel/tuned.sh";
pub const TUNED_CONFIG: &str = "kernel/tuned.config";

/// The lines of a failed script that its error shows.
const LAST_WORDS: usize = 20;

/// The longest line told; the rest of a longer one is dropped.
const LINE_MAX: usize = 1024;

/// How long a script that is to stop may clean up after itself; the watcher
/// waits longer.
const GRACE: Duration = Duration::from_secs(3);

/// How long the output of a script that has ended may stay open. Only a process
/// that left the script's group can hold it.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// Starts the script beside a watcher, both in one process group. The watcher
/// reads the pipe whose other end only pyro has: a line means that the script
/// has ended, the end of the pipe that pyro has. Either way nobody survives.
const WITH_WATCHER: &str = r#"
exec 3<&0 </dev/null
(
    trap '' HUP INT TERM
    read -r _ <&3 || { kill -TERM 0; sleep 4; }
    kill -KILL 0
) >/dev/null 2>&1 &
exec bash "$@" 3<&-
"#;

/// The texts of the build scripts and of what they read.
#[derive(Debug, Clone)]
pub struct Scripts(BTreeMap<&'static str, Cow<'static, str>>);

impl Scripts {
    /// Those that come with pyro.
    #[must_use]
    pub fn embedded() -> Self {
        Self(BTreeMap::from([
            (ROOT, include_str!("../../../images/root.sh").into()),
            (STOCK, include_str!("../../../images/kernel/stock.sh").into()),
            (INITRD, include_str!("../../../images/kernel/initrd.sh").into()),
            (TUNED, include_str!("../../../images/kernel/tuned.sh").into()),
            (TUNED_CONFIG, include_str!("../../../images/kernel/tuned.config").into()),
        ]))
    }

    /// The same with another text for one of them.
    #[cfg(test)]
    pub fn with(mut self, name: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        self.0.insert(name, text.into());
        self
    }

    /// The digest of some of them.
    #[must_use]
    pub fn digest(&self, names: &[&str]) -> Digest {
        Digest::of_parts(names.iter().map(|name| self.text(name)))
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |text| text)
    }

    /// Writes them below a directory, as in images/.
    fn write_to(&self, dir: &Path) -> std::io::Result<()> {
        for (name, text) in &self.0 {
            let path = dir.join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, text.as_bytes())?;
        }
        Ok(())
    }
}

/// One run of a script.
pub struct Run<'a> {
    /// The texts.
    pub scripts: &'a Scripts,
    /// Which of them.
    pub script: &'static str,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where it works and leaves its result.
    pub staging: &'a Staging,
    /// Where its programs are.
    pub path: OsString,
    /// Where its programs put temporary files; else where they like.
    pub temporary: Option<PathBuf>,
    /// What it does, for errors: `bootstrapping debian:12`.
    pub doing: String,
    /// How long it may take.
    pub deadline: Duration,
}

/// Why a script did not run to its end.
enum Stop {
    Cancelled,
    TimedOut,
}

impl Run<'_> {
    /// Where a script finds a file that came with it.
    #[must_use]
    pub fn companion(staging: &Staging, name: &str) -> PathBuf {
        staging.path().join("scripts").join(name)
    }

    /// Runs the script to its end.
    ///
    /// # Errors
    /// When it fails, with its last lines; when it takes too long; when it is
    /// cancelled. No process of it is left in any case.
    pub async fn run(self, events: &Events, cancellation: &CancellationToken) -> Result<()> {
        let mut last_words = VecDeque::new();
        let (mut child, lifeline, mut output) = self.spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));

        let outcome = tokio::select! {
            status = follow(&mut child, lifeline, &mut output, events, &mut last_words) => Ok(status?),
            () = cancellation.cancelled() => Err(Stop::Cancelled),
            () = tokio::time::sleep(self.deadline) => Err(Stop::TimedOut),
        };
        let doing = &self.doing;
        match outcome {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(failure::script(doing, status, last_words)),
            Err(stop) => {
                if let Some(group) = group {
                    end(&mut child, group, &mut output).await;
                }
                Err(match stop {
                    Stop::Cancelled => {
                        Error::new(ErrorKind::Cancelled, format!("{doing} was cancelled"))
                    }
                    Stop::TimedOut => failure::too_slow(doing, self.deadline, last_words),
                })
            }
        }
    }

    fn spawn(&self) -> Result<(Child, ChildStdin, BufReader<pipe::Receiver>)> {
        let refused = |error| Error::io(format!("cannot start {}", self.script), error);
        let scripts = self.staging.path().join("scripts");
        self.scripts.write_to(&scripts).map_err(refused)?;
        if let Some(temporary) = &self.temporary {
            fs::create_dir_all(temporary).map_err(refused)?;
        }
        let (output, input) = std::io::pipe().map_err(refused)?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", WITH_WATCHER, self.script].map(OsStr::new))
            .arg(scripts.join(self.script))
            .args(&self.arguments)
            .current_dir(self.staging.path())
            .env("PATH", &self.path)
            .env("LC_ALL", "C.UTF-8")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(input.try_clone().map_err(refused)?)
            .stderr(input);
        if let Some(temporary) = &self.temporary {
            command.env("TMPDIR", temporary);
        }
        let mut child = command.spawn().map_err(refused)?;
        let lifeline =
            child.stdin.take().ok_or_else(|| refused(std::io::ErrorKind::BrokenPipe.into()))?;
        let output = pipe::Receiver::from_owned_fd(output.into()).map_err(refused)?;
        Ok((child, lifeline, BufReader::new(output)))
    }
}

/// Tells the output until the script and all its processes are gone.
async fn follow(
    child: &mut Child,
    mut lifeline: ChildStdin,
    output: &mut BufReader<pipe::Receiver>,
    events: &Events,
    last_words: &mut VecDeque<String>,
) -> Result<ExitStatus> {
    let told = async {
        while let Some(line) = next_line(output).await {
            if last_words.len() == LAST_WORDS {
                last_words.pop_front();
            }
            last_words.push_back(line.clone());
            events.emit(Event::Progress(line)).await;
        }
    };
    let ended = async {
        let status = child.wait().await;
        // Fails only when the watcher is gone already.
        drop(lifeline.write_all(b"\n").await);
        status
    };
    tokio::pin!(told, ended);
    let status = tokio::select! {
        status = &mut ended => {
            // Held open for longer only by what left the script's group.
            drop(tokio::time::timeout(DRAIN_MAX, told).await);
            status
        }
        () = &mut told => ended.await,
    };
    status.map_err(|error| Error::io("cannot wait for a build script", error))
}

/// Lets a script clean up after itself, then kills what is left of its group.
/// The watcher, which ignores the first signal, keeps the group's id from being
/// anybody else's meanwhile.
async fn end(child: &mut Child, group: Pid, output: &mut BufReader<pipe::Receiver>) {
    // Fails only when the group is gone, which is the aim.
    let _ = kill_process_group(group, Signal::TERM);
    drop(tokio::time::timeout(GRACE, child.wait()).await);
    let _ = kill_process_group(group, Signal::KILL);
    drop(child.wait().await);
    // The output ends when the last of them is gone.
    let drained = async { while next_line(output).await.is_some() {} };
    drop(tokio::time::timeout(DRAIN_MAX, drained).await);
}

/// The next line that is not blank, in plain text; `None` at the end.
async fn next_line(output: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    loop {
        // What cannot be read is no worse than what is not written.
        let available = output.fill_buf().await.unwrap_or_default();
        let ended = available.is_empty();
        let end = available.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let taken = &available[..end.unwrap_or(available.len())];
        line.extend_from_slice(&taken[..taken.len().min(LINE_MAX - line.len())]);
        let consumed = end.map_or(available.len(), |end| end + 1);
        output.consume(consumed);
        if ended || end.is_some() {
            let text = plain(&line);
            if !text.is_empty() {
                return Some(text);
            }
            if ended {
                return None;
            }
            line.clear();
        }
    }
}

/// Without what would move a terminal's cursor.
fn plain(line: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(line)
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect();
    text.trim_end().to_owned()
}
