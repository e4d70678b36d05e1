//! A key typed into a shell until its echo is read, next to a bare client of the
//! same endpoint.
//!
//! Once as a program does it: one operation types, the next reads; the bare
//! client makes the same two calls to the agent. And once as a person does it,
//! through `pyro workspace shell attach`; the bare client is then joined to the
//! terminal as that is, and has neither keyboard nor screen.

use crate::Result;
use crate::guest;
use crate::report::{Figure, Goal, Row};
use crate::sample::{Pairs, Series};
use crate::tty::Tty;
use crate::workspace::Workspace;
use pyro::operation::{ShellOpen, ShellRead, ShellWrite};
use pyro::{Config, Pyro};
use pyro_protocol::shell::{
    AttachShell, ReadShell, ReadUntil, ShellAttached, ShellId, ShellRead as Read, ShellWritten,
    WriteShell,
};
use pyro_protocol::{CALL_PORT, Call, FrameKind, FrameReader, FrameWriter, Hello, Welcome};
use pyro_smoke::Home;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

const PAIRS: usize = 101;

/// A key that a shell only echoes.
const KEY: &str = "x";

/// Nothing here takes so long.
const LONG_MS: u32 = 60_000;

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let workspace = Workspace::create(home, &[])?;
    let mut calls = Calls::open(home, &workspace, &runtime)?;
    let mut called = Pairs::default();
    for round in 0..=PAIRS {
        let (ours, floor) = (calls.ours()?, calls.bare()?);
        // The first round warms the emulator's translations up.
        if round > 0 {
            called.ours.push(millis(ours));
            called.floor.push(millis(floor));
        }
    }
    let mut seats = Seats::take(home, &workspace, &runtime)?;
    let mut attached = Pairs::default();
    for round in 0..=PAIRS {
        let (ours, floor) = (seats.ours()?, seats.bare()?);
        if round > 0 {
            attached.ours.push(millis(ours));
            attached.floor.push(millis(floor));
        }
    }
    Ok(vec![
        figure(
            "A shell write to its echo read, against a bare client",
            ["`shell_write` and `shell_read` by one process", "floor: the same two calls, bare"],
            called,
        ),
        figure(
            "A key at an attached terminal to its echo, against a bare client",
            ["from the keyboard of `pyro workspace shell attach` to its screen", "floor: bare"],
            attached,
        ),
    ])
}

fn figure(title: &'static str, rows: [&str; 2], pairs: Pairs) -> Figure {
    let note = format!("median of the {PAIRS} pairwise ratios: {:.3}", pairs.median_of_ratios());
    let goal = Goal::at_most(pairs.ratio_of_medians(), 1.5, "");
    let [ours, floor]: [Series; 2] = [pairs.ours, pairs.floor];
    let rows = vec![Row::new(rows[0], "ms", ours), Row::new(rows[1], "ms", floor)];
    Figure { title, goal, rows, notes: vec![note] }
}

/// A shell, from a program.
struct Calls<'a> {
    pyro: Pyro,
    workspace: &'a Workspace<'a>,
    runtime: &'a Runtime,
    shell: String,
    cursor: u64,
}

impl<'a> Calls<'a> {
    fn open(home: &Home, workspace: &'a Workspace<'a>, runtime: &'a Runtime) -> Result<Self> {
        let pyro = library(home)?;
        let shell = runtime.block_on(open(&pyro, workspace))?;
        let mut calls = Self { pyro, workspace, runtime, shell, cursor: 0 };
        let prompt = json!({ "wait_for_idle_ms": 1000 });
        calls.cursor = calls.runtime.block_on(calls.read(prompt))?;
        Ok(calls)
    }

    fn ours(&mut self) -> Result<Duration> {
        let started = Instant::now();
        self.cursor = self.runtime.block_on(async {
            let write = json!({ "workspace_id": self.workspace.id(), "shell_id": self.shell,
                "input": KEY, "append_newline": false });
            let write: ShellWrite = serde_json::from_value(write)?;
            self.pyro.call(write).await?;
            self.read(json!({ "cursor": self.cursor, "wait_seconds": 60 })).await
        })?;
        Ok(started.elapsed())
    }

    async fn read(&self, mut arguments: serde_json::Value) -> Result<u64> {
        arguments["workspace_id"] = self.workspace.id().into();
        arguments["shell_id"] = self.shell.clone().into();
        let read: ShellRead = serde_json::from_value(arguments)?;
        Ok(self.pyro.call(read).await?.next_cursor)
    }

