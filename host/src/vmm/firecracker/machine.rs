//! A machine as Firecracker's configuration file has it, and what its API takes.

use super::super::{Access, Beginning, Durability, KernelFlavor, Machine, REHEARSE, RateLimit};
use super::seen;
use serde::Serialize;

/// The guest's address on its vsock; every machine has a host of its own to talk
/// to, so all may have the same.
const GUEST_CID: u32 = 3;

/// The rate of the timer that KVM emulates: always one tick a nanosecond. Where
/// the processor has no deadline timer, finding it out takes a guest a quarter of
/// a second.
const KVM_TIMER_HZ: u32 = 1_000_000_000;

/// What the workspace's disk is called.
const DISK: &str = "disk";

/// All that Firecracker is told before it starts: what its API would take at these
/// paths.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Configuration {
    machine_config: MachineConfig,
    boot_source: BootSource,
    drives: Vec<Drive>,
    vsock: Vsock,
    entropy: Entropy,
    metrics: MetricsSink,
}

impl Configuration {
    pub(super) fn of(machine: &Machine) -> Self {
        Self {
            machine_config: MachineConfig::of(machine),
            boot_source: BootSource::of(machine),
            drives: Drive::all(machine),
            vsock: Vsock::OURS,
            entropy: Entropy {},
            metrics: MetricsSink::OURS,
        }
    }
}

#[derive(Debug, Serialize)]
struct BootSource {
    kernel_image_path: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    initrd_path: Option<&'static str>,
    boot_args: String,
}

#[derive(Debug, Serialize)]
struct MachineConfig {
    vcpu_count: u32,
    mem_size_mib: u32,
}

#[derive(Debug, Serialize)]
struct Drive {
    drive_id: &'static str,
    path_on_host: &'static str,
    /// Never: Firecracker would add words to the kernel's command line.
    is_root_device: bool,
    is_read_only: bool,
    /// Whether what the guest wants written out is.
    cache_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limiter: Option<RateLimiter>,
}

/// How fast a drive may be used.
#[derive(Debug, Serialize)]
struct RateLimiter {
    #[serde(skip_serializing_if = "Option::is_none")]
    bandwidth: Option<Bucket>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ops: Option<Bucket>,
}

/// Tokens, as many as are spent in a while.
#[derive(Debug, Serialize)]
struct Bucket {
    size: u64,
    /// In milliseconds.
    refill_time: u64,
}

/// `PUT /metrics`.
#[derive(Debug, Serialize)]
pub(super) struct MetricsSink {
    metrics_path: &'static str,
}

impl MetricsSink {
    pub(super) const OURS: Self = Self { metrics_path: seen::METRICS };
}

impl RateLimiter {
    fn of(limit: RateLimit) -> Option<Self> {
        let bucket = |size| Bucket { size, refill_time: 1000 };
        let bandwidth = limit.bytes_per_second().map(|bytes| bucket(bytes.get()));
        let ops = limit.operations_per_second.map(|count| bucket(count.get().into()));
        (bandwidth.is_some() || ops.is_some()).then_some(Self { bandwidth, ops })
    }
}

/// What a machine that is restored gets, which was saved without: the same is
/// restored for guests with other limits.
#[derive(Debug, Serialize)]
pub(super) struct DiskLimit {
    drive_id: &'static str,
    rate_limiter: RateLimiter,
}

impl DiskLimit {
    /// Where it is told.
    pub(super) const PATH: &'static str = "/drives/disk";

    /// If it has one.
    pub(super) fn of(machine: &Machine) -> Option<Self> {
        let writes = machine.disk_access == Access::Write;
        let rate_limiter = RateLimiter::of(machine.disk_limit).filter(|_| writes)?;
        Some(Self { drive_id: DISK, rate_limiter })
    }
}

#[derive(Debug, Serialize)]
struct Vsock {
    guest_cid: u32,
    uds_path: &'static str,
}

#[derive(Debug, Serialize)]
struct Entropy {}

