//! Snapshots of a workspace with 1 GiB written, next to copies of the same file,
//! and going back to one next to a plain start.
//!
//! A snapshot is on the host's disk when it is told; so is the copy it is
//! compared with. Where files are copied by reference (an XFS of the bench's own,
//! if it may mount one) the guest's part shows: what freezing and thawing its
//! file system would take is measured inside it.

use crate::Result;
use crate::report::{Figure, Goal, Row};
use crate::sample::{Pairs, Series};
use crate::workspace::Workspace;
use pyro_smoke::Home;
use pyro_smoke::mounted::FileSystem;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const PAIRS: usize = 7;

/// Of starts and resets, each of which boots.
const BOOTS: usize = 7;

const MIB: usize = 1024;

/// Room for the disk, its copies where they are none, and a journal.
const FILE_SYSTEM_BYTES: u64 = 4 << 30;

/// Freezes and thaws the workspace's file system, and says how many milliseconds
/// that took.
const FREEZE: &str = "mkdir -p /run/disk && mount /dev/vdb /run/disk && python3 -c '
import fcntl, os, time
top = os.open(\"/run/disk\", os.O_RDONLY)
begin = time.perf_counter()
fcntl.ioctl(top, 0xc0045877)
fcntl.ioctl(top, 0xc0045878)
print((time.perf_counter() - begin) * 1e3)'; umount /run/disk";

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    let mut figures = vec![in_full(home)?, reset(home)?];
    // Else it has said why not.
    if let Some(home) = Home::on(FileSystem::ByReference(FILE_SYSTEM_BYTES)) {
        figures.push(by_reference(&home)?);
    }
    Ok(figures)
}

fn written(home: &Home) -> Result<Workspace<'_>> {
    let workspace = Workspace::create(home, &["--mem-mib", "1024", "--disk-mib", "8192"])?;
    workspace.shell(&format!("head -c {MIB}M /dev/urandom > large; sync"))?;
    Ok(workspace)
}

fn disk(home: &Home, workspace: &Workspace<'_>) -> PathBuf {
    home.path().join("state/workspaces").join(workspace.id()).join("disk-0.ext4")
}

/// Milliseconds.
fn timed(doing: impl FnOnce() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    doing()?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

fn copy(how: &str, from: &Path, to: &Path) -> Result<f64> {
    let taken = timed(|| {
        run(Command::new("cp").arg(how).args([from, to]))?;
        run(Command::new("sync").arg(to))
    })?;
    std::fs::remove_file(to)?;
    Ok(taken)
}

fn snapshot(workspace: &Workspace<'_>) -> Result<f64> {
    let taken = timed(|| workspace.ask(&["snapshot", "create"], &["s"]).map(drop))?;
    workspace.ask(&["snapshot", "delete"], &["s"])?;
    Ok(taken)
}

fn in_full(home: &Home) -> Result<Figure> {
    let workspace = written(home)?;
    let disk = disk(home, &workspace);
    let mut pairs = Pairs::default();
    for round in 0..=PAIRS {
        let ours = snapshot(&workspace)?;
        let floor = copy("--sparse=always", &disk, &disk.with_extension("copy"))?;
        // The first round brings the file into the host's memory.
        if round > 0 {
            pairs.ours.push(ours);
            pairs.floor.push(floor);
        }
    }
    let goal = Goal::at_most(pairs.ratio_of_medians(), 1.2, "");
    let note = format!("median of the {PAIRS} pairwise ratios: {:.3}", pairs.median_of_ratios());
    Ok(Figure {
        title: "A snapshot of 1 GiB, against a sparse copy",
        goal,
        rows: vec![
            Row::new("`pyro workspace snapshot create`", "ms", pairs.ours),
            Row::new("`cp --sparse=always`, and `sync`", "ms", pairs.floor),
        ],
        notes: vec![note],
    })
}

fn by_reference(home: &Home) -> Result<Figure> {
    let workspace = written(home)?;
    let disk = disk(home, &workspace);
    let (mut ours, mut copies, mut freezes) =
        (Series::default(), Series::default(), Series::default());
    for round in 0..=PAIRS {
        let taken = snapshot(&workspace)?;
        let copied = copy("--reflink=always", &disk, &disk.with_extension("copy"))?;
        let frozen: f64 = workspace.shell(FREEZE)?.trim().parse()?;
        if round > 0 {
            ours.push(taken);
            copies.push(copied);
            freezes.push(frozen);
        }
    }
    let bound = 2.0 * copies.median() + freezes.median();
    let note = format!("twice the copy and a freeze: {bound:.2} ms; the goal is at most that");
    Ok(Figure {
        title: "A snapshot of 1 GiB by reference, against two such copies and a freeze",
        goal: Goal::at_most(ours.median() / bound, 1.0, ""),
        rows: vec![
            Row::new("`pyro workspace snapshot create`", "ms", ours),
            Row::new("`cp --reflink=always`, and `sync`", "ms", copies),
            Row::new("freezing and thawing the file system in the guest", "ms", freezes),
        ],
        notes: vec![note],
    })
}

fn reset(home: &Home) -> Result<Figure> {
    let workspace = Workspace::create(home, &[])?;
    workspace.ask(&["snapshot", "create"], &["s"])?;
    let exec = || workspace.ask(&["exec"], &["--", "true"]).map(drop);
    let (mut pairs, mut to_snapshot) = (Pairs::default(), Series::default());
    for round in 0..=BOOTS {
        let ours = timed(|| {
            workspace.ask(&["reset"], &[])?;
            exec()
        })?;
        let back = timed(|| {
            workspace.ask(&["reset"], &["--snapshot", "s"])?;
            exec()
        })?;
        workspace.ask(&["stop"], &[])?;
        let floor = timed(|| {
            workspace.ask(&["start"], &[])?;
            exec()
        })?;
        if round > 0 {
            pairs.ours.push(ours);
            pairs.floor.push(floor);
            to_snapshot.push(back);
        }
    }
    let goal = Goal::at_most(pairs.ratio_of_medians(), 1.15, "");
    let note = format!("median of the {BOOTS} pairwise ratios: {:.3}", pairs.median_of_ratios());
    Ok(Figure {
        title: "A reset up to the first command, against a start",
        goal,
        rows: vec![
            Row::new("`reset` of a running workspace, then `exec -- true`", "ms", pairs.ours),
            Row::new("`reset --snapshot`, likewise", "ms", to_snapshot),
            Row::new("`start` of a stopped one, then `exec -- true`", "ms", pairs.floor),
        ],
        notes: vec![note],
    })
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}
