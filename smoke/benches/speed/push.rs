//! `pyro workspace sync push` of 10,000 files of which one has changed, next to
//! the first push of them all.

use crate::Result;
use crate::report::{Figure, Goal, Row};
use crate::sample::Pairs;
use crate::tree;
use crate::workspace::Workspace;
use pyro_smoke::Home;
use std::fs;
use std::time::Instant;

const PAIRS: usize = 5;

const FILES: usize = 10_000;
const BYTES: usize = 10_000;

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    let scratch = tempfile::tempdir()?;
    let source = scratch.path().join("source");
    tree::plant(&source, FILES, BYTES)?;
    let workspace = Workspace::create(home, &[])?;
    let mut pairs = Pairs::default();
    for round in 0..=PAIRS {
        let destination = format!("/workspace/{round}");
        let push = || -> Result<f64> {
            let started = Instant::now();
            let from = source.to_str().ok_or("not UTF-8")?;
            workspace.ask(&["sync", "push"], &[from, "--dest", &destination])?;
            Ok(started.elapsed().as_secs_f64() * 1e3)
        };
        let first = push()?;
        fs::write(source.join(tree::file_name(FILES / 2)), format!("changed {round}\n"))?;
        let again = push()?;
        let pushed = workspace
            .ask(&["file", "read"], &[&format!("{destination}/{}", tree::file_name(FILES / 2))])?;
        if pushed != format!("changed {round}\n") {
            return Err("the change was not pushed".into());
        }
        // The first round reads the tree into the host's cache.
        if round > 0 {
            pairs.ours.push(again);
            pairs.floor.push(first);
        }
    }
    let note = format!("median of the {PAIRS} pairwise ratios: {:.3}", pairs.median_of_ratios());
    let memory = workspace.agent_memory("The agent's memory after pushing 100 MB")?;
    Ok(vec![
        Figure {
            title: "Pushing 1 changed file of 10,000, against the first push",
            goal: Goal::at_most(pairs.ratio_of_medians(), 0.2, ""),
            rows: vec![
                Row::new("`pyro workspace sync push` after one change", "ms", pairs.ours),
                Row::new("the first `pyro workspace sync push`, 100 MB", "ms", pairs.floor),
            ],
            notes: vec![note],
        },
        memory,
    ])
}
