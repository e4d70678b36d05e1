//! The host's side of a conversation.

use pyro_agent::{Guest, Phase, serve_connection};
use pyro_protocol::process::{
    Exit, Outcome, ProcessStarted, STDIN_WINDOW, Signal, StartProcess, StdinTaken,
};
use pyro_protocol::{
    AgentError, AgentErrorKind, Call, Frame, FrameKind, FrameReader, FrameWriter, GuestPath, Hello,
    Lost, Request, Welcome,
};
use serde::de::DeserializeOwned;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// Nothing here takes long; what takes this long hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// Fails the test instead of hanging it.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} did not come to an end"),
    }
}

/// A guest, and the directory that is its /workspace.
pub struct Host {
    pub guest: Arc<Guest>,
    pub workspace: TempDir,
}

/// One connection, past the handshake unless said otherwise.
pub struct Connection {
    pub reader: FrameReader<OwnedReadHalf>,
    pub writer: FrameWriter<OwnedWriteHalf>,
}

/// A program that runs.
pub struct Running {
    pub pid: u32,
    connection: Connection,
    allowance: usize,
    seen: Seen,
}

/// What a program has written.
#[derive(Debug, Default)]
pub struct Seen {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    pub exit: Exit,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Host {
    pub fn new() -> Self {
        Self::in_phase(Phase::Activated)
    }

    pub fn in_phase(phase: Phase) -> Self {
        let workspace = tempfile::tempdir().expect("a directory of our own");
        Self { guest: Guest::in_process(workspace.path(), phase), workspace }
    }

    /// A connection of raw bytes.
    pub fn stream(&self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        tokio::spawn(serve_connection(theirs, self.guest.clone()));
        ours
    }

    /// A connection before its first frame.
    pub fn unacquainted(&self) -> Connection {
        let (reader, writer) = self.stream().into_split();
        Connection { reader: FrameReader::new(reader), writer: FrameWriter::new(writer) }
    }

    pub async fn connect(&self) -> Connection {
        let mut connection = self.unacquainted();
        connection.greet().await;
        connection
    }

    pub async fn call<R: Request>(&self, request: R) -> Result<R::Reply, AgentError> {
        self.connect().await.call(request).await
    }

    pub async fn start(&self, call: StartProcess) -> Result<Running, AgentError> {
        let mut connection = self.connect().await;
        let ProcessStarted { pid } = connection.call(call).await?;
        Ok(Running { pid, connection, allowance: STDIN_WINDOW, seen: Seen::default() })
    }

    /// Runs a program to its end.
    pub async fn run(&self, call: StartProcess) -> Result<Ended, AgentError> {
        Ok(self.start(call).await?.finish().await)
    }

    /// Runs a script that surely starts.
    pub async fn script(&self, script: &str) -> Ended {
        self.run(sh(script)).await.expect("sh starts")
    }

    /// The kind of error that keeps a program from running.
    pub async fn refusal(&self, call: StartProcess) -> AgentErrorKind {
        match self.start(call).await {
            Ok(running) => panic!("it runs, as process {}", running.pid),
            Err(error) => error.kind,
        }
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.workspace.path().join(name);
        std::fs::write(&path, content).expect("a file in our directory");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("its mode");
    }
}

impl Connection {
    pub async fn greet(&mut self) -> Welcome {
        self.send(FrameKind::Hello, &Hello::ours()).await;
        soon("the welcome", self.reader.expect(FrameKind::Welcome)).await.expect("a welcome")
    }

    pub async fn call<R: Request>(&mut self, request: R) -> Result<R::Reply, AgentError> {
        let call: Call = request.into();
        self.send(FrameKind::Call, &call).await;
        let frame = self.next().await;
        if frame.kind == FrameKind::Error {
            return Err(frame.decode(FrameKind::Error).expect("an error"));
        }
        Ok(frame.decode(FrameKind::Reply).expect("a reply"))
    }

