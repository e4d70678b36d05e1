//! What docs/security.md promises of the VMM, read from /proc while it runs.

use pyro_smoke::{Home, is_vmm, is_watcher, parent};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

/// What a VMM may see besides devices, its program and libraries. QEMU is passed
/// its disks, Firecracker opens them.
const SEEN: &[&str] = &[
    "/",
    "/kernel",
    "/initrd",
    "/root.img",
    "/disk.img",
    "/seed.img",
    "/sockets",
    "/firecracker",
    // The template's.
    "/memory",
    "/state",
];

/// What of it a VMM may write.
const WRITABLE: &[&str] = &["/disk.img", "/sockets"];

struct Running {
    child: Child,
    vmm: u32,
}

impl Running {
    fn start(home: &Home) -> Self {
        let mut child = home
            .pyro(["run", "debian:12", "--", "sh", "-c", "echo up; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("pyro starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert_eq!(line, "up\n");
        let vmms: Vec<u32> = home
            .processes()
            .into_iter()
            .filter(|(_, words)| is_vmm(words))
            .map(|(pid, _)| pid)
            .collect();
        assert_eq!(vmms.len(), 1, "{:?}", home.processes());
        Self { child, vmm: vmms[0] }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.vmm)).expect("the VMM runs")
    }

    fn status(&self, field: &str) -> String {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("no {field} in {status}")).to_owned()
    }

    /// Whether it is confined by Firecracker's jailer.
    fn is_jailed(&self) -> bool {
        parent(self.vmm).is_some_and(is_watcher)
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().expect("pyro ends");
    }
}

#[test]
fn s2_the_vmm_has_no_rights() {
    let home = Home::new();
    let running = Running::start(&home);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        // What bounds the jailer bounds what it starts; NoNewPrivs makes it void.
        if set != "CapBnd" || !running.is_jailed() {
            assert_eq!(u64::from_str_radix(&running.status(set), 16), Ok(0), "{set}");
        }
    }
    assert_eq!(running.status("NoNewPrivs"), "1");
    assert_eq!(running.status("Seccomp"), "2");
    let uids = running.status("Uid");
    assert!(uids.split('\t').all(|uid| uid != "0"), "{uids}");
    for namespace in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let link =
            |who: &str| fs::read_link(format!("/proc/{who}/ns/{namespace}")).expect("a namespace");
        // The jailer makes devices, which only the host's root may.
        if namespace != "user" || !running.is_jailed() {
            assert_ne!(link(&running.vmm.to_string()), link("self"), "{namespace}");
        }
    }
    let limits = running.read("limits");
    assert!(
        limits.lines().any(|line| line.starts_with("Max core file size") && line.contains(" 0 ")),
        "{limits}"
    );
    running.end();
}

#[test]
fn s2_the_vmm_sees_none_of_the_users_files() {
    let home = Home::new();
    let running = Running::start(&home);
    let mounts = running.read("mountinfo");
    for line in mounts.lines() {
        let point = line.split(' ').nth(4).expect("a mount point");
        let options = line.split(' ').nth(5).expect("mount options");
        let programs = ["/usr/", "/dev/", "/lib"].iter().any(|prefix| point.starts_with(prefix));
        let expected = programs || SEEN.contains(&point);
        assert!(expected, "the VMM sees {point}");
        // A jail is in memory, and goes with the VMM.
        let writable = WRITABLE.contains(&point) || (point == "/" && running.is_jailed());
        assert!(
            point.starts_with("/dev/")
                || writable
                || options.split(',').any(|option| option == "ro"),
            "{line}"
        );
    }
    // Its root has nothing but what was mounted.
    let root = format!("/proc/{}/root", running.vmm);
    for hidden in ["home", "root", "etc", "proc", "sys", "tmp", "var", "work"] {
        assert!(
            !fs::exists(format!("{root}/{hidden}")).expect("readable"),
            "the VMM sees /{hidden}"
        );
    }
    running.end();
}
