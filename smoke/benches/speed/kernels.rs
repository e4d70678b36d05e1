//! The tuned kernel next to Debian's own, both in the same machine.

use crate::Result;
use crate::children;
use crate::report::{Figure, Goal, Row};
use crate::sample::Pairs;
use pyro_smoke::Home;
use serde_json::Value;

const PAIRS: usize = 7;

/// Between two boots of one kernel there is noise; the tuned one is to be
/// quicker beyond that, or it need not be built.
const WORTH_IT: f64 = 0.8;

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    let mut pairs = Pairs::default();
    for kernel in ["tuned", "stock"] {
        boot(home, kernel)?;
    }
    for _ in 0..PAIRS {
        pairs.ours.push(boot(home, "tuned")?);
        pairs.floor.push(boot(home, "stock")?);
    }
    let note = format!("median of the {PAIRS} pairwise ratios: {:.3}", pairs.median_of_ratios());
    Ok(vec![Figure {
        title: "A boot with the tuned kernel, against Debian's",
        goal: Goal::at_most(pairs.ratio_of_medians(), WORTH_IT, ""),
        rows: vec![
            Row::new("tuned: from starting the VMM to the mounted workspace", "ms", pairs.ours),
            Row::new("Debian's, to the same", "ms", pairs.floor),
        ],
        notes: vec![note],
    }])
}

/// How long a guest with this kernel takes, in milliseconds.
fn boot(home: &Home, kernel: &str) -> Result<f64> {
    let mut command = home.pyro(["run", "--cold", "--json", "debian:12", "--", "true"]);
    command.env("PYRO_KERNEL", kernel);
    let answer: Value = serde_json::from_str(&children::output(command)?)?;
    Ok(answer["boot_ms"].as_f64().ok_or("the answer has no boot_ms")?)
}
