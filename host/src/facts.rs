//! What pyro must know of the host, measured or tried once and kept for as long
//! as it can be true.

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::store::lock::{Lock, Mode};
use crate::store::private_dir;
use crate::store::record::{self, Record};
use crate::vmm::{self, Rung};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What stays true until the host boots again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The kernel's id of this boot.
    boot_id: String,
    /// The rate of the time stamp counter, in kHz.
    pub tsc_khz: u64,
    /// What it is that runs guests: the processor and the kernel, in their words.
    pub runs_on: String,
    /// What came of booting guests.
    tried: BTreeMap<Rung, Tried>,
}

/// What came of trying to boot a guest on a rung.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Tried {
    /// Whether its userspace answered.
    boots: bool,
    /// When.
    at: Timestamp,
    /// What was tried; with anything else it must be tried again.
    with: String,
}

/// How long a failure is believed in: a host that was too busy for a moment is
/// not to do with less until it boots again.
const FAILURE_MAX: SignedDuration = SignedDuration::from_mins(10);

impl Record for Facts {
    const VERSION: u32 = 3;
}

/// How long others may take to measure.
const MEASURING_MAX: Duration = Duration::from_secs(10);

/// Long enough for an error of some parts in a million, which the guest's clock
/// shares; short enough to go unnoticed once per boot.
const MEASURE: Duration = Duration::from_millis(50);

impl Facts {
    /// The facts of this boot, measured if nobody has yet.
    pub fn gather(config: &Config) -> Result<Self> {
        let boot_id = read("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        // Whatever is wrong with what was kept, measuring again is the cure.
        let kept = || record::read::<Self>(&path(config)).ok().filter(|it| it.boot_id == boot_id);
        if let Some(facts) = kept() {
            return Ok(facts);
        }
        // One measures, and others take what he got: no two get the very same.
        private_dir(&config.cache_dir)?;
        let _measuring = Lock::take_dir(&config.cache_dir, Mode::Exclusive, MEASURING_MAX)?;
        if let Some(facts) = kept() {
            return Ok(facts);
        }
        let (tsc_khz, runs_on) = (measure_tsc_khz(), runs_on()?);
        let facts = Self { boot_id, tsc_khz, runs_on, tried: BTreeMap::new() };
        facts.keep(config)?;
        Ok(facts)
    }

    /// Whether a guest boots on a rung; `None` when that must be tried.
    #[must_use]
    pub fn boots(&self, config: &Config, rung: Rung) -> Option<bool> {
        let believed = |tried: &&Tried| {
            let fresh = Timestamp::now().duration_since(tried.at).abs() < FAILURE_MAX;
            (tried.boots || fresh) && tried.with == identity(config, rung)
        };
        self.tried.get(&rung).filter(believed).map(|tried| tried.boots)
    }

    /// Remembers these facts until the host boots again.
    pub fn keep(&self, config: &Config) -> Result<()> {
        private_dir(&config.cache_dir)?;
        record::write(&path(config), self)
    }
}

/// Remembers whether a guest boots on a rung, so that nobody need guess. That
/// it cannot be remembered costs a guess and nothing else.
pub fn remember(config: &Config, rung: Rung, boots: bool) {
    if let Ok(mut facts) = Facts::gather(config) {
        let tried = Tried { boots, at: Timestamp::now(), with: identity(config, rung) };
        facts.tried.insert(rung, tried);
        drop(facts.keep(config));
    }
}

/// What a rung stands on: the files of its programs, the device, who runs it. The
/// kernel is the same for as long as these facts are kept.
pub fn identity(config: &Config, rung: Rung) -> String {
    let mut files = vmm::programs(config, rung).unwrap_or_default();
    if rung.needs_kvm() {
        files.push(PathBuf::from(KVM));
    }
    let mut words = vec![format!("uid {}", rustix::process::geteuid().as_raw())];
    words.extend(files.into_iter().map(|file| {
        let seen = file.metadata().map(|meta| {
            let Some(changed) = meta.is_file().then(|| (meta.mtime(), meta.mtime_nsec())) else {
                // The time of a device says when it was last used.
                return format!("{}:{}", meta.dev(), meta.ino());
            };
            format!("{}:{} {} {}.{}", meta.dev(), meta.ino(), meta.len(), changed.0, changed.1)
        });
        format!("{} {}", file.display(), seen.unwrap_or_default())
    }));
    words.join("; ")
}

fn path(config: &Config) -> PathBuf {
    config.cache_dir.join("host.json")
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|error| Error::io(format!("cannot read {path}"), error))
}