    pub async fn send<T: serde::Serialize>(&mut self, kind: FrameKind, value: &T) {
        soon("sending", self.writer.send(kind, value)).await.expect("the agent listens");
    }

    pub async fn next(&mut self) -> Frame {
        soon("a frame", self.reader.next()).await.expect("the agent speaks")
    }

    /// The agent has said its last.
    pub async fn closed(&mut self) {
        match soon("the close", self.reader.next()).await {
            Err(Lost::Closed) => {}
            other => panic!("not the end: {other:?}"),
        }
    }
}

impl Running {
    /// Takes one frame of the agent's; the exit if it is the last.
    async fn step(&mut self) -> Option<Exit> {
        let frame = self.connection.next().await;
        match frame.kind {
            FrameKind::Stdout => self.seen.stdout.extend(frame.payload),
            FrameKind::Stderr => self.seen.stderr.extend(frame.payload),
            FrameKind::StdinTaken => {
                let taken: StdinTaken = frame.decode(frame.kind).expect("an acknowledgement");
                self.allowance += taken.bytes as usize;
                assert!(self.allowance <= STDIN_WINDOW, "more taken than was sent");
            }
            FrameKind::Exit => return Some(frame.decode(frame.kind).expect("an exit")),
            kind @ (FrameKind::Hello
            | FrameKind::Welcome
            | FrameKind::Call
            | FrameKind::Reply
            | FrameKind::Error
            | FrameKind::Announcement
            | FrameKind::Stdin
            | FrameKind::StdinEnd
            | FrameKind::Signal
            | FrameKind::Data
            | FrameKind::DataEnd
            | FrameKind::Skipped
            | FrameKind::Resize) => panic!("{kind:?} from a running program"),
        }
        None
    }

    /// Reads until the program's output so far satisfies.
    pub async fn until(&mut self, mut satisfied: impl FnMut(&Seen) -> bool) -> &Seen {
        while !satisfied(&self.seen) {
            assert!(self.step().await.is_none(), "it ended after {:?}", self.seen);
        }
        &self.seen
    }

    /// The first line of its output, without the newline.
    pub async fn line(&mut self) -> String {
        let seen = self.until(|seen| seen.stdout.contains(&b'\n')).await;
        let line = seen.stdout.split(|byte| *byte == b'\n').next().expect("there is one");
        String::from_utf8(line.to_vec()).expect("text")
    }

