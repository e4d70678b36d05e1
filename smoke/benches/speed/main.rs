//! What pyro costs, next to what cannot be avoided: `make bench`.
//!
//! Every figure that is a ratio compares two things measured in turn, in this
//! one process, so that whatever else the host does hits both. The figures go
//! to the terminal and to docs/performance.md. A missed goal is said, and is no
//! failure: a benchmark that fails on a busy host would be switched off.
//!
//! `cargo bench -p pyro-smoke -- boot memory` measures only what the words name
//! and writes no file.

mod boot;
mod children;
mod cost;
mod diff;
mod disk;
mod egress;
mod exec;
mod export;
mod firecracker;
mod footprint;
mod guest;
mod host;
mod idle;
mod kernels;
mod ports;
mod push;
mod report;
mod sample;
mod seed;
mod shell;
mod snapshot;
mod template;
mod throughput;
mod tree;
#[path = "../../../host/tests/support/tty.rs"]
#[allow(clippy::unwrap_used, reason = "shared with tests, which fail so")]
mod tty;
mod version;
mod workspace;

use pyro_smoke::Home;
use report::Figure;
use std::process::ExitCode;

/// What ends the benchmark: there is nobody to tell errors apart.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A part of the benchmark, by the word that asks for it.
type Part = (&'static str, fn(&Home) -> Result<Vec<Figure>>);

const PARTS: &[Part] = &[
    ("boot", boot::measure),
    ("kernels", kernels::measure),
    ("template", template::measure),
    ("firecracker", firecracker::measure),
    ("cost", cost::measure),
    ("throughput", throughput::measure),
    ("memory", footprint::measure),
    ("exec", exec::measure),
    ("seed", seed::measure),
    ("push", push::measure),
    ("diff", diff::measure),
    ("export", export::measure),
    ("disk", disk::measure),
    ("ports", ports::measure),
    ("egress", egress::measure),
    ("snapshot", snapshot::measure),
    ("shell", shell::measure),
    ("idle", idle::measure),
    ("version", version::measure),
];

fn main() -> ExitCode {
    children::end_on_signals();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if children::interrupted() => ExitCode::from(130),
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    // Cargo adds a switch of its own.
    let asked: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if asked == [firecracker::INSIDE] {
        return firecracker::inside();
    }
    let home = Home::new();
    let conditions = host::Conditions::gather(&home)?;
    // Formats the disk and measures what pyro keeps; neither is part of a boot.
    guest::warm_up(&home)?;
    let mut figures = Vec::new();
    for (word, measure) in PARTS {
        if asked.is_empty() || asked.iter().any(|asked| asked == word) {
            eprintln!("==> measuring: {word}");
            figures.extend(measure(&home)?);
        }
    }
    let report = report::Report { conditions, load_after: host::load()?, figures };
    print!("{}", report.to_text());
    if asked.is_empty() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/performance.md");
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"))?;
        std::fs::write(path, report.to_markdown())?;
        eprintln!("==> written to docs/performance.md");
    }
    Ok(())
}
