//! `pyro workspace exec WS -- true`, the whole process, next to a bare client
//! of the same endpoint that asks the same agent for the same process.
//!
//! The bare client is a few lines in this process: it connects, says hello,
//! starts `true` and reads until its exit. pyro's command has in its time what
//! that has not: the start of its own process, reading the workspace's record,
//! the history of commands and the events, written before and after.

use crate::Result;
use crate::children;
use crate::cost::{processor_time, wait};
use crate::guest;
use crate::report::{Figure, Goal, Row};
use crate::sample::{Pairs, Series};
use crate::workspace::Workspace;
use pyro_protocol::process::{Exit, ProcessStarted, StartProcess};
use pyro_protocol::{
    CALL_PORT, Call, FrameKind, FrameReader, FrameWriter, Hello, Welcome, process::Outcome,
};
use pyro_smoke::Home;
use std::process::Stdio;
use std::time::{Duration, Instant};

const PAIRS: usize = 41;

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    let workspace = Workspace::create(home, &[])?;
    let supervisor = workspace.supervisor()?;
    let mut pairs = Pairs::default();
    let (mut host, mut command, mut relay) =
        (Series::default(), Series::default(), Series::default());
    for round in 0..=PAIRS {
        let before = clock(supervisor)?;
        let ours = one(home, &workspace)?;
        let relayed = clock(supervisor)? - before;
        let floor = bare(&workspace)?;
        // The first round warms the emulator's translations up.
        if round > 0 {
            pairs.ours.push(millis(ours.whole));
            pairs.floor.push(millis(floor));
            host.push(millis(ours.processor + relayed));
            command.push(millis(ours.processor));
            relay.push(millis(relayed));
        }
    }
    let note = format!("median of the {PAIRS} pairwise ratios: {:.3}", pairs.median_of_ratios());
    Ok(vec![
        Figure {
            title: "A command in a workspace, against a bare client",
            goal: Goal::at_most(pairs.ratio_of_medians(), 1.3, ""),
            rows: vec![
                Row::new("`pyro workspace exec WS -- true`, the whole process", "ms", pairs.ours),
                Row::new("floor: a bare client of the same endpoint", "ms", pairs.floor),
            ],
            notes: vec![note],
        },
        Figure {
            title: "The host's part of a command in a workspace",
            goal: Goal::at_most(host.median(), 10.0, "ms"),
            rows: vec![
                Row::new("processor time of command and supervisor", "ms", host),
                Row::new("of it, the command", "ms", command),
                Row::new("of it, the supervisor", "ms", relay),
            ],
            notes: vec![],
        },
    ])
}

struct Ours {
    whole: Duration,
    processor: Duration,
}

fn one(home: &Home, workspace: &Workspace<'_>) -> Result<Ours> {
    let mut command = guest::pyro(home, &["workspace", "exec", workspace.id(), "--", "true"]);
    command.stdout(Stdio::null());
    let started = Instant::now();
    let pyro = children::start(command, libc::SIGTERM)?;
    // It stays as a zombie, whose clock can be read.
    wait(pyro.pid(), libc::WEXITED)?;
    let whole = started.elapsed();
    let processor = clock(pyro.pid())?;
    pyro.succeed()?;
    Ok(Ours { whole, processor })
}

fn bare(workspace: &Workspace<'_>) -> Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let started = Instant::now();
    let stream = workspace.connect(CALL_PORT)?;
    stream.set_nonblocking(true)?;
    let call = async {
        let stream = tokio::net::UnixStream::from_std(stream)?;
        let (read, write) = tokio::io::split(stream);
        let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
        writer.send(FrameKind::Hello, &Hello::ours()).await?;
        writer.send(FrameKind::Call, &Call::from(start_true())).await?;
        let _: Welcome = reader.expect(FrameKind::Welcome).await?;
        let _: ProcessStarted = reader.expect(FrameKind::Reply).await?;
        let exit: Exit = reader.expect(FrameKind::Exit).await?;
        match exit.outcome {
            Outcome::Exited { code: 0 } => Ok(()),
            outcome @ (Outcome::Exited { .. } | Outcome::Signaled { .. } | Outcome::TimedOut) => {
                Err(format!("true ended with {outcome:?}").into())
            }
        }
    };
    runtime.block_on(call).map(|()| started.elapsed())
}

/// `true`, as little as there is to be run.
pub fn start_true() -> StartProcess {
    StartProcess {
        argv: vec!["true".into()],
        cwd: None,
        env: Vec::new(),
        user: None,
        stdin: false,
        timeout_ms: None,
    }
}

fn clock(pid: libc::pid_t) -> Result<Duration> {
    processor_time(pid).ok_or_else(|| format!("process {pid} has no clock").into())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