    fn bare(&mut self) -> Result<Duration> {
        let id: ShellId = self.shell.parse()?;
        let started = Instant::now();
        self.cursor = self.runtime.block_on(async {
            let write = WriteShell { id, data: KEY.into(), wait_ms: LONG_MS };
            let (mut reader, _writer) = call(self.workspace, write).await?;
            let _: ShellWritten = reader.expect(FrameKind::Reply).await?;
            let (cursor, until) = (self.cursor, ReadUntil::Output);
            let read = ReadShell { id, cursor, max_bytes: 64 * 1024, wait_ms: LONG_MS, until };
            let (mut reader, _writer) = call(self.workspace, read).await?;
            let read: Read = reader.expect(FrameKind::Reply).await?;
            Ok::<_, Box<dyn std::error::Error>>(read.output.next_cursor())
        })?;
        Ok(started.elapsed())
    }
}

/// Two at one shell: a person, and a client that has no terminal.
struct Seats<'a> {
    person: Tty,
    reader: FrameReader<ReadHalf<UnixStream>>,
    writer: FrameWriter<WriteHalf<UnixStream>>,
    runtime: &'a Runtime,
}

impl<'a> Seats<'a> {
    fn take(home: &Home, workspace: &Workspace<'_>, runtime: &'a Runtime) -> Result<Self> {
        let shell = runtime.block_on(open(&library(home)?, workspace))?;
        let id: ShellId = shell.parse()?;
        let words = ["workspace", "shell", "attach", workspace.id(), &shell];
        let mut person = Tty::start(guest::pyro(home, &words), 100, 30);
        person.sees("pyro$");
        let (reader, writer) = runtime.block_on(async {
            let attach = AttachShell { id, cursor: 0, size: None };
            let (mut reader, writer) = call(workspace, attach).await?;
            let ShellAttached { shell } = reader.expect(FrameKind::Reply).await?;
            let mut left = shell.output_bytes;
            while left > 0 {
                left = left.saturating_sub(output(&mut reader).await?);
            }
            Ok::<_, Box<dyn std::error::Error>>((reader, writer))
        })?;
        Ok(Self { person, reader, writer, runtime })
    }

    /// The other sees the same, and is waited for.
    fn ours(&mut self) -> Result<Duration> {
        let started = Instant::now();
        self.person.types(KEY.as_bytes());
        self.person.reads();
        let took = started.elapsed();
        self.runtime.block_on(output(&mut self.reader))?;
        Ok(took)
    }

    fn bare(&mut self) -> Result<Duration> {
        let started = Instant::now();
        self.runtime.block_on(async {
            self.writer.send_raw(FrameKind::Stdin, KEY.as_bytes()).await?;
            output(&mut self.reader).await
        })?;
        let took = started.elapsed();
        self.person.reads();
        Ok(took)
    }
}

/// The next output, and how much.
async fn output(reader: &mut FrameReader<ReadHalf<UnixStream>>) -> Result<u64> {
    loop {
        let frame = reader.next().await?;
        if frame.kind == FrameKind::Stdout {
            return Ok(frame.payload.len() as u64);
        }
        if frame.kind != FrameKind::StdinTaken {
            return Err(format!("{:?} instead of output", frame.kind).into());
        }
    }
}

async fn call(
    workspace: &Workspace<'_>,
    call: impl Into<Call>,
) -> Result<(FrameReader<ReadHalf<UnixStream>>, FrameWriter<WriteHalf<UnixStream>>)> {
    let stream = workspace.connect(CALL_PORT)?;
    stream.set_nonblocking(true)?;
    let (read, write) = tokio::io::split(UnixStream::from_std(stream)?);
    let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
    writer.queue(FrameKind::Hello, &Hello::ours())?;
    writer.send(FrameKind::Call, &call.into()).await?;
    let _: Welcome = reader.expect(FrameKind::Welcome).await?;
    Ok((reader, writer))
}

async fn open(pyro: &Pyro, workspace: &Workspace<'_>) -> Result<String> {
    let open: ShellOpen = serde_json::from_value(json!({ "workspace_id": workspace.id() }))?;
    Ok(pyro.call(open).await?.shell_id)
}

/// As a program would, but in the benchmark's home.
pub fn library(home: &Home) -> Result<Pyro> {
    let mut config = Config::from_environment()?;
    config.cache_dir = home.path().join("cache");
    config.state_dir = home.path().join("state");
    config.executable = pyro_smoke::pyro_executable();
    config.agent = config.executable.with_file_name("pyro-agent").into();
    Ok(Pyro::new(config))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
