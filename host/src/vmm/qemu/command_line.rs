//! A machine as QEMU's arguments.

use super::{Accelerator, Qemu};
use crate::vmm::{Access, Beginning, Durability, KernelFlavor, Machine, REHEARSE, RateLimit};
use pyro_protocol::egress::{MTU_MAX, NIC};
use std::os::fd::RawFd;

/// Where the kernel is for a confined QEMU.
pub const KERNEL: &str = "/kernel";
/// Where the initial RAM disk is for a confined QEMU.
pub const INITRD: &str = "/initrd";

/// Where the memory of a machine that is saved, or was, is for a confined QEMU.
pub const MEMORY: &str = "/memory";

/// The name of the agent's virtio-serial port; the guest looks for it.
const PORT_NAME: &str = "pyro.agent";

/// The rate of the timer that QEMU's translator emulates. Finding it out takes
/// a guest a quarter of a second.
const TCG_TIMER_HZ: u32 = 1_000_000_000;

/// Everything that QEMU's translator can do, but for the claim that `rep movsb`
/// is fast: it copies byte by byte there, and a kernel that believes it copies
/// and clears memory three to six times as slowly.
const TCG_CPU: &str = "max,-erms";

/// The workspace's disk in QEMU's graph of them, and what slows it.
const DISK: &str = "disk";
const LIMITED: &str = "limited-disk";
const LIMIT: &str = "limit";

/// Descriptors that QEMU inherits, by their numbers in its process.
#[derive(Debug, Clone, Copy)]
pub struct Descriptors {
    /// A connected socket: the agent's channel.
    pub channel: RawFd,
    /// A connected socket: the serial console.
    pub console: RawFd,
    /// A connected socket: the monitor.
    pub monitor: RawFd,
    /// A connected socket: the cable of the guest's NIC, if it has one.
    pub nic: Option<RawFd>,
    /// The root image, read-only.
    pub root_image: RawFd,
    /// The workspace's disk.
    pub disk: RawFd,
    /// The seed's image, read-only.
    pub seed: RawFd,
    /// What the guest copies to.
    pub copy: Option<RawFd>,
}

/// The arguments of a machine that can be saved, whatever its descriptors are.
pub fn likeness(machine: &Machine, qemu: &Qemu) -> Option<String> {
    let Machine { disk_limit, copy, verbose, .. } = machine;
    if *disk_limit != RateLimit::NONE || copy.is_some() || *verbose {
        return None;
    }
    let machine = &Machine { beginning: Beginning::Boot, ..machine.clone() };
    let descriptors = Descriptors {
        channel: 0,
        console: 0,
        monitor: 0,
        nic: machine.networked.then_some(0),
        root_image: 0,
        disk: 0,
        seed: 0,
        copy: None,
    };
    Some(CommandLine { machine, qemu, descriptors }.arguments().join(" "))
}

/// All that decides the arguments.
#[derive(Debug, Clone, Copy)]
pub struct CommandLine<'a> {
    /// What to start.
    pub machine: &'a Machine,
    /// With what.
    pub qemu: &'a Qemu,
    /// What QEMU inherits.
    pub descriptors: Descriptors,
}

