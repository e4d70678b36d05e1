//! What pyro must know of the host, measured once per boot and kept.

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::store::private_dir;
use crate::store::record::{self, Record};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What stays true until the host boots again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The kernel's id of this boot.
    boot_id: String,
    /// The rate of the time stamp counter, in kHz.
    pub tsc_khz: u64,
    /// Whether a guest booted with KVM; `None` until somebody has tried.
    pub kvm: Option<Tried>,
}

/// What came of a try to boot with KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// Whether it did.
    pub boots: bool,
    /// When.
    pub at: Timestamp,
}

/// How long a failure with KVM is believed in: a host that was too busy for a
/// moment is not to translate guests until it boots again.
const FAILURE_MAX: SignedDuration = SignedDuration::from_mins(10);

impl Record for Facts {
    const VERSION: u32 = 1;
}

/// Long enough for an error of some parts in a million, which the guest's clock
/// shares; short enough to go unnoticed once per boot.
const MEASURE: Duration = Duration::from_millis(50);

impl Facts {
    /// The facts of this boot, measured if nobody has yet.
    pub fn gather(config: &Config) -> Result<Self> {
        let boot_id = read("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        // Whatever is wrong with what was kept, measuring again is the cure.
        if let Ok(facts) = record::read::<Self>(&path(config))
            && facts.boot_id == boot_id
        {
            return Ok(facts);
        }
        let facts = Self { boot_id, tsc_khz: measure_tsc_khz(), kvm: None };
        facts.keep(config)?;
        Ok(facts)
    }

    /// Whether a guest boots with KVM; `None` when that must be tried.
    #[must_use]
    pub fn kvm_boots(&self) -> Option<bool> {
        let believed = |tried: &Tried| {
            tried.boots || Timestamp::now().duration_since(tried.at).abs() < FAILURE_MAX
        };
        self.kvm.filter(believed).map(|tried| tried.boots)
    }

    /// Remembers these facts until the host boots again.
    pub fn keep(&self, config: &Config) -> Result<()> {
        private_dir(&config.cache_dir)?;
        record::write(&path(config), self)
    }
}

/// Remembers whether a guest boots with KVM, so that nobody need guess. That
/// it cannot be remembered costs a guess and nothing else.
pub fn remember_kvm(config: &Config, boots: bool) {
    if let Ok(mut facts) = Facts::gather(config) {
        facts.kvm = Some(Tried { boots, at: Timestamp::now() });
        drop(facts.keep(config));
    }
}

fn path(config: &Config) -> PathBuf {
    config.cache_dir.join("host.json")
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|error| Error::io(format!("cannot read {path}"), error))
}

fn measure_tsc_khz() -> u64 {
    // Between two points that are taken as close to a clock reading as can be;
    // `Instant` is CLOCK_MONOTONIC, whose slewing is below what matters here.
    let point = || {
        (0..8)
            .map(|_| {
                let before = Instant::now();
                // SAFETY: every x86-64 processor has the instruction.
                let ticks = unsafe { std::arch::x86_64::_rdtsc() };
                (before.elapsed(), before, ticks)
            })
            .min_by_key(|(width, ..)| *width)
            .map(|(_, at, ticks)| (at, ticks))
            .expect("eight tries")
    };
    let (start, first) = point();
    std::thread::sleep(MEASURE);
    let (end, last) = point();
    let nanoseconds = (end - start).as_nanos();
    u64::try_from(u128::from(last - first) * 1_000_000 / nanoseconds).unwrap_or(0)
}

/// Memory that the host can give without swapping, in MiB.
pub fn available_mem_mib() -> Result<u64> {
    let text = read("/proc/meminfo")?;
    kib_of(&text, "MemAvailable:")
        .map(|kib| kib / 1024)
        .ok_or_else(|| Error::new(ErrorKind::Internal, "/proc/meminfo has no MemAvailable"))
}

/// A line's figure, as the kernel writes them.
fn kib_of(text: &str, label: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// How much of a process is in memory, in MiB; `None` when there is none.
#[must_use]
pub fn resident_mib(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    kib_of(&text, "VmRSS:").map(|kib| kib / 1024)
}

/// Whether the processor says that it can run guests: a good first guess, not a
/// proof. `pyro doctor` tries.
#[must_use]
pub fn processor_claims_kvm() -> bool {
    let flags = |text: String| {
        text.lines().find_map(|line| line.strip_prefix("flags")).is_some_and(|flags| {
            flags.split_whitespace().any(|flag| flag == "svm" || flag == "vmx")
        })
    };
    fs::File::options().read(true).write(true).open("/dev/kvm").is_ok()
        && fs::read_to_string("/proc/cpuinfo").is_ok_and(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_measured_once_per_boot() {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::within(home.path());
        let measured = Facts::gather(&config).expect("measured");
        assert!(measured.tsc_khz > 100_000, "{measured:?}");
        let kept = Facts { kvm: Some(tried(true)), ..measured };
        kept.keep(&config).expect("kept");
        assert_eq!(Facts::gather(&config).expect("read"), kept);
        assert_eq!(kept.kvm_boots(), Some(true), "for as long as the host is up");
    }

    /// Long ago.
    fn tried(boots: bool) -> Tried {
        Tried { boots, at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn a_failure_is_not_believed_in_for_ever() {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::within(home.path());
        remember_kvm(&config, false);
        let mut facts = Facts::gather(&config).expect("read");
        assert_eq!(facts.kvm_boots(), Some(false));
        facts.kvm = Some(tried(false));
        assert_eq!(facts.kvm_boots(), None);
    }

    #[test]
    fn those_of_another_boot_or_damaged_ones_are_measured_again() {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::within(home.path());
        let old = Facts { boot_id: "another".into(), tsc_khz: 1, kvm: Some(tried(true)) };
        old.keep(&config).expect("kept");
        let fresh = Facts::gather(&config).expect("measured");
        assert!(fresh.tsc_khz > 1 && fresh.kvm.is_none(), "{fresh:?}");
        fs::write(path(&config), "{ torn").expect("written");
        assert!(Facts::gather(&config).expect("measured").kvm.is_none());
    }

    #[test]
    fn two_measurements_agree() {
        let (one, other) = (measure_tsc_khz(), measure_tsc_khz());
        // Generous: the host is busy, and what a guest needs is tested in one.
        assert!(one.abs_diff(other) * 100 < one, "{one} {other}");
    }
}
