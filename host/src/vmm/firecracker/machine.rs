//! A machine as Firecracker's API takes it.

use super::super::{Durability, KernelFlavor, Machine};
use super::seen;
use serde::Serialize;

/// The guest's address on its vsock; every machine has a host of its own to talk
/// to, so all may have the same.
const GUEST_CID: u32 = 3;

/// The rate of the timer that KVM emulates: always one tick a nanosecond. Where
/// the processor has no deadline timer, finding it out takes a guest a quarter of
/// a second.
const KVM_TIMER_HZ: u32 = 1_000_000_000;

/// `PUT /boot-source`.
#[derive(Debug, Serialize)]
pub(super) struct BootSource {
    kernel_image_path: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    initrd_path: Option<&'static str>,
    boot_args: String,
}

/// `PUT /machine-config`.
#[derive(Debug, Serialize)]
pub(super) struct MachineConfig {
    vcpu_count: u32,
    mem_size_mib: u32,
}

/// `PUT /drives/ID`.
#[derive(Debug, Serialize)]
pub(super) struct Drive {
    pub(super) drive_id: &'static str,
    path_on_host: &'static str,
    /// Never: Firecracker would add words to the kernel's command line.
    is_root_device: bool,
    is_read_only: bool,
    /// Whether what the guest wants written out is.
    cache_type: &'static str,
}

/// `PUT /vsock`.
#[derive(Debug, Serialize)]
pub(super) struct Vsock {
    guest_cid: u32,
    uds_path: &'static str,
}

/// `PUT /entropy`.
#[derive(Debug, Serialize)]
pub(super) struct Entropy {}

/// `PUT /actions`.
#[derive(Debug, Serialize)]
#[serde(tag = "action_type")]
pub(super) enum Action {
    /// Lets the guest boot.
    InstanceStart,
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
    pub(super) fn of(machine: &Machine) -> Self {
        Self {
            kernel_image_path: seen::KERNEL,
            initrd_path: machine.initrd.is_some().then_some(seen::INITRD),
            boot_args: kernel_command_line(machine),
        }
    }
}

impl MachineConfig {
    pub(super) fn of(machine: &Machine) -> Self {
        Self { vcpu_count: machine.vcpu_count, mem_size_mib: machine.mem_mib }
    }
}

impl Drive {
    /// Those of a machine, in the order in which the guest is to find them.
    pub(super) fn all(machine: &Machine) -> [Self; 3] {
        let written_out = match machine.durability {
            Durability::Scratch => "Unsafe",
            Durability::Kept => "Writeback",
        };
        let drive = |drive_id, path_on_host, is_read_only, cache_type| Self {
            drive_id,
            path_on_host,
            is_root_device: false,
            is_read_only,
            cache_type,
        };
        [
            drive("root", seen::ROOT_IMAGE, true, "Unsafe"),
            drive("disk", seen::DISK, false, written_out),
            drive("seed", seen::SEED, true, "Unsafe"),
        ]
    }
}

impl Vsock {
    pub(super) const OURS: Self = Self { guest_cid: GUEST_CID, uds_path: seen::VSOCK };
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
    if machine.verbose {
        words.extend(["console=ttyS0", "earlyprintk=ttyS0", "loglevel=7"].map(String::from));
    } else {
        words.push("quiet".into());
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
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
            seed: "/state/seed.erofs".into(),
            verbose: false,
        }
    }

    fn requests(machine: &Machine) -> serde_json::Value {
        json!({
            "/boot-source": BootSource::of(machine),
            "/machine-config": MachineConfig::of(machine),
            "/drives": Drive::all(machine),
            "/vsock": Vsock::OURS,
            "/entropy": Entropy {},
            "/actions": Action::InstanceStart,
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
    fn what_is_not_kept_need_not_be_written_out() {
        let scratch = Machine { durability: Durability::Scratch, ..machine(KernelFlavor::Tuned) };
        assert_eq!(Drive::all(&scratch)[1].cache_type, "Unsafe");
        let talkative = Machine { verbose: true, ..scratch };
        let line = BootSource::of(&talkative).boot_args;
        assert!(line.contains("console=ttyS0") && !line.contains("quiet"), "{line}");
    }
}
