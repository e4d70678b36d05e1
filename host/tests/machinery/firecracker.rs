//! The promises of docs/security.md, read from a real Firecracker where
//! `PYRO_FIRECRACKER` names one, with its jailer beside it.

use crate::confinement::{as_anybody, run, skip};
use crate::jail::{Lab, kill, line};
use pyro::ErrorKind;
use pyro::confine::{
    Confined, Confinement, Limits, VMM_UID, can_jail, inspect, spawn, unlimited_because,
};
use pyro::id::WorkspaceId;
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Enough for it and a guest of 128 MiB.
const LIMITS: Limits = Limits { memory_bytes: Some(256 << 20), pids: Some(64) };

/// A Firecracker that runs a guest that does nothing, if it may.
struct Running {
    lab: Lab,
    program: Confined,
    /// Whether there is a guest: not where the device is not for this user.
    started: bool,
    _output: BufReader<std::io::PipeReader>,
}

impl Running {
    /// Below the jailer if that can be and `jail` says so. `None`, and why, where
    /// there is no Firecracker to be had.
    fn start(jail: bool) -> Option<Self> {
        let Some(firecracker) = std::env::var_os("PYRO_FIRECRACKER").map(PathBuf::from) else {
            return skip("PYRO_FIRECRACKER names no Firecracker");
        };
        let jailer = firecracker.with_file_name("jailer");
        if !jailer.exists() {
            return skip(format_args!("there is no {}", jailer.display()));
        }
        let lab = Lab { place: tempfile::tempdir().unwrap() };
        let (mut confinement, said) = lab.confinement(&jailer, &firecracker);
        if can_jail() && !jail {
            confinement = Confinement::new(&firecracker);
        }
        fs::write(lab.path("disk"), vec![0; 4096]).unwrap();
        fs::set_permissions(lab.path("disk"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(lab.path("kernel"), halting_kernel()).unwrap();
        confinement.see_writable(&lab.path("disk"), "/disk").unwrap();
        confinement.see_as(&lab.path("kernel"), "/kernel");
        if let Err(error) = confinement.see_device(Path::new("/dev/kvm"), lab.place.path()) {
            return skip(error.chain());
        }
        confinement.share(&lab.path("vmm"), "/run").unwrap();
        confinement.limit(WorkspaceId::random(), LIMITS);
        let (output, stdout) = std::io::pipe().unwrap();
        confinement.stdout(stdout.into());
        let program = match spawn(confinement, &["--api-sock".into(), "/run/api.sock".into()]) {
            Ok(program) => program,
            Err(error) if error.kind() == ErrorKind::Unsupported => return skip(error.chain()),
            Err(error) => panic!("{}", error.chain()),
        };
        assert_eq!(program.is_jailed(), jail && can_jail());
        let mut output = BufReader::new(output);
        loop {
            let told = line(&mut output);
            if told.contains("API server started") {
                break;
            }
            if told.is_empty() {
                let mut why = String::new();
                BufReader::new(said).read_to_string(&mut why).unwrap();
                panic!("it does not start: {why}");
            }
        }
        Some(Self { lab, program, started: false, _output: output })
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.lab.path("vmm/api.sock")).unwrap();
        write!(stream, "{request}").unwrap();
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    fn put(&self, path: &str, body: &str) -> String {
        let length = body.len();
        self.ask(&format!("PUT {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}"))
    }

    fn add_drive(&self, file: &str, read_only: bool) -> String {
        let body = format!(
            r#"{{"drive_id":"{file}","path_on_host":"/{file}","is_root_device":false,"is_read_only":{read_only}}}"#
        );
        self.put(&format!("/drives/{file}"), &body)
    }

    fn boot(&mut self) {
        let refused = self.add_drive("kernel", false);
        assert!(refused.contains("400"), "the kernel can be written: {refused}");
        for (file, read_only) in [("disk", false), ("kernel", true)] {
            let added = self.add_drive(file, read_only);
            assert!(added.contains("204"), "{file} does not open: {added}");
        }
        let source = self.put("/boot-source", r#"{"kernel_image_path":"/kernel"}"#);
        assert!(source.contains("204"), "{source}");
        let started = self.put("/actions", r#"{"action_type":"InstanceStart"}"#);
        self.started = started.contains("204");
        let may = File::options().read(true).write(true).open("/dev/kvm").is_ok();
        assert_eq!(self.started, may, "{started}");
    }

    fn has_what_it_was_given(&self) {
        let pid = self.program.pid();
        let seen = inspect(pid).unwrap();
        for name in ["disk", "vmm"] {
            assert_eq!(self.lab.path(name).metadata().unwrap().uid(), seen.uid, "{name}");
        }
        assert_eq!(self.lab.path("vmm").metadata().unwrap().mode() & 0o777, 0o700);
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let listed = |path: &str| {
            let entries = fs::read_dir(root.join(path)).unwrap();
            let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
            let mut names: Vec<_> =
                entries.map(|entry| name(entry).into_string().unwrap()).collect();
            names.sort();
            names
        };
        if self.program.is_jailed() {
            let all = ["dev", "disk", "firecracker", "firecracker.pid", "kernel", "run"];
            assert_eq!(listed(""), all);
            assert_eq!(listed("dev"), ["kvm", "net", "null", "urandom", "zero"]);
        } else if !can_jail() {
            assert_eq!(listed(""), ["dev", "disk", "firecracker", "kernel", "run"]);
            assert_eq!(listed("dev"), ["kvm", "null", "urandom", "zero"]);
        }
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        for (point, writable) in [("/disk", true), ("/kernel", false), ("/run", true)] {
            let mount = mounts.lines().find(|line| line.split(' ').nth(4) == Some(point)).unwrap();
            let options: Vec<_> = mount.split(' ').nth(5).unwrap().split(',').collect();
            let access = if writable { "rw" } else { "ro" };
            for wanted in [access, "nosuid", "nodev", "noexec"] {
                assert!(options.contains(&wanted), "{mount}");
            }
        }
    }

    fn may_do_nothing_more(&self) {
        let pid = self.program.pid();
        let seen = inspect(pid).unwrap();
        let own = rustix::process::geteuid();
        assert_eq!(seen.uid, if own.is_root() { VMM_UID } else { own.as_raw() });
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        if own.is_root() {
            assert!(status.contains("\nGroups:\t \n"), "{status}");
            assert!(
                status.contains(&format!("\nGid:\t{VMM_UID}\t{VMM_UID}\t{VMM_UID}\t{VMM_UID}\n"))
            );
        }
        assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
        // Without a guest the first thread has no filter yet.
        let gaps = if self.started { &[][..] } else { &["under seccomp"] };
        assert_eq!(seen.gaps(), gaps, "{seen}");
        match unlimited_because() {
            // The watcher is one more.
            None if self.program.is_jailed() => {
                assert_eq!(seen.limits, Limits { pids: Some(65), ..LIMITS });
            }
            None => assert_eq!(seen.limits, LIMITS),
            Some(reason) => eprintln!("no limits: {reason}"),
        }
        let jailed = self.program.is_jailed();
        assert_eq!(seen.shared_namespaces, if jailed { &["user"][..] } else { &[] });
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let limit = |name: &str| {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(4).unwrap().to_owned()
        };
        assert_eq!(
            (limit("Max core file size"), limit("Max open files")),
            ("0".into(), "1024".into())
        );
    }
}

/// A kernel that stops for good: the least that Firecracker loads, an ELF file
/// with one segment.
fn halting_kernel() -> Vec<u8> {
    const AT: u64 = 0x10_0000;
    let code: [u8; 3] = [0xf4, 0xeb, 0xfd]; // hlt, and again
    let headers = 64 + 56;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 62] {
        file.extend(half.to_le_bytes()); // an executable, for x86-64
    }
    file.extend(1_u32.to_le_bytes());
    for word in [AT, 64, 0] {
        file.extend(u64::to_le_bytes(word)); // entry, program headers, no sections
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for word in [1_u32, 5] {
        file.extend(word.to_le_bytes()); // to load, read and execute
    }
    for word in [headers, AT, AT, code.len() as u64, code.len() as u64, 4096] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

async fn firecracker_keeps_its_promises(jail: bool) {
    let Some(mut running) = Running::start(jail) else { return };
    let answer = running.ask("GET / HTTP/1.1\r\n\r\n");
    // Who could have been jailed and is not was not named either.
    let id = if can_jail() && !jail { "anonymous-instance" } else { "0123456789ab" };
    assert!(answer.contains(id) && answer.contains("Not started"), "{answer}");
    running.boot();
    running.may_do_nothing_more();
    running.has_what_it_was_given();
    kill(running.program.pid());
    assert_eq!(running.program.wait().await, "was killed by signal 9");
}

#[test]
fn firecracker_keeps_the_promises_in_its_jail() {
    run(async {
        if can_jail() {
            firecracker_keeps_its_promises(true).await;
        } else {
            skip::<()>("this is not the host's own root");
        }
    });
}

#[test]
fn firecracker_keeps_the_promises_in_namespaces_of_its_own() {
    as_anybody(
        "firecracker::firecracker_keeps_the_promises_in_namespaces_of_its_own",
        firecracker_keeps_its_promises(false),
    );
}
