//! The host's time to make a seed disk of a directory, next to the two commands
//! that make a tar archive and an ext4 image of the same tree.
//!
//! pyro's time runs from the moment when `pyro workspace create` says that it
//! is seeding to the one when it says that it is booting; making the
//! workspace's own disk is in it. The guest only mounts what was made.

use crate::Result;
use crate::children;
use crate::guest::{self, ENVIRONMENT};
use crate::report::{Figure, Goal, Row};
use crate::sample::{Pairs, Series};
use crate::tree;
use pyro_smoke::Home;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const PAIRS: usize = 7;

const FILES: usize = 10_000;
const BYTES: usize = 10_000;

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    let scratch = tempfile::tempdir()?;
    let source = scratch.path().join("source");
    tree::plant(&source, FILES, BYTES)?;
    let mut pairs = Pairs::default();
    let (mut archive, mut image) = (Series::default(), Series::default());
    for round in 0..=PAIRS {
        let ours = seed(home, &source)?;
        let (tar, ext4) = (tar(&source, scratch.path())?, mke2fs(&source, scratch.path())?);
        // The first round reads the tree into the host's cache.
        if round > 0 {
            pairs.ours.push(ours);
            pairs.floor.push(tar + ext4);
            archive.push(tar);
            image.push(ext4);
        }
    }
    let note = format!("median of the {PAIRS} pairwise ratios: {:.3}", pairs.median_of_ratios());
    Ok(vec![Figure {
        title: "Seeding 10,000 files of 10 kB, against tar and mke2fs",
        goal: Goal::at_most(pairs.ratio_of_medians(), 0.5, ""),
        rows: vec![
            Row::new(
                "`pyro workspace create --seed-path`, from seeding to booting",
                "ms",
                pairs.ours,
            ),
            Row::new("`tar cf` and `mke2fs -d` of the same tree", "ms", pairs.floor),
            Row::new("of it, `tar cf`", "ms", archive),
            Row::new("of it, `mke2fs -d`", "ms", image),
        ],
        notes: vec![note],
    }])
}

/// Makes a workspace of the tree and deletes it again.
fn seed(home: &Home, source: &Path) -> Result<f64> {
    let source = source.to_str().ok_or("not UTF-8")?;
    let mut command = guest::pyro(
        home,
        &["workspace", "create", ENVIRONMENT, "--id-only", "--seed-path", source],
    );
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut pyro = children::start(command, libc::SIGTERM)?;
    let said = BufReader::new(pyro.child().stderr.take().ok_or("no stderr")?);
    let (mut seeding, mut took) = (None, None);
    for line in said.lines() {
        let line = line?;
        if line.contains("seeding") {
            seeding = Some(Instant::now());
        } else if line.contains("booting") {
            took = seeding.map(|at| at.elapsed().as_secs_f64() * 1e3);
        }
    }
    let id = std::io::read_to_string(pyro.child().stdout.take().ok_or("no stdout")?)?;
    pyro.succeed()?;
    children::output(guest::pyro(home, &["workspace", "delete", id.trim_end()]))?;
    took.ok_or_else(|| "pyro did not say that it seeds and boots".into())
}

fn tar(source: &Path, into: &Path) -> Result<f64> {
    let mut command = Command::new("tar");
    command.arg("cf").arg(into.join("tree.tar")).arg("-C").arg(source).arg(".");
    time(command, &into.join("tree.tar"))
}

fn mke2fs(source: &Path, into: &Path) -> Result<f64> {
    let image = into.join("tree.ext4");
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-t", "ext4", "-d"]).arg(source).arg(&image).arg("200M");
    time(command, &image)
}

/// How long a command takes that makes a file; the file is removed again.
fn time(command: Command, made: &Path) -> Result<f64> {
    let started = Instant::now();
    children::output(command)?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    std::fs::remove_file(made)?;
    Ok(took)
}