/// The first processor's own words but for its speed of the moment, and the
/// kernel's release.
fn runs_on() -> Result<String> {
    let processors = read("/proc/cpuinfo")?;
    let first = processors.lines().take_while(|line| !line.is_empty());
    let steady = first.filter(|line| !line.starts_with("cpu MHz") && !line.starts_with("bogomips"));
    let kernel = read("/proc/sys/kernel/osrelease")?;
    Ok(steady.chain([kernel.trim()]).collect::<Vec<_>>().join("\n"))
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

/// The hypervisor's device.
const KVM: &str = "/dev/kvm";

/// Whether KVM may be there for this user, and the processor says that it can
/// run guests: a good first guess, not a proof. `pyro doctor` tries.
#[must_use]
pub fn kvm_is_likely() -> bool {
    open_kvm().is_ok() && processor_claims_kvm()
}

/// Opens the hypervisor's device, which proves nothing yet.
///
/// # Errors
/// `HostRequirement`, with what to do.
pub fn open_kvm() -> Result<()> {
    fs::File::options().read(true).write(true).open(KVM).map(drop).map_err(|error| {
        let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        let hint = if denied {
            "join the group that owns it: `adduser $USER kvm`"
        } else {
            "turn on virtualisation in the firmware, or in the host of this virtual machine"
        };
        let message = format!("cannot open {KVM}");
        Error::new(ErrorKind::HostRequirement, message).because(error).hint(hint)
    })
}

/// Whether the processor says that it can run guests.
#[must_use]
pub fn processor_claims_kvm() -> bool {
    let flags = |text: String| {
        text.lines().find_map(|line| line.strip_prefix("flags")).is_some_and(|flags| {
            flags.split_whitespace().any(|flag| flag == "svm" || flag == "vmx")
        })
    };
    fs::read_to_string("/proc/cpuinfo").is_ok_and(flags)
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
        assert_eq!(measured.boots(&config, Rung::QemuKvm), None);
        remember(&config, Rung::QemuKvm, true);
        let kept = Facts::gather(&config).expect("read");
        assert_eq!(
            (kept.tsc_khz, kept.boots(&config, Rung::QemuKvm)),
            (measured.tsc_khz, Some(true))
        );
        assert_eq!(kept.boots(&config, Rung::Firecracker), None, "another matter");
    }

    /// Changes what was remembered of a rung.
    fn doctored(config: &Config, rung: Rung, change: impl FnOnce(&mut Tried)) -> Facts {
        let mut facts = Facts::gather(config).expect("read");
        change(facts.tried.get_mut(&rung).expect("tried"));
        facts
    }

    #[test]
    fn a_failure_is_not_believed_in_for_ever() {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::within(home.path());
        for (boots, later) in [(false, None), (true, Some(true))] {
            remember(&config, Rung::QemuTcg, boots);
            let long_ago = |tried: &mut Tried| tried.at = Timestamp::UNIX_EPOCH;
            let facts = Facts::gather(&config).expect("read");
            assert_eq!(facts.boots(&config, Rung::QemuTcg), Some(boots));
            let facts = doctored(&config, Rung::QemuTcg, long_ago);
            assert_eq!(facts.boots(&config, Rung::QemuTcg), later);
        }
    }

    #[test]
    fn i5_what_was_proven_of_one_program_is_not_proven_of_another() {
        let home = tempfile::tempdir().expect("a directory");
        let program = home.path().join("firecracker");
        fs::write(&program, "one").expect("written");
        let config = Config { firecracker: Some(program.clone()), ..Config::within(home.path()) };
        remember(&config, Rung::Firecracker, true);
        let facts = Facts::gather(&config).expect("read");
        assert_eq!(facts.boots(&config, Rung::Firecracker), Some(true));
        fs::write(&program, "another").expect("written");
        assert_eq!(facts.boots(&config, Rung::Firecracker), None, "it has changed");
        fs::write(&program, "one").expect("written");
        fs::write(home.path().join("jailer"), "").expect("written");
        assert_eq!(facts.boots(&config, Rung::Firecracker), None, "it has company");
    }

    #[test]
    fn those_of_another_boot_or_damaged_ones_are_measured_again() {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::within(home.path());
        remember(&config, Rung::QemuTcg, true);
        let kept = Facts::gather(&config).expect("read");
        let old = Facts { boot_id: "another".into(), tsc_khz: 1, ..kept };
        old.keep(&config).expect("kept");
        let fresh = Facts::gather(&config).expect("measured");
        assert!(fresh.tsc_khz > 1 && fresh.tried.is_empty(), "{fresh:?}");
        fs::write(path(&config), "{ torn").expect("written");
        assert!(Facts::gather(&config).expect("measured").tried.is_empty());
    }

    #[test]
    fn two_measurements_agree() {
        let (one, other) = (measure_tsc_khz(), measure_tsc_khz());
        // Generous: the host is busy, and what a guest needs is tested in one.
        assert!(one.abs_diff(other) * 100 < one, "{one} {other}");
    }
}
