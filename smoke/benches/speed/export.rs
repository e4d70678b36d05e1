//! `pyro workspace export` of a file of 1 GiB, the whole process, next to as
//! many bytes through a bare stream out of the same agent.
//!
//! The export reads the file in the guest and writes it on the host; the bare
//! stream begins in the agent's memory and ends in this process. So that it is
//! not the host's disk that is measured, the export goes to a file system in
//! memory; one to the disk, where it is complete only when it is written out, is
//! measured too, and so is the disk.

use crate::Result;
use crate::report::{Figure, Goal, Row};
use crate::sample::{Pairs, Series};
use crate::throughput;
use crate::workspace::Workspace;
use pyro_protocol::SOURCE_PORT;
use pyro_smoke::Home;
use std::fs;
use std::path::Path;
use std::time::Instant;

const PAIRS: usize = 5;

const MIB: usize = 1024;

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    let workspace = Workspace::create(home, &["--mem-mib", "2048", "--disk-mib", "8192"])?;
    workspace.shell(&format!("head -c {MIB}M /dev/urandom > large; sync"))?;
    let mut source = workspace.connect(SOURCE_PORT)?;
    let (memory, disk) = (tempfile::tempdir_in("/dev/shm")?, tempfile::tempdir()?);
    let mut pairs = Pairs::default();
    let (mut to_disk, mut plain) = (Series::default(), Series::default());
    for round in 0..=PAIRS {
        let ours = export(&workspace, &memory.path().join("large"))?;
        let bare = throughput::bare_source(&mut source, MIB << 20)?;
        let onto_disk = export(&workspace, &disk.path().join("large"))?;
        let written = write_out(&disk.path().join("zeros"))?;
        // The first round warms the emulator's translations up.
        if round > 0 {
            pairs.ours.push(ours);
            pairs.floor.push(bare);
            to_disk.push(onto_disk);
            plain.push(written);
        }
    }
    let note = format!("median of the {PAIRS} pairwise ratios: {:.3}", pairs.median_of_ratios());
    let agent = workspace.agent_memory("The agent's memory after exporting 1 GiB")?;
    Ok(vec![
        Figure {
            title: "Exporting 1 GiB, against the raw channel",
            goal: Goal::at_least(pairs.ratio_of_medians(), 0.7, ""),
            rows: vec![
                Row::new(
                    "`pyro workspace export` into memory, the whole process",
                    "MiB/s",
                    pairs.ours,
                ),
                Row::new("a bare stream out of the agent", "MiB/s", pairs.floor),
                Row::new("`pyro workspace export` onto the host's disk", "MiB/s", to_disk),
                Row::new("for comparison, writing zeros to that disk", "MiB/s", plain),
            ],
            notes: vec![note],
        },
        agent,
    ])
}

fn export(workspace: &Workspace<'_>, to: &Path) -> Result<f64> {
    let started = Instant::now();
    workspace.ask(&["export"], &["large", "--output", to.to_str().ok_or("not UTF-8")?])?;
    let rate = throughput::rate(started, MIB << 20);
    if fs::metadata(to)?.len() != (MIB as u64) << 20 {
        return Err("the export is not as long as the file".into());
    }
    fs::remove_file(to)?;
    Ok(rate)
}

/// Writes zeros, and waits until they are on the disk.
fn write_out(to: &Path) -> Result<f64> {
    use std::io::Write;
    let started = Instant::now();
    let mut file = fs::File::create(to)?;
    let block = vec![0; 1 << 20];
    for _ in 0..MIB {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let rate = throughput::rate(started, MIB << 20);
    fs::remove_file(to)?;
    Ok(rate)
}
