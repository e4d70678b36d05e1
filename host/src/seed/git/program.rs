//! Runs the host's `git` so that it reads a repository and does nothing else:
//! whatever the repository's configuration says, nothing of it is executed,
//! written or fetched.

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long `git` may take for one question. It only reads, but the index of a
/// large repository on a slow disk can take minutes.
const DEADLINE: Duration = Duration::from_secs(600);

/// How often the caller is asked whether they still want it: that is a flag, not
/// an event.
const CANCEL_CHECK: Duration = Duration::from_millis(200);

/// How much of what `git` complains about is kept.
const COMPLAINT_BYTES_MAX: u64 = 2048;

/// The longest record that is read: a path, a configured value.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// Set on every command line, before what the repository says counts.
const SETTINGS: &[&str] = &[
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.untrackedCache=keep",
    "protocol.allow=never",
];

/// The host's `git`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Git {
    program: PathBuf,
    /// Where the caller's own configuration is: ignore rules, name, address.
    /// Nothing else of the environment is handed on.
    environment: Vec<(&'static str, OsString)>,
}

impl Git {
    /// Finds it.
    ///
    /// # Errors
    /// `HostRequirement` when it is not installed.
    pub fn find(config: &Config) -> Result<Self> {
        let program = config.find_program("git").ok_or_else(|| {
            Error::new(ErrorKind::HostRequirement, "git is not installed").hint(
                "install it with `apt-get install git`, or seed the directory as it is with `--seed-path`",
            )
        })?;
        let environment = ["HOME", "XDG_CONFIG_HOME"]
            .into_iter()
            .filter_map(|name| Some((name, config.host_variable(OsStr::new(name))?)))
            .collect();
        Ok(Self { program, environment })
    }

    /// Asks one question: runs `git` and shows each record of its output, which
    /// end in NUL.
    ///
    /// # Errors
    /// When it fails, takes too long, or the visitor does.
    pub fn ask(
        &self,
        question: &Question<'_>,
        cancel: &CancellationToken,
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let failed = |error: io::Error| Error::io(question.failure(), error);
        let mut complaints = tempfile::tempfile().map_err(failed)?;
        let mut child = self.start(question, &complaints).map_err(failed)?;
        let answered = read(&mut child, question, cancel, &mut each);
        if answered.is_err() {
            // It may have ended by itself.
            drop(child.kill());
        }
        let status = child.wait().map_err(failed)?;
        answered?;
        if question.accepts(status.code()) {
            return Ok(());
        }
        let mut said = Vec::new();
        complaints.rewind().map_err(failed)?;
        complaints.take(COMPLAINT_BYTES_MAX).read_to_end(&mut said).map_err(failed)?;
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        Err(Error::new(ErrorKind::InvalidInput, format!("{}: {said}", question.failure())))
    }

    fn start(&self, question: &Question<'_>, complaints: &File) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
            .env("LC_ALL", "C")
            .env("GIT_ALLOW_PROTOCOL", "none")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1");
        for setting in SETTINGS {
            command.arg("-c").arg(setting);
        }
        command.args(["--no-pager", "--literal-pathspecs"]);
        if let Some(git_dir) = question.git_dir {
            command.arg("--git-dir").arg(git_dir);
        }
        if let Some(work_tree) = question.work_tree {
            command.arg("--work-tree").arg(work_tree).current_dir(work_tree);
        } else {
            command.current_dir("/");
        }
        command.args(question.words).args(question.path);
        command.stdout(Stdio::piped()).stderr(complaints.try_clone()?);
        let Some(input) = question.input else {
            return command.stdin(Stdio::null()).spawn();
        };
        // Small, and not a pipe that somebody has to fill meanwhile.
        let mut file = tempfile::tempfile()?;
        file.write_all(input)?;
        file.rewind()?;
        command.stdin(file).spawn()
    }
}

/// What to ask.
#[derive(Debug, Clone, Copy, Default)]
pub struct Question<'a> {
    /// The command and its options.
    pub words: &'a [&'a str],
    /// A last argument.
    pub path: Option<&'a Path>,
    /// Which repository.
    pub git_dir: Option<&'a Path>,
    /// And where its files are: never where it says itself.
    pub work_tree: Option<&'a Path>,
    /// What it reads.
    pub input: Option<&'a [u8]>,
    /// Exit status 1 only says that there is none.
    pub may_be_none: bool,
}

impl Question<'_> {
    fn accepts(&self, code: Option<i32>) -> bool {
        code == Some(0) || (self.may_be_none && code == Some(1))
    }

    fn failure(&self) -> String {
        let command = self.words.first().copied().unwrap_or_default();
        match self.work_tree.or(self.git_dir) {
            Some(path) => format!("`git {command}` failed for {}", path.display()),
            None => format!("`git {command}` failed"),
        }
    }
}

/// Reads records until the output ends.
fn read(
    child: &mut Child,
    question: &Question<'_>,
    cancel: &CancellationToken,
    each: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let failed = |error: io::Error| Error::io(question.failure(), error);
    let Some(mut output) = child.stdout.take() else { return Ok(()) };
    let end = Instant::now() + DEADLINE;
    let mut pending = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        if cancel.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "the seed was not finished"));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let seconds = DEADLINE.as_secs();
            let what = format!("{}: it took longer than {seconds} s", question.failure());
            return Err(Error::new(ErrorKind::TimedOut, what));
        }
        let slice = left.min(CANCEL_CHECK);
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(slice.subsec_nanos()) };
        match poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&wait)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        let count = output.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return if pending.is_empty() { Ok(()) } else { each(&pending) };
        }
        let mut rest = &buffer[..count];
        while let Some(nul) = rest.iter().position(|byte| *byte == 0) {
            if pending.is_empty() {
                each(&rest[..nul])?;
            } else {
                pending.extend_from_slice(&rest[..nul]);
                each(&pending)?;
                pending.clear();
            }
            rest = &rest[nul + 1..];
        }
        pending.extend_from_slice(rest);
        if pending.len() > RECORD_BYTES_MAX {
            let what = format!("{}: it said something too long", question.failure());
            return Err(Error::new(ErrorKind::InvalidInput, what));
        }
    }
}
