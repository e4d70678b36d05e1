//! What a machine does before it is saved, so that those that are restored from it
//! need not: programs that nearly every workspace runs are in its page cache then.

use crate::log;
use std::fs;
use std::process::{Command, Stdio};

/// The kernel's word for a machine that is to be saved.
const WORD: &str = "pyro.rehearse";

/// A shell, which starts a program.
const LINE: [&str; 3] = ["/bin/sh", "-c", "true; /bin/true"];

/// Runs a program if the machine is to be saved. One without such programs is
/// saved as it is.
pub(crate) fn run() {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if !line.split_whitespace().any(|word| word == WORD) {
        return;
    }
    let [shell, arguments @ ..] = LINE;
    let ran = Command::new(shell)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match ran {
        Ok(_) => {}
        Err(error) => log::note(format_args!("nothing is rehearsed: {error}")),
    }
}