impl CommandLine<'_> {
    /// The arguments after the program's name.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let Descriptors { channel, console, monitor, nic, root_image, disk, seed, copy } =
            self.descriptors;
        let machine = self.machine;
        let mem_mib = machine.mem_mib;
        let mut words: Vec<String> = Vec::with_capacity(64);
        let mut option = |name: &str, value: String| words.extend([format!("-{name}"), value]);

        let acpi = match machine.kernel_flavor {
            KernelFlavor::Tuned => "off",
            KernelFlavor::Stock => "on",
        };
        option("machine", format!("microvm,acpi={acpi},memory-backend=memory"));
        let kind = match machine.beginning {
            Beginning::Boot => "memfd".to_owned(),
            // What the guest writes is written to the file.
            Beginning::BootToSave(_) => format!("file,mem-path={MEMORY},share=on"),
            // It is not: what is written is copied first.
            Beginning::Restore(_) => format!("file,mem-path={MEMORY},share=off"),
        };
        option("object", format!("memory-backend-{kind},id=memory,size={mem_mib}M"));
        option("m", format!("{mem_mib}M"));
        option("smp", machine.vcpu_count.to_string());
        match self.qemu.accelerator {
            Accelerator::Kvm => {
                option("accel", "kvm".into());
                option("cpu", "host".into());
            }
            Accelerator::Tcg => {
                option("accel", "tcg,thread=multi".into());
                option("cpu", TCG_CPU.into());
            }
        }
        option("chardev", format!("socket,id=console,fd={console}"));
        option("serial", "chardev:console".into());
        option("chardev", format!("socket,id=monitor,fd={monitor}"));
        option("mon", "chardev=monitor,mode=control".into());
        option("chardev", format!("socket,id=channel,fd={channel}"));
        option("device", "virtio-serial-device".into());
        option("device", format!("virtserialport,chardev=channel,name={PORT_NAME}"));
        if let Some(nic) = nic {
            option("netdev", format!("socket,id=network,fd={nic}"));
            let [a, b, c, d, e, f] = NIC;
            let address = format!("mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
            // Packets as long as there can be: the cable is a socket.
            let mtu = format!("host_mtu={MTU_MAX}");
            option("device", format!("virtio-net-device,netdev=network,{address},{mtu}"));
        }
        // What goes with the guest waits for no storage of the host's, and the
        // guest need not ask it to.
        let read = ("read-only=on", ",write-cache=off");
        let scratch = ("read-only=off,cache.no-flush=on", ",write-cache=off");
        let own = match (machine.disk_access, machine.durability) {
            (Access::Read, _) => read,
            (Access::Write, Durability::Scratch) => scratch,
            (Access::Write, Durability::Kept) => ("read-only=off", ""),
        };
        let disks = [("root", root_image, read), (DISK, disk, own), ("seed", seed, read)];
        let copy = copy.map(|copy| ("copy", copy, scratch));
        for (name, descriptor, (access, cache)) in disks.into_iter().chain(copy) {
            option("add-fd", format!("fd={descriptor},set={descriptor}"));
            option(
                "blockdev",
                format!(
                    "driver=raw,node-name={name},{access},file.driver=file,\
                     file.filename=/dev/fdset/{descriptor},file.locking=off,discard=unmap"
                ),
            );
            let mut drive = name;
            if name == DISK && machine.disk_limit != RateLimit::NONE {
                drive = LIMITED;
                option("object", throttle_group(machine.disk_limit));
                let node = format!("node-name={LIMITED},throttle-group={LIMIT},file={name}");
                option("blockdev", format!("driver=throttle,{node}"));
            }
            // A full host disk is the guest's to hear of: QEMU's default is to stop
            // the machine for good.
            option(
                "device",
                format!("virtio-blk-device,drive={drive},werror=report,rerror=report{cache}"),
            );
        }
        option("kernel", KERNEL.into());
        if machine.initrd.is_some() {
            option("initrd", INITRD.into());
        }
        option("append", self.kernel_command_line());
        option("display", "none".into());
        option(
            "sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into(),
        );
        words.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(String::from));
        // Whether it is in a saved state or not, it is to be the same in all: the
        // state of devices alone has none.
        words.extend(["-global", "migration.send-configuration=off"].map(String::from));
        if let Beginning::Restore(_) = machine.beginning {
            words.extend(["-incoming", "defer"].map(String::from));
        }
        words
    }

    fn kernel_command_line(&self) -> String {
        let machine = self.machine;
        let mut words = vec![
            // A guest that panics or powers off reboots, which ends QEMU.
            "panic=-1".to_string(),
            "reboot=t".into(),
            "root=/dev/vda".into(),
            "rootfstype=erofs".into(),
            "ro".into(),
            "init=/usr/lib/pyro/pyro-agent".into(),
            // No interface that nobody asked for.
            "dummy.numdummies=0".into(),
        ];
        match self.qemu.accelerator {
            Accelerator::Kvm => {}
            Accelerator::Tcg => {
                // Without a paravirtual clock the kernel must be told the rate
                // of its time stamp counter or it falls back to jiffies, and
                // with ACPI hangs. The rest skips what is slow to emulate and
                // of no use inside one tenant's throw-away machine.
                words.push(format!("tsc_early_khz={}", self.qemu.tsc_khz));
                words.extend(
                    ["tsc=reliable", "no_timer_check", "mitigations=off"].map(String::from),
                );
                words.push("cryptomgr.notests".into());
                // The translator keeps code by its address: with the libraries
                // at other addresses in every process, each program is
                // translated anew and starts five times as slowly.
                words.push("norandmaps".into());
                if machine.kernel_flavor == KernelFlavor::Tuned {
                    words.push(format!("lapic_timer_hz={TCG_TIMER_HZ}"));
                }
                if machine.vcpu_count == 1 {
                    words.push("noreplace-smp".into());
                }
            }
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
}

/// What a disk's reads and writes take turns by. In JSON: QEMU's own notation
/// has only names for these limits that it may take back.
fn throttle_group(limit: RateLimit) -> String {
    let mut limits = serde_json::Map::new();
    if let Some(bytes) = limit.bytes_per_second() {
        limits.insert("bps-total".into(), bytes.get().into());
    }
    if let Some(operations) = limit.operations_per_second {
        limits.insert("iops-total".into(), operations.get().into());
    }
    serde_json::json!({ "qom-type": "throttle-group", "id": LIMIT, "limits": limits }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn qemu(accelerator: Accelerator) -> Qemu {
        Qemu { program: "/usr/bin/qemu".into(), accelerator, tsc_khz: 2_500_000 }
    }

    fn arguments(accelerator: Accelerator, kernel_flavor: KernelFlavor) -> String {
        shown(accelerator, &machine(kernel_flavor))
    }

    fn limited_arguments(disk_limit: RateLimit) -> String {
        shown(Accelerator::Tcg, &Machine { disk_limit, ..machine(KernelFlavor::Tuned) })
    }

    fn machine(kernel_flavor: KernelFlavor) -> Machine {
        Machine {
            vcpu_count: 1,
            mem_mib: 512,
            kernel: "/cache/vmlinux".into(),
            kernel_flavor,
            initrd: (kernel_flavor == KernelFlavor::Stock).then(|| "/cache/initrd.cpio".into()),
            root_image: "/cache/root.erofs".into(),
            disk: "/state/disk.ext4".into(),
            durability: Durability::Scratch,
            disk_limit: RateLimit::NONE,
            disk_access: Access::Write,
            seed: "/state/seed.erofs".into(),
            copy: None,
            networked: false,
            verbose: false,
            beginning: Beginning::Boot,
        }
    }

    fn shown(accelerator: Accelerator, machine: &Machine) -> String {
        let descriptors = Descriptors {
            channel: 3,
            console: 4,
            monitor: 5,
            nic: machine.networked.then_some(9),
            root_image: 6,
            disk: 7,
            seed: 8,
            copy: machine.copy.is_some().then_some(10),
        };
        let qemu = qemu(accelerator);
        let words = CommandLine { machine, qemu: &qemu, descriptors }.arguments();
        // An option and its value on one line.
        words.join(" ").replace(" -", "\n-")
    }

    #[test]
    fn every_kernel_with_and_without_kvm() {
        for accelerator in [Accelerator::Tcg, Accelerator::Kvm] {
            for flavor in KernelFlavor::ALL {
                let name = format!("{accelerator:?}-{flavor}").to_lowercase();
                insta::assert_snapshot!(name, arguments(accelerator, flavor));
            }
        }
    }

    #[test]
    fn there_is_a_nic_when_there_is_a_network_and_none_else() {
        let machine = machine(KernelFlavor::Tuned);
        assert!(!shown(Accelerator::Tcg, &machine).contains("net"));
        let networked = shown(Accelerator::Tcg, &Machine { networked: true, ..machine });
        let lines: Vec<_> = networked.lines().filter(|line| line.contains("net")).collect();
        assert_eq!(
            lines,
            [
                "-netdev socket,id=network,fd=9",
                "-device virtio-net-device,netdev=network,mac=02:70:79:72:6f:02,host_mtu=65500",
            ]
        );
    }

    #[test]
    fn r12_a_disk_that_is_looked_at_is_not_written() {
        let looked_at = Machine {
            disk_access: Access::Read,
            durability: Durability::Kept,
            copy: Some("/state/copy.img".into()),
            ..machine(KernelFlavor::Tuned)
        };
        let words = shown(Accelerator::Tcg, &looked_at);
        let access = |name: &str| {
            let line = words.lines().find(|line| line.contains(&format!("node-name={name},")));
            line.is_some_and(|line| line.contains("read-only=on"))
        };
        assert_eq!(["root", "disk", "seed", "copy"].map(access), [true, true, true, false]);
    }

    #[test]
    fn what_is_restored_differs_from_what_was_saved_in_where_its_memory_comes_from() {
        let saved = crate::vmm::Saved { state: "/cache/state".into(), memory: "/cache/m".into() };
        let [saving, restoring] = [Beginning::BootToSave, Beginning::Restore].map(|beginning| {
            let beginning = beginning(saved.clone());
            shown(Accelerator::Tcg, &Machine { beginning, ..machine(KernelFlavor::Tuned) })
        });
        assert!(saving.contains(" pyro.rehearse ") && !restoring.contains("pyro.rehearse"));
        let saving = saving.replace(" pyro.rehearse", "");
        let (saving, restoring): (Vec<_>, Vec<_>) =
            (saving.lines().collect(), restoring.lines().collect());
        let only = |these: &[&str], those: &[&str]| {
            let only = these.iter().filter(|line| !those.contains(line));
            only.map(|line| (*line).to_owned()).collect::<Vec<_>>()
        };
        let memory = |share| {
            format!(
                "-object memory-backend-file,mem-path=/memory,share={share},id=memory,size=512M"
            )
        };
        assert_eq!(only(&saving, &restoring), [memory("on")]);
        assert_eq!(only(&restoring, &saving), [memory("off"), "-incoming defer".to_owned()]);
    }

    #[test]
    fn a_limit_is_put_before_the_disk_and_no_other() {
        let limits = [(Some(5), None), (None, Some(200)), (Some(5), Some(200))];
        let [bytes, operations, both] = limits.map(|(mib, operations)| {
            let limit = RateLimit {
                mib_per_second: mib.and_then(NonZeroU32::new),
                operations_per_second: operations.and_then(NonZeroU32::new),
            };
            let words = limited_arguments(limit);
            let wanted = ["throttle", "limited-disk"];
            let lines = words.lines().filter(|line| wanted.iter().any(|word| line.contains(word)));
            lines.map(str::to_owned).collect::<Vec<_>>().join("\n")
        });
        insta::assert_snapshot!(format!("{bytes}\n\n{operations}\n\n{both}"));
    }

    #[test]
    fn no_path_of_the_host_is_told() {
        for flavor in KernelFlavor::ALL {
            let words = arguments(Accelerator::Tcg, flavor);
            assert!(!words.contains("/cache") && !words.contains("/state"), "{words}");
        }
    }

    #[test]
    fn more_processors_and_a_talkative_kernel() {
        let mut machine = Machine {
            vcpu_count: 4,
            mem_mib: 2048,
            durability: Durability::Kept,
            verbose: true,
            ..machine(KernelFlavor::Tuned)
        };
        let line = |machine: &Machine| shown(Accelerator::Tcg, machine).replace('\n', " ");
        let many = line(&machine);
        assert!(many.contains("-smp 4") && many.contains("-m 2048M"), "{many}");
        assert!(many.contains("console=ttyS0") && !many.contains("quiet"), "{many}");
        assert!(!many.contains("noreplace-smp"), "{many}");
        assert!(!many.contains("no-flush"), "what is kept is written out: {many}");
        machine.vcpu_count = 1;
        assert!(line(&machine).contains("noreplace-smp"));
    }
}
