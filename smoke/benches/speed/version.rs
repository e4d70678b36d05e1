//! `pyro --version`, from exec to the end.

use crate::Result;
use crate::report::{Figure, Goal, Row};
use crate::sample::Pairs;
use pyro_smoke::Home;
use std::process::{Command, Stdio};
use std::time::Instant;

const PAIRS: usize = 41;

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    let mut pairs = Pairs::default();
    for _ in 0..PAIRS {
        pairs.ours.push(time(home.pyro(["--version"]))?);
        pairs.floor.push(time(Command::new("true"))?);
    }
    let goal = Goal::at_most(pairs.ours.median(), 10.0, "ms");
    Ok(vec![Figure {
        title: "`pyro --version`",
        goal,
        rows: vec![
            Row::new("`pyro --version`", "ms", pairs.ours),
            Row::new("for comparison, `true`", "ms", pairs.floor),
        ],
        notes: vec![],
    }])
}

fn time(mut command: Command) -> Result<f64> {
    let started = Instant::now();
    let status = command.stdout(Stdio::null()).status()?;
    let took = started.elapsed();
    if !status.success() {
        return Err(format!("{:?} ended with {status}", command.get_program()).into());
    }
    Ok(took.as_secs_f64() * 1e3)
}
