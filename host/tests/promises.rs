//! What the built `pyro` promises of every operation, and of what it does not
//! do. None of it needs a guest.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/alone.rs"]
mod alone;
#[path = "support/asked.rs"]
mod asked;
#[path = "machinery/fake_vmm.rs"]
#[allow(dead_code, reason = "shared with the hostile agents")]
mod fake_vmm;
#[path = "machinery/home.rs"]
#[allow(dead_code, reason = "shared with whole operations")]
mod home;
#[path = "support/watch.rs"]
#[allow(dead_code, reason = "shared with whole operations")]
mod watch;

#[path = "promises/failures.rs"]
mod failures;
#[path = "promises/idleness.rs"]
mod idleness;
#[path = "promises/installed.rs"]
mod installed;
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