    /// Sends input, no faster than allowed; true unless the program ended first.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Exit> {
        for chunk in bytes.chunks(FrameKind::Stdin.limit()) {
            while self.allowance < chunk.len() {
                if let Some(exit) = self.step().await {
                    return Err(exit);
                }
            }
            self.allowance -= chunk.len();
            let sent = self.connection.writer.send_raw(FrameKind::Stdin, chunk);
            // The program may have ended meanwhile; its exit is still to come.
            if soon("sending input", sent).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    pub async fn end_input(&mut self) {
        drop(soon("ending input", self.connection.writer.send_raw(FrameKind::StdinEnd, &[])).await);
    }

    pub async fn signal(&mut self, number: u8) {
        self.connection.send(FrameKind::Signal, &Signal { number }).await;
    }

    /// Reads to the end: one exit, and nothing after it.
    pub async fn finish(mut self) -> Ended {
        loop {
            if let Some(exit) = self.step().await {
                self.connection.closed().await;
                let Seen { stdout, stderr } = self.seen;
                return Ended { exit, stdout, stderr };
            }
        }
    }

    /// Gives the connection up, to do with it as one likes.
    pub fn into_connection(self) -> Connection {
        self.connection
    }
}

impl Ended {
    pub fn code(&self) -> u8 {
        match self.exit.outcome {
            Outcome::Exited { code } => code,
            outcome @ (Outcome::Signaled { .. } | Outcome::TimedOut) => {
                panic!("{outcome:?}: {self:?}")
            }
        }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text")
    }
}

/// A call that runs these words.
pub fn argv(words: &[&str]) -> StartProcess {
    StartProcess {
        argv: words.iter().map(|word| (*word).into()).collect(),
        cwd: None,
        env: Vec::new(),
        user: None,
        stdin: false,
        timeout_ms: None,
    }
}

/// A call that runs a script.
pub fn sh(script: &str) -> StartProcess {
    argv(&["/bin/sh", "-c", script])
}

pub fn path(text: &str) -> Option<GuestPath> {
    Some(GuestPath::new(text).expect("a path"))
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Some process of this machine's, held by a descriptor so that its id cannot
/// come to mean another.
pub struct Bystander {
    pidfd: AsyncFd<OwnedFd>,
}

impl Bystander {
    /// Takes hold of a process whose id a program has told us.
    pub fn hold(pid: &str) -> Self {
        let pid = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("a process id");
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        // SAFETY: an OwnedFd is open and stays the same descriptor.
        let pidfd = unsafe { AsyncFd::register(pidfd.expect("it runs")) };
        Self { pidfd: pidfd.expect("the runtime watches it") }
    }

    /// It ends by itself, or by the agent.
    pub async fn dies(&self) {
        drop(soon("the death of a process", self.pidfd.readable()).await.expect("watching"));
    }

    /// It has been left alive; it is not any more after this.
    pub fn was_spared(self) {
        let pidfd = self.pidfd.get_ref();
        let killed = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
        assert_eq!(killed, Ok(()), "it has been killed already");
    }
}

impl Host {
    /// Makes a call whose `Data` frames come after its reply; all of them, and
    /// the end.
    pub async fn fetch<R: Request, End: DeserializeOwned>(
        &self,
        request: R,
    ) -> Result<(R::Reply, Vec<u8>, End), AgentError> {
        let mut connection = self.connect().await;
        let reply = connection.call(request).await?;
        let (bytes, end) = connection.transfer().await?;
        connection.closed().await;
        Ok((reply, bytes, end))
    }

    /// Makes a call that takes `Data` frames before its reply.
    pub async fn give<R: Request>(
        &self,
        request: R,
        content: &[u8],
    ) -> Result<R::Reply, AgentError> {
        let mut connection = self.connect().await;
        let call: Call = request.into();
        connection.send(FrameKind::Call, &call).await;
        for chunk in content.chunks(FrameKind::Data.limit()) {
            // What the agent does not want any more it says in its reply.
            if soon("data", connection.writer.send_raw(FrameKind::Data, chunk)).await.is_err() {
                break;
            }
        }
        drop(soon("the end", connection.writer.send_raw(FrameKind::DataEnd, &[])).await);
        let frame = connection.next().await;
        if frame.kind == FrameKind::Error {
            return Err(frame.decode(FrameKind::Error).expect("an error"));
        }
        Ok(frame.decode(FrameKind::Reply).expect("a reply"))
    }

    /// Where something of the workspace really is.
    pub fn at(&self, path: &str) -> PathBuf {
        self.workspace.path().join(path)
    }
}

impl Connection {
    /// Takes `Data` frames to their end.
    pub async fn transfer<End: DeserializeOwned>(&mut self) -> Result<(Vec<u8>, End), AgentError> {
        let mut bytes = Vec::new();
        loop {
            let frame = self.next().await;
            if frame.kind == FrameKind::Error {
                return Err(frame.decode(FrameKind::Error).expect("an error"));
            }
            if frame.kind != FrameKind::Data {
                return Ok((bytes, frame.decode(FrameKind::DataEnd).expect("the end")));
            }
            bytes.extend(frame.payload);
        }
    }
}

/// A path that surely is one.
pub fn guest_path(text: impl AsRef<[u8]>) -> GuestPath {
    GuestPath::new(text.as_ref()).expect("a path")
}
