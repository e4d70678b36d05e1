//! Runs one program in a fresh microVM and passes on what it writes, as it
//! writes it.
//!
//! A program that uses the library must say where the `pyro` executable is,
//! which supervises its machines:
//!
//! ```sh
//! export PYRO_EXECUTABLE=$PWD/target/x86_64-unknown-linux-musl/release/pyro
//! cargo run -p pyro --example run -- uname -a
//! ```

use pyro::operation::Run;
use pyro::{Config, Context, Event, Events, Pyro, Result};
use std::io::Write;
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words = if words.is_empty() { vec!["git".into(), "--version".into()] } else { words };
    let pyro = Pyro::new(Config::from_environment()?);
    let (events, mut told) = Events::channel();
    let context = Context { events, ..Context::default() };
    let running = pyro.call_with(Run::new("debian:12", words), context);
    let listening = async {
        while let Some(event) = told.recv().await {
            match event {
                Event::Output { bytes, .. } => {
                    // Whoever reads our output may have had enough.
                    drop(std::io::stdout().write_all(&bytes));
                }
                Event::Stage { name, subject } => eprintln!("{name} {subject}"),
                Event::Warning(warning) => eprintln!("warning: {warning}"),
                Event::Progress(_) | Event::ProgramStarted => {}
            }
        }
    };
    let (answer, ()) = tokio::join!(running, listening);
    let answer = answer?;
    eprintln!("exit code {} after {} ms", answer.exit_code, answer.duration_ms);
    Ok(answer.exit_code.into())
}
