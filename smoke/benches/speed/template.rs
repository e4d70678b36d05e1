//! Machines that are restored from templates, next to those that boot, and to the
//! same restore done barely.
//!
//! The bare restore starts QEMU with the arguments that pyro gives it and the very
//! files of pyro's template, tells its monitor to restore, and speaks with the agent:
//! up to the answer to a ping in one row, up to the end of `true` in another, which
//! takes `Activate` and a process as pyro's does. Then it kills QEMU, as pyro does.
//! Unlike pyro it confines nothing, makes no disk and verifies nothing.

use crate::Result;
use crate::boot::Blueprint;
use crate::children;
use crate::exec::start_true;
use crate::footprint::mib;
use crate::guest::{self, Guest, only_child};
use crate::report::{Figure, Goal, Row};
use crate::sample::{Pairs, Series};
use crate::workspace::Workspace;
use pyro_protocol::channel::{self, Before, Opener, Side};
use pyro_protocol::power::{Activate, Activated, ENTROPY_LEN, Ping, Pong};
use pyro_protocol::process::{Exit, ProcessStarted};
use pyro_protocol::{
    ByteString, CALL_PORT, Call, FrameKind, FrameReader, FrameWriter, Hello, Welcome,
};
use pyro_smoke::Home;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::Write;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

const ROUNDS: usize = 11;

/// Workspaces at the same time.
const CROWD: usize = 10;

/// From a workspace's start to the look at its memory.
const SETTLING: Duration = Duration::from_secs(1);

/// The number of the saved state in the bare QEMU.
const STATE: RawFd = 42;

/// Nothing takes longer than this.
const DEADLINE: Duration = Duration::from_secs(60);

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    Ok([commands(home)?, memory(home)?].into_iter().flatten().collect())
}

fn commands(home: &Home) -> Result<Vec<Figure>> {
    let bare = bare(home)?;
    bare_restore(&bare, true)?;
    let (mut pairs, mut pings, mut trues) =
        (Pairs::default(), Series::default(), Series::default());
    for round in 0..=ROUNDS {
        let ours = millis(run(home, &[])?);
        let cold = millis(run(home, &["--cold"])?);
        let ping = millis(bare_restore(&bare, false)?);
        let done = millis(bare_restore(&bare, true)?);
        // The first round makes the template.
        if round > 0 {
            pairs.ours.push(ours);
            pairs.floor.push(cold);
            pings.push(ping);
            trues.push(done);
        }
    }
    let note = format!("median of the {ROUNDS} pairwise ratios: {:.3}", pairs.median_of_ratios());
    let ours = Row::new(
        "`pyro run debian:12 -- true` from a template, the whole process",
        "ms",
        pairs.ours.clone(),
    );
    let again = Row::new(
        "`pyro run debian:12 -- true` from a template, the whole process",
        "ms",
        pairs.ours.clone(),
    );
    let against = |series: &Series| pairs.ours.median() / series.median();
    Ok(vec![
        Figure {
            title: "A command from a template, against one in a machine that boots",
            goal: Goal::at_most(pairs.ratio_of_medians(), 0.35, ""),
            rows: vec![ours, Row::new("the same with `--cold`", "ms", pairs.floor.clone())],
            notes: vec![note],
        },
        Figure {
            title: "A command from a template, against a bare restore and ping",
            goal: Goal::at_most(against(&pings), 1.8, ""),
            rows: vec![
                again,
                Row::new("a bare QEMU: restore, ping, end", "ms", pings.clone()),
                Row::new(
                    "the same with `Activate` and `true` in place of the ping",
                    "ms",
                    trues.clone(),
                ),
            ],
            notes: vec![format!(
                "against a bare restore, `Activate` and `true`: {:.3}",
                against(&trues)
            )],
        },
    ])
}

