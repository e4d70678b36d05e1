//! `pyro workspace diff` of one change among 50,000 files, the whole process,
//! next to `git diff --no-index --stat` of the same two trees in the same guest;
//! and next to itself in a tenth of the tree.

use crate::Result;
use crate::report::{Figure, Goal, Row};
use crate::sample::{Pairs, Series};
use crate::tree;
use crate::workspace::Workspace;
use pyro_smoke::Home;
use std::time::Instant;

const RUNS: usize = 41;

/// Git takes seconds.
const GIT_RUNS: usize = 3;

const FILES: usize = 50_000;
const BYTES: usize = 100;

/// How much smaller the small tree is.
const TENTH: usize = 10;

/// Says git's milliseconds. The seed is mounted a second time, where git can see
/// it; the second file system shares the first one's cache.
const GIT: &str = "set -e
seed=$(mktemp -d)
mount -t erofs -o ro /dev/vdc $seed
begun=$(date +%s%3N)
git diff --no-index --stat $seed/tree /workspace > /tmp/stat || [ $? = 1 ]
ended=$(date +%s%3N)
grep -q '1 file changed' /tmp/stat
umount $seed
echo $((ended - begun))";

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    let (large, small) = (changed(home, FILES)?, changed(home, FILES / TENTH)?);
    let mut pairs = Pairs::default();
    for round in 0..=RUNS {
        let (of_large, of_small) = (diff(&large)?, diff(&small)?);
        // The first round warms the emulator's translations up.
        if round > 0 {
            pairs.ours.push(of_large);
            pairs.floor.push(of_small);
        }
    }
    let mut git = Series::default();
    for round in 0..=GIT_RUNS {
        let took: f64 = large.shell(GIT)?.trim_end().parse()?;
        // The first round reads both trees into the guest's cache.
        if round > 0 {
            git.push(took);
        }
    }
    let note = format!("median of the {RUNS} pairwise ratios: {:.3}", pairs.median_of_ratios());
    let memory = large.agent_memory("The agent's memory after comparing 50,000 files")?;
    Ok(vec![
        Figure {
            title: "1 change in 50,000 files, against git in the guest",
            goal: Goal::at_most(pairs.ours.median() / git.median(), 0.02, ""),
            rows: vec![
                Row::new(
                    "`pyro workspace diff --stat`, the whole process",
                    "ms",
                    pairs.ours.clone(),
                ),
                Row::new("`git diff --no-index --stat` of seed and workspace", "ms", git),
            ],
            notes: vec![],
        },
        Figure {
            title: "1 change in 50,000 files, against 1 change in 5,000",
            goal: Goal::at_most(pairs.ratio_of_medians(), 1.3, ""),
            rows: vec![
                Row::new("`pyro workspace diff --stat`, 50,000 files", "ms", pairs.ours),
                Row::new("the same, 5,000 files", "ms", pairs.floor),
            ],
            notes: vec![note],
        },
        memory,
    ])
}

/// A workspace of so many files, one of them changed.
fn changed(home: &Home, files: usize) -> Result<Workspace<'_>> {
    let source = tempfile::tempdir()?;
    tree::plant(source.path(), files, BYTES)?;
    let seed = source.path().to_str().ok_or("not UTF-8")?;
    // What git is to keep in the guest's cache needs room.
    let workspace = Workspace::create(home, &["--mem-mib", "2048", "--seed-path", seed])?;
    workspace.shell(&format!("echo changed > {}", tree::file_name(files / 2)))?;
    Ok(workspace)
}

fn diff(workspace: &Workspace<'_>) -> Result<f64> {
    let started = Instant::now();
    let stat = workspace.ask(&["diff"], &["--stat"])?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    match stat.contains("1 file changed") {
        true => Ok(took),
        false => Err(format!("not one change: {stat}").into()),
    }
}
