//! How much memory this process has needed. Of use where each test is a process
//! of its own, as under nextest.

use std::fs;

/// The most that was resident since a moment.
pub struct Footprint {
    before: u64,
}

impl Footprint {
    /// From here on.
    pub fn new() -> Self {
        // 5 resets the peak; where the kernel refuses, more is counted.
        drop(fs::write("/proc/self/clear_refs", "5"));
        Self { before: kib("VmRSS:") }
    }

    /// What came on top of what was there then, in MiB.
    pub fn grown_mib(&self) -> u64 {
        kib("VmHWM:").saturating_sub(self.before) / 1024
    }
}

fn kib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}
