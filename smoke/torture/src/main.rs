//! Random operations on several workspaces, while callers, supervisors, VMMs and
//! agents are killed, the disk fills up and becomes read-only; checked against a
//! model of what every workspace may hold: `make torture`.
//!
//! ```text
//! pyro-torture [--minutes N] [--workers N] [--seed N] [--report]
//! ```
//!
//! What pyro has answered must hold: a file that was written and synced is there,
//! whatever is killed afterwards; what was cut short has happened once or not at
//! all; a snapshot has what it had when it was taken. Every breach of that is a
//! violation, and the whole fails. With `--report` the figures go to
//! docs/reliability.md.

mod caller;
mod faults;
mod ground;
mod model;
mod tally;
mod worker;

use faults::Faults;
use ground::Ground;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tally::Tally;

/// What was asked for.
struct Asked {
    minutes: u64,
    workers: u64,
    seed: u64,
    report: bool,
}

impl Asked {
    fn from_words(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut asked = Self { minutes: 5, workers: 4, seed: fastrand::u64(..), report: false };
        while let Some(word) = words.next() {
            let mut number = || {
                let value = words.next().and_then(|value| value.parse().ok());
                value.ok_or_else(|| format!("{word} takes a number"))
            };
            match word.as_str() {
                "--minutes" => asked.minutes = number()?,
                "--workers" => asked.workers = number()?,
                "--seed" => asked.seed = number()?,
                "--report" => asked.report = true,
                _ => {
                    return Err(format!(
                        "{word}: there are --minutes, --workers, --seed, --report"
                    ));
                }
            }
        }
        Ok(asked)
    }
}

fn main() -> ExitCode {
    let asked = match Asked::from_words(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(error) => {
            eprintln!("pyro-torture: {error}");
            return ExitCode::from(2);
        }
    };
    eprintln!("==> {} minutes, {} workers, seed {}", asked.minutes, asked.workers, asked.seed);
    let ground = Ground::prepare();
    if let Some(why) = ground.lacks() {
        eprintln!("==> no disk faults: {why}");
    }
    let (tally, faults, over) = (Tally::default(), Faults::default(), AtomicBool::new(false));
    let end = Instant::now() + Duration::from_secs(60 * asked.minutes);
    std::thread::scope(|scope| {
        let mut random = fastrand::Rng::with_seed(asked.seed);
        let workers: Vec<_> = (0..asked.workers)
            .map(|number| {
                let (ground, tally, faults) = (&ground, &tally, &faults);
                let random = random.fork();
                scope.spawn(move || worker::work(number, ground, faults, tally, random, end))
            })
            .collect();
        let (ground, tally, faults, over) = (&ground, &tally, &faults, &over);
        let mut random = random.fork();
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) && Instant::now() < end {
                faults::inject(ground, faults, tally, &mut random);
            }
        });
        for worker in workers {
            if worker.join().is_err() {
                tally.violation("a worker of the torture itself failed".to_owned());
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    ground.check_clean(&tally);
    print!("{}", tally.to_text());
    if asked.report {
        let page = tally.to_markdown(asked.minutes, asked.workers, asked.seed, &ground);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reliability.md");
        if let Err(error) = std::fs::write(path, page) {
            eprintln!("pyro-torture: cannot write {path}: {error}");
            return ExitCode::FAILURE;
        }
    }
    if tally.violations().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