/// `PUT /actions`.
#[derive(Debug, Serialize)]
#[serde(tag = "action_type")]
pub(super) enum Action {
    /// Writes down what it has counted.
    FlushMetrics,
}

/// `PATCH /vm`.
#[derive(Debug, Serialize)]
#[serde(tag = "state")]
pub(super) enum VmState {
    /// It stands still.
    Paused,
    /// It goes on.
    Resumed,
}

impl BootSource {
    fn of(machine: &Machine) -> Self {
        Self {
            kernel_image_path: seen::KERNEL,
            initrd_path: machine.initrd.is_some().then_some(seen::INITRD),
            boot_args: kernel_command_line(machine),
        }
    }
}

impl MachineConfig {
    fn of(machine: &Machine) -> Self {
        Self { vcpu_count: machine.vcpu_count, mem_size_mib: machine.mem_mib }
    }
}

impl Drive {
    /// Those of a machine, in the order in which the guest is to find them.
    fn all(machine: &Machine) -> Vec<Self> {
        let written_out = match machine.durability {
            Durability::Scratch => "Unsafe",
            Durability::Kept => "Writeback",
        };
        let limit = match machine.beginning {
            Beginning::Boot => machine.disk_limit,
            Beginning::BootToSave(_) | Beginning::Restore(_) => RateLimit::NONE,
        };
        let drive = |drive_id, path_on_host, is_read_only, cache_type| Self {
            drive_id,
            path_on_host,
            is_root_device: false,
            is_read_only,
            cache_type,
            rate_limiter: (!is_read_only).then(|| RateLimiter::of(limit)).flatten(),
        };
        let is_read_only = machine.disk_access == Access::Read;
        let mut drives = vec![
            drive("root", seen::ROOT_IMAGE, true, "Unsafe"),
            drive(DISK, seen::DISK, is_read_only, written_out),
            drive("seed", seen::SEED, true, "Unsafe"),
        ];
        if machine.copy.is_some() {
            drives.push(Self { rate_limiter: None, ..drive("copy", seen::COPY, false, "Unsafe") });
        }
        drives
    }
}

impl Vsock {
    const OURS: Self = Self { guest_cid: GUEST_CID, uds_path: seen::VSOCK };
}

/// All that Firecracker is told of a machine that can be saved. Limits are set when
/// it is restored.
pub(super) fn likeness(machine: &Machine) -> Option<String> {
    if machine.copy.is_some() || machine.verbose {
        return None;
    }
    let (disk_limit, beginning) = (RateLimit::NONE, Beginning::Boot);
    let machine = Machine { disk_limit, beginning, ..machine.clone() };
    serde_json::to_string(&Configuration::of(&machine)).ok()
}

