//! What runs below a watcher: a play of the jailer's part, which shows what the
//! watcher does, and the real jailer with the real Firecracker where
//! `PYRO_FIRECRACKER` names one. Only root can jail.

use crate::confinement::{PLAYING, as_anybody, copy_of_this, is_alive, run, skip, wait_until};
use pyro::ErrorKind;
use pyro::confine::{
    Confined, Confinement, Jailer, SharedSocket, VMM_UID, can_jail, inspect, spawn,
};
use pyro::id::WorkspaceId;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A shell to play the jailer with.
const SHELL: &str = "/bin/dash";

/// A workspace's directory, as far as a VMM is concerned.
struct Lab {
    place: tempfile::TempDir,
}

impl Lab {
    /// `None`, and why, where nobody can be jailed.
    fn new() -> Option<Self> {
        if !can_jail() {
            return skip("this is not the host's own root");
        }
        Some(Self { place: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Firecracker below a jailer, with what is common to all.
    fn confinement(&self, jailer: &Path, firecracker: &Path) -> (Confinement, std::io::PipeReader) {
        let mut confinement = Confinement::new(firecracker);
        let id: WorkspaceId = "0123456789ab".parse().unwrap();
        let (program, directory) = (jailer.to_owned(), self.path("jail"));
        confinement.jailer(Jailer { program, directory, id });
        let (said, stderr) = std::io::pipe().unwrap();
        confinement.stderr(stderr.into());
        (confinement, said)
    }

    /// A program that does what a shell is told instead of jailing anybody.
    fn played(&self, script: &str) -> (Confinement, std::io::PipeReader) {
        let jailer = self.path("jailer");
        fs::write(&jailer, format!("#!{SHELL}\n{script}\n")).unwrap();
        fs::set_permissions(&jailer, fs::Permissions::from_mode(0o700)).unwrap();
        let firecracker = self.path("firecracker");
        fs::write(&firecracker, "the program").unwrap();
        fs::set_permissions(&firecracker, fs::Permissions::from_mode(0o755)).unwrap();
        self.confinement(&jailer, &firecracker)
    }
}

fn line(said: &mut impl BufRead) -> String {
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn parent_of(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    parent.trim().parse().unwrap()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Whether nobody holds the lock of a file.
fn is_free(path: &Path) -> bool {
    let lock = File::open(path).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[test]
fn the_jailer_is_told_where_and_as_whom() {
    run(async {
        let Some(lab) = Lab::new() else { return };
        let script = "echo \"$@\" >&2; echo $$ >&2; cat /proc/misc >&2; \
                      cat \"$4\" >&2; echo >&2; \
                      cat \"${10}/firecracker/$2/root/shown\" >&2; echo out; exec ls /proc/self/fd >&2";
        let (mut confinement, said) = lab.played(script);
        fs::write(lab.path("file"), "in the jail\n").unwrap();
        confinement.see_as(&lab.path("file"), "/shown");
        let (mut out, stdout) = std::io::pipe().unwrap();
        confinement.stdout(stdout.into());
        confinement.pass(File::open("/dev/null").unwrap());
        let mut program = spawn(confinement, &["--api-sock".into(), "/run/api".into()]).unwrap();
        assert_eq!(program.wait().await, "exited with status 0");
        let base = lab.path("jail").canonicalize().unwrap();
        let base = base.to_str().unwrap();
        let mut said = BufReader::new(said);
        assert_eq!(
            line(&mut said),
            format!(
                "--id 0123456789ab --exec-file {base}/program/firecracker --uid {VMM_UID} --gid {VMM_UID} \
                 --chroot-base-dir {base} --resource-limit no-file=1024 -- --api-sock /run/api"
            )
        );
        assert_eq!(line(&mut said), "2", "it is not alone in its pid namespace");
        assert_eq!(line(&mut said), "the program");
        assert_eq!(line(&mut said), "in the jail");
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "0\n1\n2\n3\n", "the last is the directory itself");
        let mut output = String::new();
        out.read_to_string(&mut output).unwrap();
        assert_eq!(output, "out\n");
        let left = fs::read_dir(lab.path("jail")).unwrap().count();
        assert_eq!(left, 0, "the jail is on the host's disk");
    });
}

#[test]
fn a_jailed_programs_end_is_told_as_it_was() {
    run(async {
        let Some(lab) = Lab::new() else { return };
        for (script, end) in [
            ("exit 7", "exited with status 7"),
            ("kill -TERM $$", "was killed by signal 15"),
            ("kill -KILL $$", "was killed by signal 9"),
            // Who is left behind is buried, and does not hold up the end.
            ("(read nothing <&1 &) & exit 3", "exited with status 3"),
        ] {
            let (confinement, _said) = lab.played(script);
            let mut program = spawn(confinement, &[]).unwrap();
            assert_eq!(program.wait().await, end, "{script}");
            assert_eq!(program.wait().await, end, "{script}");
        }
        let (mut confinement, _said) = lab.played("exit 0");
        let missing = Jailer {
            program: lab.path("no-such-jailer"),
            directory: lab.path("jail"),
            id: WorkspaceId::random(),
        };
        confinement.jailer(missing);
        let error = spawn(confinement, &[]).expect_err("there is none");
        assert!(error.message().contains("exec failed"), "{}", error.chain());
    });
}

/// Starts one that waits for ever, with a lock passed.
fn waiting(lab: &Lab) -> (Confined, BufReader<std::io::PipeReader>, OwnedFd) {
    let (mut confinement, said) = lab.played("echo up >&2; read nothing <&1");
    // Something to wait for: nobody writes to it.
    let (silence, stdout) = std::io::pipe().unwrap();
    confinement.stdout(silence.into());
    let lock = File::create(lab.path("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    confinement.pass(lock);
    let program = spawn(confinement, &[]).unwrap();
    let mut said = BufReader::new(said);
    assert_eq!(line(&mut said), "up");
    (program, said, stdout.into())
}

#[test]
fn whichever_is_killed_all_are_gone_and_the_lock_with_them() {
    run(async {
        let Some(lab) = Lab::new() else { return };
        let (vmm, watcher) = (0, 1);
        for killed in [vmm, watcher] {
            let (mut program, mut said, _stdout) = waiting(&lab);
            assert!(program.is_jailed());
            assert!(!is_free(&lab.path("lock")), "nobody holds the lock");
            let pid = program.pid();
            let watcher_pid = parent_of(pid);
            assert_ne!(watcher_pid, std::process::id());
            kill(if killed == vmm { pid } else { watcher_pid });
            assert_eq!(program.wait().await, "was killed by signal 9");
            assert!(is_free(&lab.path("lock")), "somebody holds the lock");
            assert!(!is_alive(pid) && !is_alive(watcher_pid));
            let mut rest = String::new();
            said.read_to_string(&mut rest).unwrap();
        }
        let (mut program, _said, _stdout) = waiting(&lab);
        let pid = program.pid();
        program.kill();
        assert_eq!(program.wait().await, "was killed by signal 9");
        assert!(!is_alive(pid));
        let (program, _said, _stdout) = waiting(&lab);
        let pid = program.pid();
        drop(program);
        assert!(!is_alive(pid) && is_free(&lab.path("lock")));
    });
}

#[test]
fn a_jailed_program_dies_with_the_process_that_started_it() {
    const NAME: &str = "jail::a_jailed_program_dies_with_the_process_that_started_it";
    if std::env::var_os(PLAYING).is_some_and(|part| part == "owner") {
        return run(async {
            let Some(lab) = Lab::new() else { return eprintln!("pid none") };
            let (program, _said, _stdout) = waiting(&lab);
            eprintln!("pid {} of {}", program.pid(), lab.place.path().display());
            std::future::pending().await
        });
    }
    let mut owner = copy_of_this(NAME, "owner").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(owner.stderr.take().unwrap()).lines();
    let told = lines.find_map(|line| line.unwrap().strip_prefix("pid ").map(str::to_owned));
    owner.kill().unwrap();
    owner.wait().unwrap();
    let told = told.unwrap();
    let Some((pid, place)) = told.split_once(" of ") else {
        skip::<()>("not root");
        return;
    };
    let pid = pid.parse().unwrap();
    wait_until("it lives on", || !is_alive(pid) && is_free(&Path::new(place).join("lock")));
    fs::remove_dir_all(place).unwrap();
}

#[test]
fn the_watcher_can_do_nothing_but_watch() {
    run(async {
        let Some(lab) = Lab::new() else { return };
        let (program, _said, _stdout) = waiting(&lab);
        let watcher = parent_of(program.pid());
        let seen = inspect(watcher).unwrap();
        assert_eq!((seen.capabilities, seen.bounding, seen.no_new_privs), (0, 0, true), "{seen}");
        let open = fs::read_dir(format!("/proc/{watcher}/fd")).unwrap().count();
        assert_eq!(open, 5, "three times nothing, the lock, and where it tells the end");
    });
}

/// `None`, and why, where there is no Firecracker to be had.
fn firecracker() -> Option<(PathBuf, PathBuf)> {
    let Some(firecracker) = std::env::var_os("PYRO_FIRECRACKER").map(PathBuf::from) else {
        return skip("PYRO_FIRECRACKER names no Firecracker");
    };
    let jailer = firecracker.with_file_name("jailer");
    if !jailer.exists() {
        return skip(format_args!("there is no {}", jailer.display()));
    }
    Some((firecracker, jailer))
}

/// Asks Firecracker what it is.
fn ask(directory: &Path, request: &str) -> String {
    let socket = SharedSocket::find(File::open(directory).unwrap(), "api.sock").unwrap();
    let mut stream = UnixStream::connect(socket.path()).unwrap();
    write!(stream, "{request}").unwrap();
    let mut answer = [0; 4096];
    let read = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

fn put(path: &str, body: &str) -> String {
    format!("PUT {path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The real one, started as its description says: below the jailer if that can
/// be and `jail` says so.
async fn firecracker_keeps_its_promises(jail: bool) {
    let Some((firecracker, jailer)) = firecracker() else { return };
    let lab = Lab { place: tempfile::tempdir().unwrap() };
    let (mut confinement, said) = lab.confinement(&jailer, &firecracker);
    if can_jail() && !jail {
        confinement = Confinement::new(&firecracker);
    }
    let jail = jail && can_jail();
    for name in ["disk", "image"] {
        fs::write(lab.path(name), vec![0; 4096]).unwrap();
    }
    fs::set_permissions(lab.path("disk"), fs::Permissions::from_mode(0o600)).unwrap();
    confinement.see_writable(&lab.path("disk"), "/disk").unwrap();
    confinement.see_as(&lab.path("image"), "/image");
    confinement.see_device(Path::new("/dev/kvm"), lab.place.path()).unwrap();
    confinement.share(&lab.path("vmm"), "/run").unwrap();
    let (out, stdout) = std::io::pipe().unwrap();
    confinement.stdout(stdout.into());
    let arguments = ["--api-sock".into(), "/run/api.sock".into()];
    let mut program = match spawn(confinement, &arguments) {
        Ok(program) => program,
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            skip::<()>(error.chain());
            return;
        }
        Err(error) => panic!("{}", error.chain()),
    };
    assert_eq!(program.is_jailed(), jail);
    let mut out = BufReader::new(out);
    loop {
        let told = line(&mut out);
        assert!(!told.is_empty(), "{}", {
            let mut why = String::new();
            drop(program);
            BufReader::new(said).read_to_string(&mut why).unwrap();
            why
        });
        if told.contains("API server started") {
            break;
        }
    }
    let vmm = lab.path("vmm");
    let answer = ask(&vmm, "GET / HTTP/1.1\r\n\r\n");
    let id = if can_jail() && !jail { "anonymous-instance" } else { "0123456789ab" };
    assert!(answer.contains(id) && answer.contains("Not started"), "{answer}");
    let disk = |name: &str, read_only: bool| {
        let body = format!(
            "{{\"drive_id\":\"{name}\",\"path_on_host\":\"/{name}\",\"is_root_device\":false,\"is_read_only\":{read_only}}}"
        );
        ask(&vmm, &put(&format!("/drives/{name}"), &body))
    };
    assert!(disk("disk", false).contains("204"), "its disk does not open");
    assert!(disk("image", true).contains("204"), "its image does not open");
    let refused = ask(
        &vmm,
        &put(
            "/drives/other",
            "{\"drive_id\":\"other\",\"path_on_host\":\"/image\",\"is_root_device\":false,\"is_read_only\":false}",
        ),
    );
    assert!(refused.contains("400"), "the image can be written: {refused}");

    let pid = program.pid();
    let seen = inspect(pid).unwrap();
    let own = rustix::process::geteuid();
    assert_eq!(seen.uid, if own.is_root() { VMM_UID } else { own.as_raw() });
    assert_eq!(seen.gaps(), [""; 0], "{seen}");
    assert_eq!(seen.shared_namespaces, if jail { &["user"][..] } else { &[] });
    for name in ["disk", "vmm"] {
        assert_eq!(lab.path(name).metadata().unwrap().uid(), seen.uid, "{name}");
    }
    assert_eq!(vmm.metadata().unwrap().mode() & 0o777, 0o700);
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let listed = |path: &str| {
        let mut names: Vec<_> = fs::read_dir(root.join(path))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    if jail {
        let made = ["dev", "disk", "firecracker", "firecracker.pid", "image", "run"];
        assert_eq!(listed(""), made);
        assert_eq!(listed("dev"), ["kvm", "net", "null", "urandom", "zero"]);
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    for (point, wanted) in [
        ("/disk", &["rw", "nosuid", "nodev", "noexec"][..]),
        ("/image", &["ro", "nosuid", "nodev", "noexec"]),
        ("/run", &["rw", "nosuid", "nodev", "noexec"]),
    ] {
        let mount = mounts.lines().find(|line| line.split(' ').nth(4) == Some(point)).unwrap();
        let options: Vec<_> = mount.split(' ').nth(5).unwrap().split(',').collect();
        assert!(wanted.iter().all(|option| options.contains(option)), "{mount}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = |name: &str, column: usize| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(column).unwrap().to_owned()
    };
    assert_eq!(limit("Max core file size", 4), "0");
    assert_eq!(limit("Max open files", 4), "1024");
    kill(pid);
    assert_eq!(program.wait().await, "was killed by signal 9");
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
        "jail::firecracker_keeps_the_promises_in_namespaces_of_its_own",
        firecracker_keeps_its_promises(false),
    );
}
