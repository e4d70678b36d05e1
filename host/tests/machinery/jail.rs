//! What the watcher does, shown with a shell that plays the jailer's part. Only
//! root can jail.

use crate::confinement::{PLAYING, copy_of_this, is_alive, run, skip, wait_until};
use pyro::confine::{Confined, Confinement, Jailer, VMM_UID, can_jail, inspect, spawn};
use pyro::id::WorkspaceId;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A shell to play the jailer with.
const SHELL: &str = "/bin/dash";

/// A workspace's directory, as far as a VMM is concerned.
pub struct Lab {
    pub place: tempfile::TempDir,
}

impl Lab {
    /// `None`, and why, where nobody can be jailed.
    fn new() -> Option<Self> {
        if !can_jail() {
            return skip("this is not the host's own root");
        }
        Some(Self { place: tempfile::tempdir().unwrap() })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Firecracker below a jailer, and what they say.
    pub fn confinement(
        &self,
        jailer: &Path,
        firecracker: &Path,
    ) -> (Confinement, std::io::PipeReader) {
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

pub fn line(said: &mut impl BufRead) -> String {
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn parent_of(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    parent.trim().parse().unwrap()
}

pub fn kill(pid: u32) {
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