fn kernel_command_line(machine: &Machine) -> String {
    let mut words = vec![
        // A guest that panics or powers off reboots, which ends Firecracker.
        "panic=-1".to_owned(),
        "reboot=k".into(),
        "root=/dev/vda".into(),
        "rootfstype=erofs".into(),
        "ro".into(),
        "init=/usr/lib/pyro/pyro-agent".into(),
        // No interface that nobody asked for.
        "dummy.numdummies=0".into(),
        // There is no bus to look for.
        "pci=off".into(),
    ];
    if machine.kernel_flavor == KernelFlavor::Tuned {
        words.push(format!("lapic_timer_hz={KVM_TIMER_HZ}"));
    }
    if let Beginning::BootToSave(_) = machine.beginning {
        words.push(REHEARSE.into());
    }
    if machine.verbose {
        words.extend(["console=ttyS0", "earlyprintk=ttyS0", "loglevel=7"].map(String::from));
    } else {
        words.push("quiet".into());
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::super::Saved;
    use super::*;
    use serde_json::json;

    fn machine(kernel_flavor: KernelFlavor) -> Machine {
        Machine {
            vcpu_count: 2,
            mem_mib: 512,
            kernel: "/cache/vmlinux".into(),
            kernel_flavor,
            initrd: (kernel_flavor == KernelFlavor::Stock).then(|| "/cache/initrd.cpio".into()),
            root_image: "/cache/root.erofs".into(),
            disk: "/state/disk.ext4".into(),
            durability: Durability::Kept,
            disk_limit: RateLimit::NONE,
            disk_access: Access::Write,
            seed: "/state/seed.erofs".into(),
            copy: None,
            networked: false,
            verbose: false,
            beginning: Beginning::Boot,
        }
    }

    fn requests(machine: &Machine) -> serde_json::Value {
        json!({
            "configuration": Configuration::of(machine),
            "/actions": Action::FlushMetrics,
            "/vm": [VmState::Paused, VmState::Resumed],
        })
    }

    #[test]
    fn every_kernel() {
        for flavor in KernelFlavor::ALL {
            insta::assert_json_snapshot!(flavor.as_str(), requests(&machine(flavor)));
        }
    }

    #[test]
    fn no_path_of_the_host_is_told() {
        for flavor in KernelFlavor::ALL {
            let words = requests(&machine(flavor)).to_string();
            assert!(!words.contains("/cache") && !words.contains("/state"), "{words}");
        }
    }

    #[test]
    fn r12_a_disk_that_is_looked_at_is_not_written() {
        let looked_at = Machine {
            disk_access: Access::Read,
            copy: Some("/state/copy.img".into()),
            ..machine(KernelFlavor::Tuned)
        };
        let drives = Drive::all(&looked_at);
        let read_only: Vec<_> = drives.iter().map(|drive| drive.is_read_only).collect();
        assert_eq!(read_only, [true, true, true, false]);
    }

    #[test]
    fn only_the_writable_disk_is_limited() {
        let disk_limit = RateLimit {
            mib_per_second: std::num::NonZeroU32::new(10),
            operations_per_second: std::num::NonZeroU32::new(100),
        };
        let limited = Machine { disk_limit, ..machine(KernelFlavor::Tuned) };
        let limiters = Drive::all(&limited);
        let limiters: Vec<_> = limiters.iter().map(|drive| json!(drive.rate_limiter)).collect();
        let disk = json!({
            "bandwidth": { "size": 10 << 20, "refill_time": 1000 },
            "ops": { "size": 100, "refill_time": 1000 },
        });
        assert_eq!(limiters, [json!(null), disk, json!(null)]);
    }

    #[test]
    fn what_is_saved_has_no_limit_and_gets_it_when_it_is_restored() {
        let operations_per_second = std::num::NonZeroU32::new(100);
        let disk_limit = RateLimit { mib_per_second: None, operations_per_second };
        let limited = Machine { disk_limit, ..machine(KernelFlavor::Tuned) };
        let saved = Saved { state: "/cache/state".into(), memory: "/cache/memory".into() };
        let beginning = Beginning::BootToSave(saved);
        let drives = Drive::all(&Machine { beginning, ..limited.clone() });
        assert!(drives.iter().all(|drive| drive.rate_limiter.is_none()));
        let ops = json!({ "size": 100, "refill_time": 1000 });
        let told = json!({ "drive_id": "disk", "rate_limiter": { "ops": ops } });
        assert_eq!(json!(DiskLimit::of(&limited)), told);
        let looked_at = Machine { disk_access: Access::Read, ..limited.clone() };
        assert!(DiskLimit::of(&looked_at).is_none(), "nothing is limited that is read only");
        let unlimited = Machine { disk_limit: RateLimit::NONE, ..limited };
        assert!(DiskLimit::of(&unlimited).is_none());
    }

    #[test]
    fn what_is_not_kept_need_not_be_written_out() {
        let scratch = Machine { durability: Durability::Scratch, ..machine(KernelFlavor::Tuned) };
        assert_eq!(Drive::all(&scratch)[1].cache_type, "Unsafe");
        let talkative = Machine { verbose: true, ..scratch };
        let line = BootSource::of(&talkative).boot_args;
        assert!(line.contains("console=ttyS0") && !line.contains("quiet"), "{line}");
    }
}
