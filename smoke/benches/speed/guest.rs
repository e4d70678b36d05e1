//! `pyro run`, finished or alive.

use crate::Result;
use crate::children::{self, Kept};
use pyro_protocol::VsockPort;
use pyro_smoke::Home;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// What every figure is measured in.
pub const ENVIRONMENT: &str = "debian:12";

/// Longer than anything here takes; a guest that hangs then ends by itself.
const TIMEOUT_SECONDS: &str = "300";

/// How long a stream may stand still.
const STALL: Duration = Duration::from_secs(60);

/// A `pyro` command on the slowest and most common kind of host, one without
/// KVM.
pub fn pyro(home: &Home, words: &[&str]) -> Command {
    let mut command = home.pyro(words);
    command.env("PYRO_VMM", "qemu-tcg");
    command
}

/// `pyro run debian:12 -- ...`.
pub fn run(home: &Home, program: &[&str]) -> Command {
    run_with(home, &[], program)
}

/// The same, with options of `pyro run`.
pub fn run_with(home: &Home, options: &[&str], program: &[&str]) -> Command {
    let limit = ["--timeout-seconds", TIMEOUT_SECONDS, ENVIRONMENT, "--"];
    pyro(home, &[&["run"], options, &limit, program].concat())
}

/// One run that is not measured.
pub fn warm_up(home: &Home) -> Result<()> {
    children::start(run(home, &["true"]), libc::SIGTERM)?.succeed()
}

/// A program in a living guest, and the processes around it.
pub struct Guest {
    pub stdin: ChildStdin,
    pub stdout: BufReader<ChildStdout>,
    pub supervisor: libc::pid_t,
    pub vmm: libc::pid_t,
    /// The directory with the endpoint, as short as a socket's address must be.
    directory: fs::File,
    _pyro: Kept,
}

impl Guest {
    /// Starts a program that says a line once it runs.
    pub fn start(home: &Home, program: &[&str]) -> Result<Self> {
        Self::start_with(home, &[], program)
    }

    /// The same, with options of `pyro run`.
    pub fn start_with(home: &Home, options: &[&str], program: &[&str]) -> Result<Self> {
        let mut command = run_with(home, options, program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut pyro = children::start(command, libc::SIGTERM)?;
        let stdin = pyro.child().stdin.take().ok_or("no stdin")?;
        let mut stdout =
            BufReader::with_capacity(1 << 20, pyro.child().stdout.take().ok_or("no stdout")?);
        expect_line(&mut stdout)?;
        let supervisor = only_child(pyro.pid())?;
        let vmm = only_child(supervisor)?;
        let workspaces = fs::read_dir(home.path().join("state/workspaces"))?;
        let directory = workspaces.flatten().next().ok_or("there is no workspace")?.path();
        Ok(Self {
            stdin,
            stdout,
            supervisor,
            vmm,
            directory: fs::File::open(directory)?,
            _pyro: pyro,
        })
    }

    /// Asks the program for something.
    pub fn say(&mut self, line: &str) -> Result<()> {
        Ok(self.stdin.write_all(line.as_bytes())?)
    }

    /// Waits for a line of the program's.
    pub fn hear(&mut self) -> Result<()> {
        expect_line(&mut self.stdout)
    }

    /// A connection to a vsock port of the guest, with no `pyro` in between.
    pub fn connect(&self, port: VsockPort) -> Result<UnixStream> {
        connect(&self.directory, port)
    }
}

/// A connection to a vsock port of the guest that lives in a directory.
pub fn connect(directory: &fs::File, port: VsockPort) -> Result<UnixStream> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}/vmm/vsock.sock", directory.as_raw_fd());
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))?;
    stream.write_all(format!("CONNECT {}\n", port.0).as_bytes())?;
    let mut answer = Vec::new();
    while answer.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(|_| {
            format!("the guest does not listen on {port}: build the environment again, its agent is older")
        })?;
        answer.push(byte[0]);
    }
    match answer.starts_with(b"OK ") {
        true => Ok(stream),
        false => Err(format!("the endpoint refuses {port}").into()),
    }
}

fn expect_line(from: &mut impl BufRead) -> Result<()> {
    let mut line = String::new();
    match from.read_line(&mut line)? {
        0 => Err("the guest's program ended early".into()),
        _ => Ok(()),
    }
}

/// The one child of a process.
pub fn only_child(parent: libc::pid_t) -> Result<libc::pid_t> {
    let mut children = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| parent_of(*pid) == Some(parent));
    match (children.next(), children.next()) {
        (Some(child), None) => Ok(child),
        (None, _) => Err(format!("process {parent} has no child").into()),
        (Some(_), Some(_)) => Err(format!("process {parent} has several children").into()),
    }
}

fn parent_of(pid: libc::pid_t) -> Option<libc::pid_t> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may contain anything, blanks and parentheses included.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
