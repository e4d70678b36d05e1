//! What the built `pyro` promises of every operation. None of it needs a guest.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/asked.rs"]
mod asked;

#[path = "promises/failures.rs"]
mod failures;
#[path = "promises/installed.rs"]
mod installed;
#[path = "promises/setup.rs"]
mod setup;
#[path = "promises/words.rs"]
mod words;

use std::path::Path;
use std::process::{Command, Stdio};

/// `pyro` at home there, with nothing to read.
fn pyro(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyro"));
    command.env("PYRO_HOME", home).stdin(Stdio::null());
    command
}
