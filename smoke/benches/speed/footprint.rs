//! What a supervisor holds in memory while its guest idles.

use crate::Result;
use crate::guest::Guest;
use crate::report::{Figure, Goal, Row};
use crate::sample::Series;
use pyro_smoke::Home;
use std::fs;
use std::time::Duration;

const RUNS: usize = 7;

/// From the program's first line to the look.
const SETTLING: Duration = Duration::from_secs(1);

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    let (mut resident, mut share) = (Series::default(), Series::default());
    for _ in 0..RUNS {
        let guest = Guest::start(home, &["sh", "-c", "echo ready; cat"])?;
        std::thread::sleep(SETTLING);
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", guest.supervisor))?;
        resident.push(mib(&rollup, "Rss:")?);
        share.push(mib(&rollup, "Pss:")?);
    }
    Ok(vec![Figure {
        title: "The supervisor's memory while its guest idles",
        goal: Goal::at_most(resident.median(), 8.0, "MiB"),
        rows: vec![
            Row::new("resident", "MiB", resident),
            Row::new(
                "its share, pages in common with other `pyro` processes divided",
                "MiB",
                share,
            ),
        ],
        notes: vec![],
    }])
}

/// A figure of `smaps_rollup`.
pub fn mib(rollup: &str, name: &str) -> Result<f64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name)).ok_or(name)?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
