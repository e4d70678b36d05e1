//! The agent's own lines, in the kernel's log: on the console by their level.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;

/// The most bytes of one line; the kernel takes a kilobyte with its prefix.
const LINE_MAX: usize = 900;

static KERNEL: OnceLock<File> = OnceLock::new();

/// Sends lines to /dev/kmsg from here on. Before, and where that is not to be
/// had (the in-process guest of tests), they go nowhere.
pub fn to_kernel() {
    if let Ok(kmsg) = OpenOptions::new().write(true).open("/dev/kmsg") {
        // A second call keeps the first one's descriptor: the same log.
        KERNEL.get_or_init(|| kmsg);
    }
}

/// Something worth knowing.
pub fn note(line: fmt::Arguments<'_>) {
    write(6, line);
}

/// Something that went wrong and that the agent survives.
pub fn warn(line: fmt::Arguments<'_>) {
    write(4, line);
}

/// Something that ends the machine: it reaches the console even with `quiet`,
/// which our own kernel takes to mean "emergencies only".
pub fn fatal(line: fmt::Arguments<'_>) {
    write(0, line);
}

fn write(level: u8, line: fmt::Arguments<'_>) {
    let Some(mut kmsg) = KERNEL.get() else { return };
    let mut line = format!("<{level}>pyro-agent: {line}");
    line.truncate(line.floor_char_boundary(LINE_MAX));
    // A log that cannot be written has nowhere to say so.
    drop(kmsg.write_all(line.replace('\n', " ").as_bytes()));
}

/// An error and everything that caused it, on one line.
pub(crate) struct Chain<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