fn run(home: &Home, options: &[&str]) -> Result<Duration> {
    let started = Instant::now();
    let mut command = guest::run_with(home, options, &["true"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    children::start(command, libc::SIGTERM)?.succeed()?;
    Ok(started.elapsed())
}

/// All that a bare QEMU needs to restore what pyro restores.
fn bare(home: &Home) -> Result<Blueprint> {
    let guest = Guest::start_with(home, &[], &["sh", "-c", "echo ready; cat"])?;
    let template = template_of(home, guest.vmm)?;
    let mut bare = Blueprint::of(home, &guest)?;
    bare.begin_with(&template.join("memory"), template.join("state"), STATE)?;
    Ok(bare)
}

/// The template whose memory a VMM has mapped.
fn template_of(home: &Home, vmm: libc::pid_t) -> Result<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{vmm}/maps"))?;
    let inodes: Vec<u64> = maps
        .lines()
        .filter(|line| line.ends_with("/memory"))
        .filter_map(|line| line.split_whitespace().nth(4)?.parse().ok())
        .collect();
    let templates = fs::read_dir(home.path().join("cache/templates"))?.flatten();
    let is_its = |path: &PathBuf| {
        path.join("memory").metadata().is_ok_and(|meta| inodes.contains(&meta.ino()))
    };
    let mut its = templates.map(|entry| entry.path()).filter(is_its);
    its.next().ok_or_else(|| "the machine was not restored".into())
}

/// Restores once, and ends it.
fn bare_restore(bare: &Blueprint, whole: bool) -> Result<Duration> {
    let started = Instant::now();
    let mut machine = bare.start(&[])?;
    let on = |name| format!("{{\"capability\":\"{name}\",\"state\":true}}");
    let orders = [
        "{\"execute\":\"qmp_capabilities\"}".to_owned(),
        format!(
            "{{\"execute\":\"migrate-set-capabilities\",\"arguments\":{{\"capabilities\":[{}]}}}}",
            on("x-ignore-shared")
        ),
        format!("{{\"execute\":\"migrate-incoming\",\"arguments\":{{\"uri\":\"fd:{STATE}\"}}}}"),
    ];
    machine.monitor.write_all(orders.join("\n").as_bytes())?;
    machine.channel.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let life = async {
        let channel = tokio::net::UnixStream::from_std(machine.channel)?;
        let side = Side::Host { nonce: 1, before: Before::WholeFrames };
        let (opener, _acceptor, driver) = channel::connect(channel, side).await?;
        tokio::select! {
            done = async {
                if whole {
                    let _: Activated = ask(&opener, activate()).await?;
                    true_(&opener).await
                } else {
                    ask::<Pong>(&opener, Call::from(Ping)).await.map(drop)
                }
            } => done,
            ended = driver => Err(format!("the channel ended: {ended:?}").into()),
        }
    };
    runtime.block_on(async { tokio::time::timeout(DEADLINE, life).await? })?;
    machine.qemu.end();
    Ok(started.elapsed())
}

type Talk = (
    FrameReader<tokio::io::ReadHalf<channel::Stream>>,
    FrameWriter<tokio::io::WriteHalf<channel::Stream>>,
);

async fn say(opener: &Opener, call: Call) -> Result<Talk> {
    let (read, write) = tokio::io::split(opener.open(CALL_PORT).await?);
    let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
    writer.send(FrameKind::Hello, &Hello::ours()).await?;
    writer.send(FrameKind::Call, &call).await?;
    let _: Welcome = reader.expect(FrameKind::Welcome).await?;
    Ok((reader, writer))
}

async fn ask<T: DeserializeOwned>(opener: &Opener, call: Call) -> Result<T> {
    let (mut reader, _writer) = say(opener, call).await?;
    Ok(reader.expect(FrameKind::Reply).await?)
}

async fn true_(opener: &Opener) -> Result<()> {
    let (mut reader, _writer) = say(opener, Call::from(start_true())).await?;
    let _: ProcessStarted = reader.expect(FrameKind::Reply).await?;
    let _: Exit = reader.expect(FrameKind::Exit).await?;
    Ok(())
}

fn activate() -> Call {
    Call::from(Activate {
        entropy: ByteString(vec![7; ENTROPY_LEN]),
        clock_offset_ns: 0,
        hostname: "bare".into(),
        machine_id: "0".repeat(32),
        seeded: false,
    })
}

/// What ten idle workspaces hold, restored and booted.
fn memory(home: &Home) -> Result<Vec<Figure>> {
    let restored = shares(home, &[])?;
    let booted = shares(home, &["--cold"])?;
    let ratio = restored.sum() / booted.sum();
    let note = format!("together {:.0} MiB and {:.0} MiB", restored.sum(), booted.sum());
    Ok(vec![Figure {
        title: "The memory of ten idle workspaces of one template, against ten that booted",
        goal: Goal::at_most(ratio, 0.5, ""),
        rows: vec![
            Row::new("restored: a VMM's share, pages in common divided", "MiB", restored),
            Row::new("booted: the same", "MiB", booted),
        ],
        notes: vec![note],
    }])
}

fn shares(home: &Home, options: &[&str]) -> Result<Series> {
    let workspaces: Vec<_> =
        (0..CROWD).map(|_| Workspace::create(home, options)).collect::<Result<_>>()?;
    std::thread::sleep(SETTLING);
    workspaces
        .iter()
        .map(|workspace| {
            let vmm = only_child(workspace.supervisor()?)?;
            mib(&fs::read_to_string(format!("/proc/{vmm}/smaps_rollup"))?, "Pss:")
        })
        .collect()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
