//! Listing 50,000 files of a workspace that is stopped, the whole process, next to
//! what it takes to start it and to list them there.

use crate::Result;
use crate::report::{Figure, Goal, Row};
use crate::sample::Pairs;
use crate::tree;
use crate::workspace::Workspace;
use pyro_smoke::Home;
use serde_json::Value;
use std::time::Instant;

const RUNS: usize = 11;

const FILES: usize = 50_000;
const BYTES: usize = 100;

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    let source = tempfile::tempdir()?;
    tree::plant(source.path(), FILES, BYTES)?;
    let seed = source.path().to_str().ok_or("not UTF-8")?;
    let workspace = Workspace::create(home, &["--seed-path", seed])?;
    workspace.ask(&["stop"], &[])?;
    let mut pairs = Pairs::default();
    for round in 0..=RUNS {
        let started = Instant::now();
        let offline = page(&workspace, "disk", "100000", None)?;
        let ours = started.elapsed().as_secs_f64() * 1e3;
        let started = Instant::now();
        workspace.ask(&["start"], &[])?;
        let running = all(&workspace)?;
        let floor = started.elapsed().as_secs_f64() * 1e3;
        workspace.ask(&["stop"], &[])?;
        if offline.entries.len() < FILES || offline.entries != running {
            return Err(format!("{} and {}", offline.entries.len(), running.len()).into());
        }
        // The first round warms the host's caches up.
        if round > 0 {
            pairs.ours.push(ours);
            pairs.floor.push(floor);
        }
    }
    let note = format!("median of the {RUNS} pairwise ratios: {:.3}", pairs.median_of_ratios());
    Ok(vec![Figure {
        title: "50,000 files of a stopped workspace, against starting it and listing them",
        goal: Goal::at_most(pairs.ratio_of_medians(), 1.3, ""),
        rows: vec![
            Row::new("`pyro workspace disk list`, the whole process", "ms", pairs.ours),
            Row::new("`start` and `file list`, page by page", "ms", pairs.floor),
        ],
        notes: vec![note],
    }])
}

struct Listed {
    entries: Vec<Value>,
    next: Option<String>,
}

fn page(
    workspace: &Workspace<'_>,
    operation: &str,
    limit: &str,
    cursor: Option<&str>,
) -> Result<Listed> {
    let mut words = vec!["--recursive", "--json", "--limit", limit];
    words.extend(cursor.into_iter().flat_map(|cursor| ["--cursor", cursor]));
    let answer = workspace.ask(&[operation, "list"], &words)?;
    let mut answer: Value = serde_json::from_str(&answer)?;
    let next = answer["next_cursor"].as_str().map(str::to_owned);
    let Value::Array(entries) = answer["entries"].take() else {
        return Err(format!("no entries: {answer}").into());
    };
    Ok(Listed { entries, next })
}

/// All of a running one, in as few calls as it takes.
fn all(workspace: &Workspace<'_>) -> Result<Vec<Value>> {
    let mut entries = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let listed = page(workspace, "file", "10000", cursor.as_deref())?;
        entries.extend(listed.entries);
        match listed.next {
            Some(next) => cursor = Some(next),
            None => return Ok(entries),
        }
    }
}
